"""Of the parts of a step: matrices, solves, whole steps, and losses against seconds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from result_tables.cells import Runs

from result_plots.style import dots, legend_above, of_optimizer, ours, peer, rows, ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A loss of zero has no place on a logarithmic axis: it is drawn here.
ZERO = 1e-13
# What titles have in common, and what takes the room of the figure.
_ON_DIGITS = re.compile("^digits, batch 512[^:]*: ")


def compared(figure: Figure, runs: Runs) -> None:
    """Times of ours and of every peer that ran, a group for each task."""
    axes = figure.subplots()
    names: list[str] = []
    titles: set[str] = set()
    for run in (run for run in runs if "peers" in run):
        heads = len(names)
        title = _ON_DIGITS.sub("", run["title"])
        titles.add(title)
        names += [title, "this package"]
        axes.plot(1e3 * run["ours_seconds"], heads + 1, **dots(ours()))
        for name, found in run["peers"].items():
            if "seconds" in found:
                axes.plot(1e3 * found["seconds"], len(names), **dots(peer(0)))
                names.append(name)
    axes.set(xscale="log", xlabel="milliseconds")
    rows(axes, names)
    for label in axes.get_yticklabels():
        if label.get_text() in titles:
            label.set_fontweight("bold")


def solve(figure: Figure, runs: Runs) -> None:
    """Solvers' times over SciPy's Cholesky, against the size."""
    routes = {"cholesky": "Cholesky", "lapack": "Lapack", "lu": "LU"}
    look = {"cholesky": ours(), "lapack": peer(0), "lu": peer(1)}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, dtype in zip(panels, ("float32", "float64"), strict=True):
        of = [run for run in runs if run["dtype"] == dtype and "size" in run]
        sizes = [run["size"] for run in of]
        for route, name in routes.items():
            ratios = [run["ours_over_scipy"][route] for run in of]
            axes.plot(sizes, ratios, label=name, **look[route])
        axes.axhline(1, color="#888888", linewidth=1)
        axes.set(xscale="log", yscale="log", title=dtype, xlabel="N")
        ticks(axes.xaxis, sizes)
    ticks(panels[0].yaxis, (0.25, 0.5, 1, 2, 4))
    panels[0].set_ylabel("time / SciPy's Cholesky")
    legend_above(figure, panels[0], 3)


def race(figure: Figure, runs: Runs) -> None:
    """The lowest loss by so many seconds, a panel a task."""
    timed = [run for run in runs if "lowest_by" in run]
    tasks = list(dict.fromkeys(run["task"] for run in timed))
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, task in zip(panels, tasks, strict=True):
        for run in (run for run in timed if run["task"] == task):
            seconds = [float(mark) for mark in run["lowest_by"]]
            losses = [max(loss, ZERO) for loss in run["lowest_by"].values()]
            axes.plot(seconds, losses, label=run["optimizer"], **of_optimizer(run["optimizer"]))
        axes.set(xscale="log", yscale="log", title=task)
    for axes in figure.axes[2:]:
        axes.set_xlabel("seconds")
    for axes in figure.axes[::2]:
        axes.set_ylabel("lowest loss")
    legend_above(figure, figure.axes[0], 2)
