"""A figure with its caption, and with a description for who does not see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.report.drawing import svg_of
from keras_qnewton.report.markup import figure
from keras_qnewton.report.reading import at
from keras_qnewton.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def figure_of(draw: Callable[[Axes], None], caption: str, description: str, prefix: str) -> str:
    """HTML of what `draw(axes)` draws; caption and description are plain text.

    Args:
        draw: Draws on Matplotlib's axes.
        caption: Below the figure.
        description: In place of it.
        prefix: Begins the SVG's identifiers, which have to differ on a page.
    """
    return figure(svg_of(draw, description, prefix), caption)


def span(what: str, steps: Sequence[Decision], values: Iterable[float | None]) -> str:
    """A sentence on how a number went from the first step to the last."""
    known = [(at(d), v) for d, v in zip(steps, values, strict=True) if is_known(v)]
    if not known:
        return f"{what} is not known."
    (begin, first), (end, last) = known[0], known[-1]
    least, most = min(v for _, v in known), max(v for _, v in known)
    return (
        f"{what} goes from {number(first)} at step {begin} to {number(last)} at step {end}, "
        f"between {number(least)} and {number(most)}."
    )
