"""The study as one HTML page, images embedded, with the style of `keras_qnewton.report`."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_qnewton.report import page, table

_VERDICTS = {True: "Yes.", False: "No.", None: "Not seen."}


def of(results: dict[str, Any], pictures: Sequence[tuple[str, pathlib.Path, str]]) -> str:
    """The page as a string."""
    sections = [
        "<h1>What scheduling Newton's linear systems saves</h1>",
        "<p>Newton's method for Keras models, layer by layer, with the regularisation of "
        "arXiv:2405.00252. Every linear system of the runs is priced by LU, by the best classical "
        "solver, by a quantum computer, and as scheduled between LU and the quantum computer. "
        "Prices of circuits are projections of a cost model; classical ones are measured on "
        "this machine. The paper's model counts no constants and no reading of the solution; "
        "“detailed” counts the constants of arXiv:2305.11352, “shortcut” those of "
        "arXiv:2406.12086 with the length of the solution known; a query is charged a sparse "
        "oracle with its own α. “With readout” counts the runs that reading N amplitudes takes, "
        "with refinement. “Circuits” are those of the package, encoded by Frobenius trees. Loading "
        "N² numbers into a quantum memory is counted by the circuits alone.</p>",
        "<h2>The paper's three claims</h2>",
    ]
    for claim in results["claims"]:
        sections.append(
            f"<p><b>{html.escape(claim['claim'])} {_VERDICTS[claim['holds']]}</b> "
            f"{html.escape(claim['answer'])}</p>"
        )
    sections += ["<h2>Training</h2>", _training(results)]
    sections += ["<h2>Break-even gate times</h2>", _break_even(results)]
    sections += ["<h2>By the rows</h2>", _by_rows(results)]
    sections += ["<h2>Machines</h2>", _machines(results), _circuits(results)]
    for heading, path, caption in pictures:
        image = base64.b64encode(path.read_bytes()).decode()
        sections.append(
            f"<h2>{html.escape(heading)}</h2><figure>"
            f'<img style="width:100%;min-width:20rem" alt="{html.escape(heading)}" '
            f'src="data:image/png;base64,{image}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return page("What scheduling Newton's linear systems saves", sections)


def _training(results: dict[str, Any]) -> str:
    columns = [("model", True), ("optimizer", True)]
    columns += [
        (name, False)
        for name in ("steps", "first loss", "last loss", "test accuracy", "seconds a step")
    ]
    rows = [
        [
            family,
            name,
            f"{run['steps']:,}",
            f"{run['first_loss']:.3g}",
            f"{run['last_loss']:.3g}",
            f"{run['test_accuracy']:.3f}",
            f"{run['seconds_a_step']:.3g}",
        ]
        for family, own in results["families"].items()
        for name, run in own["runs"].items()
    ]
    return table(columns, rows)


def _break_even(results: dict[str, Any]) -> str:
    models = list(next(iter(results["families"].values()))["prices"]["models"])
    columns = [("model", True), ("block", True), ("N", False), ("d", False), ("κ", False)]
    columns += [(name, False) for name in models]
    rows = [
        [
            family,
            block["block"],
            f"{block['size']:,}",
            f"{block['sparsity']:,}",
            f"{block['kappa']:.3g}",
            *(_seconds(block["break_even"][name]) for name in models),
        ]
        for family, own in results["families"].items()
        for block in own["blocks"]
    ]
    note = (
        "<p>Seconds a gate may take for the circuit to cost what LU does; medians of the run.</p>"
    )
    return note + table(columns, rows)


def _by_rows(results: dict[str, Any]) -> str:
    """The Jacobian's circuit beside those of the matrix, where the curvature is made of rows."""
    note = (
        "<p>Where the curvature is UᵀU of few rows, a circuit may encode U in place of UᵀU + λI. "
        "Until a relative residual of 1e-6 is reached: layers of all runs and refinements, each "
        "over its success probability. “Read” counts the shots that reading each run to ε₀ = 0.16 "
        "takes. Medians of the exact spectra on the way. All circuits are encoded by Frobenius "
        "trees, and it is supposed that the N² or rows × N numbers of a tree are at hand as "
        "angles: loading them is counted as layers of rotations in each query, finding them is "
        "not. The shortcut is told the length of each solution. The state that a run starts from "
        "is supposed to be prepared at no cost. Seconds are those that a layer may take for the "
        "circuit to cost what LU does, and what the best classical route does, Woodbury's formula "
        "from U among them. Forming UᵀU is left out.</p>"
    )
    columns = [("model", True), ("block", True), ("N", False), ("rows", False), ("circuit", True)]
    columns += [(name, False) for name in ("degree", "p", "runs", "layers", "layers, read")]
    columns += [("even with LU, s", False), ("read", False)]
    columns += [("best classical", True), ("even with it, s", False), ("read", False)]
    rows = [
        [
            family,
            row["block"],
            f"{row['size']:,}",
            f"{row['rows']:,}",
            row["circuit"],
            f"{row['degree']:,.0f}",
            f"{row['success']:.2g}",
            f"{row['runs']:.0f}",
            *(_seconds(row[key]) for key in ("layers", "layers_read")),
            *(_seconds(row[key]) for key in ("break_even", "break_even_read")),
            row["best"],
            *(_seconds(row[key]) for key in ("break_even_best", "break_even_read_best")),
        ]
        for family, own in results["families"].items()
        for row in own["rows"]
    ]
    return note + table(columns, rows) if rows else "<p>No curvature of this run has rows.</p>"


def _machines(results: dict[str, Any]) -> str:
    """How far machines are, by cost model."""
    columns = [("a layer takes", True), ("seconds", False), ("cost model", True)]
    columns += [("times too slow", False)]
    rows = [
        [row["machine"], f"{row['seconds']:.2g}", row["model"], _seconds(row["times_too_slow"])]
        for row in results["machines"]
    ]
    return table(columns, rows)


def _circuits(results: dict[str, Any]) -> str:
    """Gates of one run for the smallest block."""
    names = ("size", "degree", "gates", "depth", "t_gates", "t_depth")
    columns = [("circuit", True), *((name.replace("_", " "), False) for name in names)]
    rows = [
        [row["circuit"], *(f"{row[name]:.3g}" for name in names)] for row in results["circuits"]
    ]
    return table(columns, rows)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
