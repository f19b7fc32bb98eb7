"""Figures of the steps: losses, damping, trust, attempts and lengths."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_qnewton.decision import is_known
from keras_qnewton.report import drawing
from keras_qnewton.report.described import figure_of, span
from keras_qnewton.report.reading import Reading, at
from keras_qnewton.report.words import number, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HARDLY_TRUSTED = 0.25
# Beyond, ρ is drawn at the edge: one step that went wrong would hide the others.
_EDGES = -1.0, 3.0


def loss_by_step(reading: Reading, prefix: str) -> str:
    """Loss before each step, after those taken and refused; the first one is told apart."""
    traced = ", in which TensorFlow traces the model," if reading.is_traced else ""
    return figure_of(
        functools.partial(_draw_losses, reading=reading),
        f"Loss against steps, each of its own batch. The first step{traced} is ringed.",
        span("Loss before each step", reading.steps, [d.loss for d in reading.steps]),
        f"{prefix}loss-",
    )


def loss_by_second(reading: Reading, prefix: str) -> str:
    """Loss against seconds, from the end of the first step; nothing where they are not known."""
    if reading.elapsed is None or reading.seconds is None:
        return ""
    points = list(zip(reading.elapsed, reading.step_losses, strict=True))

    def draw(axes: Axes) -> None:
        axes.set_xlabel("seconds after the first step")
        axes.set_ylabel("loss")
        drawing.scale(axes, reading.step_losses)
        drawing.line(axes, points, "after each step")
        drawing.ring(axes, points[:1], "the first step")

    first, all_later = seconds(reading.seconds[0]), seconds(reading.elapsed[-1])
    return figure_of(
        draw,
        f"Loss after each step against seconds. They count from the end of the first step, which "
        f"took {first}.",
        f"Loss after each step over {all_later} that follow a first step of {first}. "
        + span("Loss", reading.steps, reading.step_losses),
        f"{prefix}seconds-",
    )


def loss_by_epoch(reading: Reading, prefix: str) -> str:
    """Losses that Keras logged; nothing where the file has no epochs."""
    series = {
        label: [(e.number + 1, e.logs.get(name)) for e in reading.epochs]
        for name, label in (("loss", "training"), ("val_loss", "validation"))
        if any(is_known(e.logs.get(name)) for e in reading.epochs)
    }
    if not series:
        return ""

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "epoch", "loss")
        drawing.scale(axes, [y for points in series.values() for _, y in points])
        for k, (label, points) in enumerate(series.items()):
            drawing.line(axes, points, label, k)

    ends = (f"{label} {number(points[-1][1])}" for label, points in series.items())
    return figure_of(
        draw,
        "Losses that Keras logged at the end of each epoch.",
        f"Losses against {len(reading.epochs):,} epochs; in the last one: {', '.join(ends)}.",
        f"{prefix}epochs-",
    )


def damping(reading: Reading, prefix: str) -> str:
    return _of_steps(
        reading,
        [d.damping for d in reading.steps],
        ("damping λ", "Damping λ of each step: what is added to the curvature."),
        f"{prefix}damping-",
    )


def trust(reading: Reading, prefix: str) -> str:
    return _of_steps(
        reading,
        [d.trust_ratio for d in reading.steps],
        (
            "trust ratio ρ",
            "Trust ratio ρ: the actual over the predicted reduction of the loss. Below 1/4, the "
            "level line, a step is tried again with more damping. Beyond -1 and 3 it is drawn at "
            "the edge.",
        ),
        f"{prefix}trust-",
        _HARDLY_TRUSTED,
    )


def attempts(reading: Reading, prefix: str) -> str:
    if reading.is_learned:
        what = "evaluations", "Evaluations of loss and gradient by each step's line search."
        values = [d.evaluations for d in reading.steps]
    else:
        what = "attempts", "At how many dampings each step was tried; refused ones are crossed."
        values = [d.attempts for d in reading.steps]
    return _of_steps(reading, values, what, f"{prefix}attempts-")


def length(reading: Reading, prefix: str) -> str:
    return _of_steps(
        reading,
        [d.length for d in reading.steps],
        ("step length", "Length of each step, as a multiple of the systems' solutions."),
        f"{prefix}length-",
    )


def _draw_losses(axes: Axes, reading: Reading) -> None:
    steps = reading.steps
    taken, refused = [d for d in steps if d.accepted], reading.refused
    drawing.dress(axes, "step", "loss")
    drawing.scale(axes, [loss for d in steps for loss in (d.loss, d.loss_after)])
    drawing.line(axes, ((at(d), d.loss) for d in steps), "before")
    drawing.marks(axes, ((at(d), d.loss_after) for d in taken), "after, taken", k=2)
    drawing.crosses(axes, ((at(d), d.loss_after) for d in refused), "after, refused")
    drawing.ring(axes, [(at(d), d.loss) for d in steps[:1]], "the first step")


def _of_steps(
    reading: Reading,
    values: Sequence[float | None],
    what: tuple[str, str],
    prefix: str,
    level: float | None = None,
) -> str:
    """A number of each step, refused ones crossed; nothing where the log does not have it.

    Args:
        reading: The run.
        values: One a step.
        what: The label of the axis, and the caption.
        prefix: Of the SVG's identifiers.
        level: Where a thin line is drawn, if so; values beyond `_EDGES` are drawn at them.
    """
    if not any(is_known(value) for value in values):
        return ""
    name, caption = what
    shown = values if level is None else [_at_edge(value) for value in values]
    points = [(at(d), value) for d, value in zip(reading.steps, shown, strict=True)]
    refused = [p for d, p in zip(reading.steps, points, strict=True) if not d.accepted]

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "step", name)
        drawing.line(axes, points, "each step")
        drawing.crosses(axes, refused, "refused")
        if level is not None:
            drawing.level(axes, level)
        elif all(value is None or isinstance(value, int) for value in values):
            drawing.from_zero(axes)
        else:
            drawing.scale(axes, values)

    description = span(name, reading.steps, values)
    return figure_of(draw, caption, description[:1].upper() + description[1:], prefix)


def _at_edge(value: float | None) -> float | None:
    return min(max(value, _EDGES[0]), _EDGES[1]) if is_known(value) else None
