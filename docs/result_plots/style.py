"""How figures of results look: one palette, marks beside colours, and files that stay the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from result_tables.cells import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Draw = Callable[["Figure", Runs], None]

# Okabe & Ito's palette, for who does not see all colours. Ours is black everywhere.
OURS = "#000000"
PEERS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("s", "^", "D", "v", "P", "X")
_LINES = ("--", "-.", ":", "--", "-.", ":")
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_qnewton",
    "figure.facecolor": "white",
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.0,
}


def ours() -> dict[str, Any]:
    """How what is measured of this package is drawn."""
    return {"color": OURS, "marker": "o", "linestyle": "-"}


def peer(number: int) -> dict[str, Any]:
    """How the peer of that number is drawn: its colour, mark and dashes are its own."""
    k = number % len(PEERS)
    return {"color": PEERS[k], "marker": _MARKERS[k], "linestyle": _LINES[k]}


def of_optimizer(name: str) -> dict[str, Any]:
    """The same for an optimizer in all figures."""
    others = {"SciPy L-BFGS-B": 0, "Adam(0.001)": 2, "Adam(0.003)": 5, "Adam(0.01)": 3}
    return peer(others[name]) if name in others else ours()


def dots(style: dict[str, Any]) -> dict[str, Any]:
    """The same without its line."""
    return style | {"linestyle": "none"}


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, above them."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=columns)


def ticks(axis: Axis, places: Sequence[float]) -> None:
    """These alone: a short logarithmic axis would label those between powers of ten, too."""
    axis.set_ticks(places, [f"{place:,g}" for place in places])
    axis.set_ticks([], minor=True)


def rows(axes: Axes, names: list[str]) -> None:
    """Names one below the other, the first on top, with a faint line for each."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def svg(draw: Draw, runs: Runs, size: tuple[float, float], about: dict[str, str]) -> str:
    """What `draw` draws of the runs, as a file whose bytes depend on them alone.

    Args:
        draw: Draws on an empty figure.
        runs: Rows of one or more files of results.
        size: Width and height, in inches.
        about: What is written into the file's metadata.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), io.StringIO() as file:
        # A reader's own settings must not show.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, runs)
        figure.savefig(file, format="svg", metadata={"Date": None, **about})
        return file.getvalue()
