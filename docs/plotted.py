"""Figures of the pages that are drawn of committed results: `python docs/measured.py` draws them.

A figure stands between two comments, the first with its name in `PLOTS`:

    <!-- plotted: race -->
    ...
    <!-- end of plotted -->

Its file, `docs/figures/<name>.svg`, has the digest of the runs that it shows. The same runs and the
same Matplotlib give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
from typing import NamedTuple

from result_plots import quantum, scheduling, steps, training
from result_plots.style import Draw, svg
from result_tables.cells import Runs

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS / "measured"
FIGURES = DOCS / "figures"
_PLOT = re.compile(r"(<!-- plotted: (\w+) -->\n).*?(<!-- end of plotted -->)", re.S)


class Plot(NamedTuple):
    """A figure of results.

    Attributes:
        files: Names of the files of its runs, which are shown one after the other.
        draw: Draws the runs on an empty figure.
        size: Width and height, in inches.
        shows: What is seen in it, for who does not see it.
    """

    files: tuple[str, ...]
    draw: Draw
    size: tuple[float, float]
    shows: str


# Widths are those of a page: a figure of one panel, and of several.
_ONE, _SEVERAL = 6.4, 7.6
PLOTS: dict[str, Plot] = {
    "whole_wait": Plot(
        ("whole_wait",),
        training.whole_wait,
        (_SEVERAL, 3.8),
        "Training loss against seconds on a curve fit and on a physics-informed network. QNewton "
        "begins last, because it traces longest, and ends several orders of magnitude below Adam "
        "and L-BFGS.",
    ),
    "models": Plot(
        ("models",),
        training.models,
        (_SEVERAL, 4.6),
        "First and later steps of each kind of model. QNewton's first step takes several times as "
        "long as Adam's, most for recurrent layers. Its later steps take from three to more than a "
        "hundred times as long.",
    ),
    "first_step": Plot(
        ("first_step",),
        training.first_step,
        (_ONE, 3.8),
        "Parts of the first step by model. Tracing is the longest, the run of the graph comes "
        "next. Adam's whole first step is short beside either.",
    ),
    "classics": Plot(
        ("classics",),
        training.classics,
        (_SEVERAL, 3.8),
        "Problems solved against steps. From the standard start all methods solve as many. From "
        "ten times that QNewton solves more than SciPy's methods.",
    ),
    "paper": Plot(
        ("paper",),
        quantum.paper,
        (_ONE, 4.2),
        "Share of LU's time that is saved against the gate time. By each cost model without "
        "readout it rises from nothing to nearly all, at gate times far below those of machines. "
        "With readout nothing is saved at any gate time.",
    ),
    "paper_rows": Plot(
        ("paper",),
        quantum.paper_rows,
        (_SEVERAL, 4.4),
        "Gate times at which each circuit breaks even. All are below a machine's gate by orders of "
        "magnitude, most of all QSVT's and where the solution is read.",
    ),
    "pinn": Plot(
        ("pinn",),
        training.pinn,
        (_SEVERAL, 3.3),
        "L2 error against seconds on three equations. Both methods' lines lie close to each other.",
    ),
    "deepxde": Plot(
        ("deepxde",),
        training.deepxde,
        (_ONE, 3.2),
        "L2 errors of DeepXDE's examples by method. QNewton's is lowest by one to three orders of "
        "magnitude on four of six. On Burgers all are alike, and on Helmholtz Adam's is lowest.",
    ),
    "quasi_newton": Plot(
        ("quasi_newton",),
        training.quasi_newton,
        (_SEVERAL, 2.8),
        "L2 error by method and seed on two equations. SciPy's L-BFGS-B ends orders of magnitude "
        "above all others; on convection BLAS's forty lines are between it and ours.",
    ),
    "small_batches": Plot(
        ("small_batches",),
        training.small_batches,
        (_ONE, 3.6),
        "Test accuracy against Adam's learning rate, for two sizes of batches. QNewton, which has "
        "no rate to choose, is above Adam at each of them.",
    ),
    "prices_solvers": Plot(
        ("prices",),
        quantum.prices_solvers,
        (_SEVERAL, 3.5),
        "Layers of QSVT over those of Shortcut against the condition number. The ratio grows with "
        "the condition number, and is below one for four unknowns until the state is there.",
    ),
    "jacobian": Plot(
        ("jacobian",),
        quantum.jacobian,
        (_SEVERAL, 3.9),
        "Layers of gates against the condition number, by circuit. Those that encode G by QSVT are "
        "highest and rise fastest. Both circuits of the shortcut are lowest.",
    ),
    "inexact": Plot(
        ("inexact", "inexact_digits"),
        quantum.inexact,
        (_ONE, 2.9),
        "Layers of gates of whole trainings. With QSVT loose solutions take thousands of times "
        "fewer than exact ones. With Shortcut they take a third or fewer.",
    ),
    "compared": Plot(
        ("hessian", "fisher", "step"),
        steps.compared,
        (_SEVERAL, 5.6),
        "Milliseconds of ours and of peers. Ours is the fastest for Hessians, for diagonal blocks "
        "and for the Fisher matrix. A step with the paper's damping takes as long as the paper's "
        "algorithm, a step by layer is faster, and Adam's is fastest by far.",
    ),
    "solve": Plot(
        ("solve",),
        steps.solve,
        (_SEVERAL, 3.4),
        "Solvers' times over those of SciPy's Cholesky, against the size. Ours by Cholesky is "
        "below one in single precision, and a little above one in double. LU is highest nearly "
        "everywhere.",
    ),
    "race": Plot(
        ("race",),
        steps.race,
        (_SEVERAL, 5.6),
        "Lowest loss against seconds on four tasks. QNewton ends lowest on the curve, on diabetes "
        "and on digits. On logistic regression L-BFGS arrives first, at the same loss.",
    ),
    "quantum": Plot(
        ("quantum",),
        quantum.solvers,
        (_SEVERAL, 4.8),
        "Seconds by task and package. This package's angles are found in a fraction of the "
        "seconds that others take. Its circuits take as long as PennyLane's, or less.",
    ),
    "scheduling_lu": Plot(
        ("scheduling",),
        scheduling.lu,
        (_ONE, 3.3),
        "LU's time against the size, as predicted and as measured. Both rise alike, and the "
        "measured one is above the other, by about a factor of two for large systems.",
    ),
    "scheduling_condition": Plot(
        ("scheduling",),
        scheduling.condition,
        (_SEVERAL, 3.4),
        "Errors of the estimated condition number against the condition number. Most are far below "
        "a percent. For the log, an exact Hessian's may be larger.",
    ),
}


def runs_of(name: str) -> Runs:
    """The runs that a figure shows."""
    texts = ((RESULTS / f"{file}.json").read_text("utf-8") for file in PLOTS[name].files)
    return [run for text in texts for run in json.loads(text)["runs"]]


def digest(runs: Runs) -> str:
    """Of runs, as a figure's file has it."""
    return hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:16]


def drawn(name: str) -> str:
    """The figure, as its file is to be."""
    plot, runs = PLOTS[name], runs_of(name)
    about = {"Title": name, "Identifier": digest(runs)}
    return svg(plot.draw, runs, plot.size, about)


def rewritten(path: pathlib.Path, page: str) -> str:
    """The page with its figures as they are to be."""
    folder = os.path.relpath(FIGURES, path.parent)

    def written(found: re.Match[str]) -> str:
        name = found[2]
        return f"{found[1]}\n![{PLOTS[name].shows}]({folder}/{name}.svg)\n\n{found[3]}"

    return _PLOT.sub(written, page)


def main() -> None:
    for name in PLOTS:
        (FIGURES / f"{name}.svg").write_text(drawn(name), "utf-8")
