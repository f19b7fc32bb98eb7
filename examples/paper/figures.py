"""The study's figures, as PNG files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_qnewton.virtual_clock import Projection

from .pricing import quantum_share, saved_against_best
from .settings import GATE_TIMES, ROW_SHARES, SHOWN_GATE_TIMES
from .training import Run

_PLANS = {
    "lu": ("all LU, as the paper", "C0", "-"),
    "best classical": ("best classical, with CG", "C1", "-"),
    "quantum": ("all quantum", "C2", "--"),
    "scheduled": ("scheduled", "C3", "-"),
}


def draw(
    out: pathlib.Path,
    runs: dict[str, dict[str, Run]],
    priced: dict[str, dict[str, list[Projection]]],
    results: dict[str, Any],
) -> list[tuple[str, pathlib.Path, str]]:
    """Writes the figures; (heading, file, caption) each, in the page's order."""
    pictures = []

    def add(heading: str, name: str, size: Any, paint: Callable, caption: str, *args: Any) -> None:
        figure = Figure(figsize=size, layout="constrained")
        paint(figure, *args)
        figure.savefig(out / f"{name}.png", dpi=110)
        pictures.append((heading, out / f"{name}.png", caption))

    for family, own in runs.items():
        prices = priced[family]
        add(
            f"{family}: loss against time",
            f"{family}_loss",
            (7, 9),
            _loss,
            "Newton's time is that of its linear systems alone, projected by the paper's cost "
            "model, as in the paper: forming the curvature is left out. The dotted line adds the "
            "rest of the measured step to the scheduled one. SGD and Adam are measured on this "
            "machine, whole steps.",
            own,
            prices["paper"],
        )
        add(
            f"{family}: what scheduling saves",
            f"{family}_saved",
            (7, 3.6),
            _saved,
            "Share of the linear systems' time that is saved, by gate time.",
            prices,
        )
        add(
            f"{family}: who gets which block",
            f"{family}_routes",
            (7, 3.6),
            _routes,
            "Share of each block's systems that go to the circuit; the paper's cost model, "
            "κ at most 1e4, as many qubits as it takes.",
            prices["paper"][0].decisions,
            prices["paper"],
        )
        add(
            f"{family}: conditioning",
            f"{family}_conditioning",
            (7, 6.5),
            _conditioning,
            "Left and right: κ of the regularised block and the paper's norm and determinant "
            "bound of it, on one fixed batch. Below: share of the rows' mass in their largest "
            "entries, the mean over blocks weighted by their sizes.",
            own["newton"].probes,
        )
        rows = results["families"][family]["rows"]
        if rows:
            add(
                f"{family}: by the rows",
                f"{family}_rows",
                (7, 4.5),
                _by_rows,
                "Seconds that a layer may take for a circuit to cost what LU does, to a relative "
                "residual of 1e-6: until the solution's states are there (filled), and until it is "
                "read (hollow). Bars lead to the same beside the best classical route. The "
                "Jacobian's circuit encodes the rows U, the others UᵀU + λI.",
                rows,
            )
    for name, label in (
        ("sparsity", "share of entries kept"),
        ("epsilon", "regularisation ε"),
        ("hidden", "hidden size"),
    ):
        if results["sweeps"][name]:
            add(
                f"Sweep: {label}",
                f"sweep_{name}",
                (7, 6.5),
                _sweep,
                "Test accuracy after the sweep's steps; median κ and d/N of each block; the gate "
                "time at which a block's circuit costs what LU does, without and with readout.",
                results["sweeps"][name],
                label,
                name == "hidden",
            )
    return pictures


def _dress(axes: Any, xlabel: str, ylabel: str, x: str = "log", y: str = "log") -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=x, yscale=y)
    axes.grid(True, alpha=0.3)


def _loss(figure: Any, runs: dict[str, Run], prices: Sequence[Projection]) -> None:
    newton = runs["newton"]
    shown = [p for p in prices if any(np.isclose(p.gate_time, SHOWN_GATE_TIMES, rtol=1e-6, atol=0))]
    panels = figure.subplots(3, 2, sharey=True).ravel()
    for axes, own in zip(panels, shown, strict=False):
        for plan, (label, colour, style) in _PLANS.items():
            steps = np.array(list(own.by_step(plan).values()))
            axes.plot(steps.cumsum(), newton.losses, style, color=colour, label=label)
        scheduled = np.array(list(own.by_step("scheduled").values()))
        # The run's own solves were LU's.
        rest = max(newton.seconds - float(np.median(list(own.by_step("lu").values()))), 0.0)
        axes.plot((scheduled + rest).cumsum(), newton.losses, "C3:", label="scheduled + the rest")
        for name, label, colour in (("sgd", "SGD", "0.6"), ("adam", "Adam", "0.2")):
            run = runs[name]
            times = run.seconds * np.arange(1, len(run.losses) + 1)
            axes.plot(times, run.losses, color=colour, lw=1, label=label)
        _dress(axes, "seconds", "loss")
        axes.set_title(f"{own.gate_time:.0e} s a gate", fontsize="medium")
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center")


def _saved(figure: Any, prices: dict[str, list[Projection]]) -> None:
    axes = figure.subplots()
    for k, (name, own) in enumerate(prices.items()):
        axes.plot(GATE_TIMES, [p.saved for p in own], f"C{k}o-", ms=3, label=f"{name}, against LU")
        best = [saved_against_best(p) for p in own]
        axes.plot(GATE_TIMES, best, f"C{k}--", lw=1, label=f"{name}, against the best classical")
    axes.axhline(0.9, color="0.5", lw=1)
    _dress(axes, "seconds a gate", "share saved", y="linear")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(fontsize="x-small")


def _routes(figure: Any, decisions: Sequence[Any], prices: Sequence[Projection]) -> None:
    axes = figure.subplots()
    for block in dict.fromkeys(str(d.block) for d in decisions):
        size = next(d.size for d in decisions if str(d.block) == block)
        shares = [quantum_share(p, block) for p in prices]
        axes.plot(GATE_TIMES, shares, "o-", ms=3, alpha=0.8, label=f"{block}, N = {size:,}")
    _dress(axes, "seconds a gate", "share sent to the circuit", y="linear")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(fontsize="x-small")


def _conditioning(figure: Any, probes: Sequence[dict[str, Any]]) -> None:
    upper, lower = figure.subplots(2, 2)
    for block in dict.fromkeys(r["block"] for r in probes):
        own = [r for r in probes if r["block"] == block]
        steps = [r["step"] for r in own]
        upper[0].plot(steps, [r["kappa"] for r in own], "o-", ms=3, label=block)
        upper[1].plot(steps, [r["log10_bound"] for r in own], "o-", ms=3)
        lower[1].plot(steps, [r["rank"] / r["size"] for r in own], "o-", ms=3)
    _dress(upper[0], "step", "κ", x="linear")
    _dress(upper[1], "step", "log₁₀ of the bound", x="linear", y="linear")
    _dress(lower[1], "step", "rank / N", x="linear", y="linear")
    upper[0].legend(fontsize="xx-small")
    for share in ROW_SHARES:
        points = {
            step: np.average(
                [r["row_mass"][str(share)] for r in probes if r["step"] == step],
                weights=[r["size"] for r in probes if r["step"] == step],
            )
            for step in dict.fromkeys(r["step"] for r in probes)
        }
        lower[0].plot(*zip(*points.items(), strict=True), "o-", ms=3, label=f"{share:.3g} N")
    _dress(lower[0], "step", "row mass kept", x="linear", y="linear")
    lower[0].legend(fontsize="xx-small")


def _by_rows(figure: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots()
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    circuits = list(dict.fromkeys(row["circuit"] for row in rows))
    for k, name in enumerate(circuits):
        own = [row for row in rows if row["circuit"] == name]
        places = [blocks.index(row["block"]) + 0.15 * k for row in own]
        for end, filled in (("", f"C{k}"), ("_read", "none")):
            # NaN where the tolerance is not reached.
            even, best = (
                np.array([row[key] for row in own], float)
                for key in (f"break_even{end}", f"break_even{end}_best")
            )
            axes.vlines(places, best, even, color=f"C{k}", lw=1)
            label = None if end else name
            axes.plot(places, even, f"C{k}o", mfc=filled, ms=4, label=label)
    sizes = {row["block"]: row["size"] for row in rows}
    names = [f"{block}, {sizes[block]:,}" for block in blocks]
    _dress(axes, "block, N", "break-even, s a layer", x="linear")
    axes.set_xticks(range(len(blocks)), names, rotation=45, ha="right", fontsize="x-small")
    axes.legend(fontsize="x-small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.15))


def _sweep(figure: Any, rows: Sequence[dict[str, Any]], label: str, linear: bool) -> None:
    (accuracy, kappa), (density, even) = figure.subplots(2, 2)
    x = "linear" if linear else "log"
    values = [row["value"] for row in rows]
    accuracy.plot(values, [row["test_accuracy"] for row in rows], "o-")
    for k in range(len(rows[0]["blocks"])):
        own = [row["blocks"][k] for row in rows]
        name = own[0]["block"]
        kappa.plot(values, [b["kappa"] for b in own], "o-", ms=3, label=name)
        density.plot(values, [b["sparsity"] / b["size"] for b in own], "o-", ms=3)
        for model, style in (("paper", "-"), ("paper, with readout", ":")):
            even.plot(values, [b["break_even"][model] for b in own], f"C{k}o{style}", ms=3)
    _dress(accuracy, label, "test accuracy", x=x, y="linear")
    _dress(kappa, label, "median κ", x=x)
    _dress(density, label, "d / N", x=x, y="linear")
    _dress(even, label, "break-even gate time, s", x=x)
    kappa.legend(fontsize="x-small")
