"""Of quantum linear solvers: circuits, their prices, and the paper's study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from result_tables.cells import Runs

from result_plots.style import OURS, PEERS, dots, legend_above, ours, peer, rows, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _gates_of_machines(axes: Axes, runs: Runs, height: float) -> None:
    """A line at the fastest gate of a present machine, with its text at a share of the height."""
    seconds = min(run["seconds"] for run in runs if run["part"] == "machine")
    axes.axvline(seconds, color="#888888", linewidth=1.5)
    axes.annotate(
        f"a machine's gate,\n{1e9 * seconds:.0f} ns",
        (seconds, height),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color="#555555",
    )


def paper(figure: Figure, runs: Runs) -> None:
    """What a schedule saves of LU's time, against the gate time, by cost model."""
    axes = figure.subplots()
    prices = [run for run in runs if run["part"] == "price" and run["family"] == "mlp"]
    read = [run for run in prices if "readout" in run["model"]]
    for k, run in enumerate(run for run in prices if "readout" not in run["model"]):
        saved = [100 * share for share in run["saved_against_lu"]]
        axes.plot(run["gate_times"], saved, label=run["model"], **peer(k))
    for k, run in enumerate(read):
        label = {"label": "any, with readout"} if k == 0 else {}
        saved = [100 * share for share in run["saved_against_lu"]]
        axes.plot(run["gate_times"], saved, **label, **(ours() | {"marker": ""}))
    axes.set(xscale="log", xlabel="gate time, seconds", ylabel="saved of LU's time, %")
    _gates_of_machines(axes, runs, height=0.5)
    legend_above(figure, axes, 2)


def paper_rows(figure: Figure, runs: Runs) -> None:
    """The gate times at which each circuit breaks even, over the blocks of a model."""
    found = [run for run in runs if run["part"] == "rows"]
    kinds = list(dict.fromkeys((run["family"], run["circuit"]) for run in found))
    against = {
        "break_even": ("with LU", PEERS[1]),
        "break_even_best": ("with the best classical", PEERS[0]),
        "break_even_read": ("with LU, read", OURS),
    }
    axes = figure.subplots()
    for place, kind in enumerate(kinds):
        of = [run for run in found if (run["family"], run["circuit"]) == kind]
        for k, (key, (label, color)) in enumerate(against.items()):
            known = [run[key] for run in of if run[key] is not None]
            if known:
                at = place + 0.24 * (k - 1)
                shown = {"label": label} if place == 0 else {}
                line = {"marker": "|", "markersize": 7, "linewidth": 3, "color": color}
                axes.plot([min(known), max(known)], [at, at], **line, **shown)
    axes.set(xscale="log", xlabel="gate time at which the circuit breaks even, seconds")
    rows(axes, [", ".join(kind) for kind in kinds])
    _gates_of_machines(axes, runs, height=0.02)
    legend_above(figure, axes, 2)


def prices_solvers(figure: Figure, runs: Runs) -> None:
    """Layers of `QSVT` over those of `Shortcut`, against κ."""
    found = [run for run in runs if run["part"] == "solvers"]
    panels = figure.subplots(1, 2, sharey=True)
    parts = {"state": "until the state is there", "read": "until it is read"}
    for axes, (part, title) in zip(panels, parts.items(), strict=True):
        for k, size in enumerate(sorted({run["size"] for run in found})):
            of = [run for run in found if run["size"] == size]
            ratios = [run[f"qsvt_{part}"] / run[f"shortcut_{part}"] for run in of]
            axes.plot(
                [run["condition_number"] for run in of], ratios, label=f"N = {size}", **peer(k)
            )
        axes.axhline(1, color="#888888", linewidth=1)
        axes.set(xscale="log", yscale="log", title=title, xlabel="condition number κ")
        ticks(axes.xaxis, sorted({run["condition_number"] for run in found}))
    panels[0].set_ylabel("layers, QSVT / Shortcut")
    legend_above(figure, panels[0], 4)


def jacobian(figure: Figure, runs: Runs) -> None:
    """Layers of gates of each circuit, against κ."""
    panels = figure.subplots(1, 2, sharey=True)
    found = [run for run in runs if run["encoding"] == "dilation"]
    for axes, of_rows in zip(panels, ("more rows", "fewer rows"), strict=True):
        of = sorted(
            (run for run in found if run["case"].startswith(of_rows)),
            key=lambda run: run["condition_number"],
        )
        for k, method in enumerate(of[0]["layers"]):
            layers = [run["layers"][method] for run in of]
            axes.plot(
                [run["condition_number"] for run in of], layers, label=method, **dots(peer(k))
            )
        axes.set(
            xscale="log", yscale="log", title=f"{of_rows} than weights", xlabel="condition number κ"
        )
    panels[0].set_ylabel("layers of gates")
    legend_above(figure, panels[0], 3)


def inexact(figure: Figure, runs: Runs) -> None:
    """Layers of whole trainings, by how exactly each system is solved."""
    ways = {"1e-6": "solved to 1e-6", "0.1": "to 0.1", "forcing": "by a forcing term"}
    solvers = {"qsvt": "QSVT", "shortcut": "Shortcut"}
    kinds = list(dict.fromkeys((run["data"], run["solver"]) for run in runs))
    axes = figure.subplots()
    for k, (way, label) in enumerate(ways.items()):
        of = {(run["data"], run["solver"]): run["layers"] for run in runs if run["way"] == way}
        places = [kinds.index(kind) + 0.16 * (k - 1) for kind in of]
        axes.plot(list(of.values()), places, label=label, **dots(ours() if k == 0 else peer(k)))
    axes.set(xscale="log", xlabel="layers of gates until the goal is reached")
    rows(axes, [f"{data}, {solvers[solver]}" for data, solver in kinds])
    legend_above(figure, axes, 3)


def solvers(figure: Figure, runs: Runs) -> None:
    """Seconds of each task, by who does it."""
    answered: list[dict[str, Any]] = [
        {name: row for name, row in run["rows"].items() if "error" in row} for run in runs
    ]
    names = dict.fromkeys(name for of in answered for name in of)
    look, taken = {}, 0
    for name in names:
        if name.startswith("keras_qnewton"):
            hollow = {"fillstyle": "none"} if "refined" in name else {}
            look[name] = dots(ours()) | hollow
        else:
            look[name] = dots(peer(taken))
            taken += 1
    axes = figure.subplots()
    for name in names:
        places = [k for k, of in enumerate(answered) if name in of]
        label = name.replace("keras_qnewton", "this package").replace("qml.", "")
        axes.plot([answered[k][name]["seconds"] for k in places], places, label=label, **look[name])
    axes.set(xscale="log", xlabel="seconds")
    rows(axes, [run["title"].removesuffix(", ε = 0.001") for run in runs])
    legend_above(figure, axes, 2)
