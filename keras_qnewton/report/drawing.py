"""A figure as inline SVG, for light and dark pages, and for who does not see all colours."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from keras_qnewton.decision import is_known
from keras_qnewton.report.markup import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's palette: the four first stand out on white and on black. Yellow and black do not.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# As many series as can be told apart.
MOST_SERIES = 8

# Colours that stand for those of the page, which knows whether it is light or dark.
_INK, _GRID = "#010203", "#030201"
_OF_PAGE = {
    _INK: "currentColor",
    _GRID: "var(--grid)",
    # Each is the other one on a dark page, where dark blue is hard to see.
    "#0072b2": "var(--blue)",
    "#56b4e9": "var(--sky)",
}
_SIZE = (4.5, 3.0)
_STYLE: Any = {
    # Text as text: smaller, and it can be searched.
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_qnewton",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "font.size": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}
# Beyond, the ends of a logarithmic axis overflow.
_LARGEST_DRAWN, _SMALLEST_DRAWN = 1e250, 1e-250
_MARKED, _MOST_MARKS = 25, 200
# More points than that make a line a surface, and are drawn thin.
_DENSE = 2000
_LONGEST_LABEL = 19

Points = Iterable[tuple[float | None, float | None]]


def svg_of(draw: Callable[[Axes], None], description: str, prefix: str) -> str:
    """What `draw(axes)` draws, as inline SVG.

    Args:
        draw: Draws on Matplotlib's axes.
        description: What the figure shows, for who does not see it; plain text.
        prefix: Begins the SVG's identifiers, which have to differ on a page.

    Raises:
        ImportError: Without Matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "A report needs Matplotlib: run `python -m pip install matplotlib`."
        ) from error
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Of letters that Matplotlib's font does not have: the browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        names = axes.get_legend_handles_labels()[1]
        if len(names) > 1:
            # Three beside each other, if there is room.
            columns = 3 if max(map(len, names)) < 13 else 2
            figure.legend(loc="outside upper left", ncols=columns, borderaxespad=0.2)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _inline(buffer.getvalue(), description, prefix)


def _inline(svg: str, description: str, prefix: str) -> str:
    """Matplotlib's SVG as a part of the page."""
    svg = svg[svg.index("<svg") :]
    # In tags alone: what a label says stays as it is.
    svg = re.sub(r"<[^>]*>", lambda tag: _adapted(tag.group(), prefix), svg)
    opening, rest = svg.split(">", 1)
    # The page gives the size.
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escaped(description)}">{rest}'.strip()


def _adapted(tag: str, prefix: str) -> str:
    for colour, of_page in _OF_PAGE.items():
        tag = tag.replace(colour, of_page)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", tag)


def dress(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels of the axes; steps and epochs are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def scale(axes: Axes, values: Iterable[float | None], which: str = "y", span: float = 10) -> None:
    """A logarithmic axis, "x" or "y", where all values are positive and `span` times apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    known = [v for v in values if is_known(v) and _SMALLEST_DRAWN < abs(v) < _LARGEST_DRAWN]
    if not known or min(known) <= 0 or max(known) < span * min(known):
        return
    if which == "x":
        axes.set_xscale("log", nonpositive="mask")
    else:
        axes.set_yscale("log", nonpositive="mask")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_minor_formatter(NullFormatter())
    if max(known) < 200 * min(known):  # powers of ten alone would be too few labels
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def line(axes: Axes, points: Points, name: str, k: int = 0) -> None:
    """The k-th series: a line of its own colour and style, with few markers of its own form."""
    known = _drawn(points)
    if known:
        axes.plot(
            *zip(*known, strict=True),
            color=COLOURS[k % len(COLOURS)],
            linestyle=_LINES[k % len(_LINES)],
            marker=_MARKERS[k % len(_MARKERS)],
            markevery=max(len(known) // _MARKED, 1),
            linewidth=0.6 if len(known) > _DENSE else None,
            label=label(name),
        )


def marks(axes: Axes, points: Points, name: str, k: int) -> None:
    """The k-th series as points; of very many, some in equal distances."""
    _points(axes, points, name, marker=_MARKERS[k % len(_MARKERS)], color=COLOURS[k % len(COLOURS)])


def crosses(axes: Axes, points: Points, name: str) -> None:
    """What did not succeed."""
    _points(axes, points, name, marker="x", color=COLOURS[1], markersize=8, markeredgewidth=2)


def ring(axes: Axes, points: Points, name: str) -> None:
    """What is apart from the others."""
    style = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.8}
    _points(axes, points, name, color=COLOURS[1], **style)


def bound(axes: Axes, points: Points, name: str, k: int) -> None:
    """A thin dotted line in the colour of the k-th series."""
    known = _drawn(points)
    if known:
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(*zip(*known, strict=True), color=colour, ls=":", lw=1.2, label=label(name))


def level(axes: Axes, y: float) -> None:
    """A thin level line."""
    axes.axhline(y, color=_INK, linewidth=1, linestyle=":")


def from_zero(axes: Axes) -> None:
    """An axis of counts."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _points(axes: Axes, points: Points, name: str, **style: Any) -> None:
    known = _drawn(points)
    shown = known[:: len(known) // _MOST_MARKS + 1]
    if shown:
        xs, ys = zip(*shown, strict=True)
        name = label(name) if len(shown) == len(known) else f"{label(name)} (some)"
        axes.plot(xs, ys, linestyle="none", label=name, zorder=3, **style)


def _drawn(points: Points) -> Sequence[tuple[float, float]]:
    return [(x, y) for x, y in points if _is_drawn(x) and _is_drawn(y)]


def _is_drawn(value: float | None) -> TypeGuard[float]:
    return is_known(value) and (value == 0 or _SMALLEST_DRAWN < abs(value) < _LARGEST_DRAWN)


def label(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Text for Matplotlib, both ends of it if it is long.

    A dollar would begin a formula, and what does not print has no glyph.
    """
    text = "".join(c for c in text if c.isprintable())
    # Chinese letters are as wide as two.
    longest -= sum(unicodedata.east_asian_width(c) in "WF" for c in text[:longest])
    if len(text) > longest:
        head = longest // 2
        text = f"{text[:head]}…{text[head + 1 - longest :]}"
    # Matplotlib leaves out of legends what begins with an underscore.
    return text.lstrip("_").replace("$", r"\$")
