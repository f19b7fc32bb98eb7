"""Of what the scheduler believes, beside what is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from result_tables.cells import Runs
from result_tables.scheduling import rows_of

from result_plots.style import dots, legend_above, ours, peer, ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lu(figure: Figure, runs: Runs) -> None:
    """LU's time by N, as predicted and as measured."""
    axes = figure.subplots()
    found = rows_of(runs, "lu")
    sizes = [row["size"] for row in found]
    for key, style in (("predicted", ours()), ("measured", peer(0))):
        axes.plot(sizes, [1e3 * row[key] for row in found], label=key, **style)
    axes.set(xscale="log", yscale="log", xlabel="N", ylabel="milliseconds")
    ticks(axes.xaxis, sizes[::2])
    legend_above(figure, axes, 2)


def condition(figure: Figure, runs: Runs) -> None:
    """The error of each estimated condition number, against the condition number."""
    panels = figure.subplots(1, 2, sharey=True)
    found = rows_of(runs, "condition")
    purposes = {"choice": "to choose by", "no choice": "for the log"}
    names = {"gauss_newton": "Gauss-Newton", "hessian": "exact Hessian"}
    for axes, (where, title) in zip(panels, purposes.items(), strict=True):
        for (curvature, name), style in zip(names.items(), (ours(), peer(0)), strict=True):
            of = [row for row in found if (row["where"], row["curvature"]) == (where, curvature)]
            # An error of nothing is drawn at double precision's rounding.
            errors = [100 * max(abs(row["error"]), 1e-16) for row in of]
            axes.plot([row["exact"] for row in of], errors, label=name, **dots(style))
        axes.set(xscale="log", yscale="log", title=title, xlabel="condition number κ")
    panels[0].set_ylabel("error of κ, %")
    legend_above(figure, panels[0], 2)
