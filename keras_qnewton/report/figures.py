"""Which figures a report has, each with a caption, and a description for who does not see it."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.report import condition, drawing
from keras_qnewton.report.markup import figure
from keras_qnewton.report.reading import Reading, at, solver_of
from keras_qnewton.report.words import number, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HARDLY_TRUSTED = 0.25
# Beyond, ρ is drawn at the edge: one step that went wrong would hide the others.
_EDGES = -1.0, 3.0
# Dotted lines of what damping alone gives, of this many blocks at most.
_MOST_BOUNDS = 3


def loss_by_step(reading: Reading, prefix: str) -> str:
    """Loss before each step, after those taken and refused; the first one is told apart."""
    traced = ", in which TensorFlow traces the model," if reading.is_traced else ""
    return _figure(
        functools.partial(_draw_losses, reading=reading),
        f"Loss against steps, each of its own batch. The first step{traced} is ringed.",
        _span("Loss before each step", reading.steps, [d.loss for d in reading.steps]),
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
    return _figure(
        draw,
        f"Loss after each step against seconds. They count from the end of the first step, which "
        f"took {first}.",
        f"Loss after each step over {all_later} that follow a first step of {first}. "
        + _span("Loss", reading.steps, reading.step_losses),
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
    return _figure(
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


def kappa(reading: Reading, prefix: str) -> str:
    """Condition numbers of the blocks, step by step."""
    shown, few = _largest(reading)
    if not shown:
        return ""

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "step", "condition number κ")
        drawing.scale(axes, [d.condition_number for own in shown.values() for d in own])
        for k, (name, own) in enumerate(shown.items()):
            drawing.line(axes, ((at(d), d.condition_number) for d in own), name, k)

    spans = (
        _span(f"Block {name}", own, [d.condition_number for d in own])
        for name, own in shown.items()
    )
    return _figure(
        draw,
        f"Condition number κ of each block's damped system.{few}",
        "Condition number against steps. " + " ".join(spans),
        f"{prefix}kappa-",
    )


def kappa_by_damping(reading: Reading, prefix: str) -> str:
    """Condition numbers against λ, beside what damping alone would make of them."""
    shown, few = _largest(reading)
    bounds = {name: condition.highest(own) for name, own in shown.items()}
    dampings = [damping for points in bounds.values() for damping, _ in points]
    if not dampings or max(dampings) < 2 * min(dampings):
        return ""

    def draw(axes: Axes) -> None:
        axes.set_xlabel("damping λ")
        axes.set_ylabel("condition number κ")
        drawing.scale(axes, [d.damping for own in shown.values() for d in own], "x", span=2)
        drawing.scale(axes, [d.condition_number for own in shown.values() for d in own])
        for k, (name, own) in enumerate(shown.items()):
            points = [(d.damping, d.condition_number) for d in own]
            drawing.marks(axes, points, name, k=k)
            if len(shown) <= _MOST_BOUNDS:
                drawing.bound(axes, bounds[name], "damping alone", k)

    dotted = " The dotted line is what damping alone gives: 1 + c/λ, with the largest c seen."
    follows = (f"{name}: {condition.follows_damping(own)}" for name, own in shown.items())
    return _figure(
        draw,
        "Condition number κ against the damping λ of the same step."
        + (dotted if len(shown) <= _MOST_BOUNDS else "")
        + few,
        f"Condition numbers against damping. Whether κ follows λ, by block: {', '.join(follows)}.",
        f"{prefix}pinned-",
    )


def routes(reading: Reading, prefix: str) -> str:
    """Which solver took which block at which step; nothing where one took all."""
    solvers = list(dict.fromkeys(map(solver_of, reading.decisions)))
    names = list(reading.blocks)
    if len(solvers) < 2 or len(names) > 20:
        return ""

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "step", "block")
        axes.set_yticks(range(len(names)), [_short(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        for k, solver in enumerate(solvers):
            points = (
                (at(d), float(row))
                for row, own in enumerate(reading.blocks.values())
                for d in own
                if solver_of(d) == solver
            )
            drawing.marks(axes, points, solver, k=k)

    return _figure(
        draw,
        "Which solver took which block, step by step.",
        f"Blocks against steps, marked by solver: {', '.join(solvers)}. "
        "The table of routes has the counts.",
        f"{prefix}routes-",
    )


def residuals(reading: Reading, prefix: str) -> str:
    by_solver: dict[str, list[Decision]] = collections.defaultdict(list)
    for d in reading.decisions:
        if is_known(d.residual):
            by_solver[solver_of(d)].append(d)
    if not by_solver:
        return ""

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "step", "‖Ax - b‖ / ‖b‖")
        known = [d.residual for own in by_solver.values() for d in own if d.residual]
        drawing.scale(axes, known, span=1)
        for k, (solver, own) in enumerate(by_solver.items()):
            points = [(at(d), d.residual) for d in own]
            drawing.marks(axes, points, solver, k=k)

    worst = (
        f"{solver} at most {number(max(d.residual or 0.0 for d in own))}"
        for solver, own in by_solver.items()
    )
    return _figure(
        draw,
        "Relative residual of each solution that was used.",
        f"Relative residuals against steps; {', '.join(worst)}.",
        f"{prefix}residuals-",
    )


def prices(reading: Reading, prefix: str) -> str:
    """Measured seconds of each step, and predicted ones of its systems by route."""
    totals: dict[str, dict[int, float]] = collections.defaultdict(
        lambda: collections.defaultdict(float)
    )
    for d in reading.decisions:
        for route, price in d.predicted.items():
            totals[route][at(d)] += price
    measured = [(at(d), d.step_seconds) for d in reading.steps]
    if not totals and reading.seconds is None:
        return ""

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "step", "seconds")
        every = [y for by_step in totals.values() for y in by_step.values()]
        drawing.scale(axes, [*every, *(y for _, y in measured)])
        drawing.line(axes, measured, "measured: the step")
        for k, (route, by_step) in enumerate(totals.items(), 1):
            drawing.line(axes, by_step.items(), f"predicted: {route}", k)

    text = "Measured seconds of each whole step."
    if totals:
        text += (
            " Predicted ones are of all its systems by one route. A quantum route's are a "
            "projection at the scheduler's gate time."
        )
    return _figure(
        draw,
        text,
        f"Seconds against steps. Median of the steps after the first: "
        f"{seconds(reading.later_seconds)}. Predicted routes: {', '.join(totals) or 'none'}.",
        f"{prefix}prices-",
    )


def _figure(draw: Callable[[Axes], None], caption: str, description: str, prefix: str) -> str:
    return figure(drawing.svg_of(draw, description, prefix), caption)


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

    description = _span(name, reading.steps, values)
    return _figure(draw, caption, description[:1].upper() + description[1:], prefix)


def _at_edge(value: float | None) -> float | None:
    return min(max(value, _EDGES[0]), _EDGES[1]) if is_known(value) else None


def _span(what: str, steps: Sequence[Decision], values: Iterable[float | None]) -> str:
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


def _largest(reading: Reading) -> tuple[dict[str, Sequence[Decision]], str]:
    """Blocks of the largest condition numbers, and a sentence if those are not all."""
    largest = {
        name: max(known)
        for name, own in reading.blocks.items()
        if (known := [d.condition_number for d in own if is_known(d.condition_number)])
    }
    kept = sorted(largest, key=lambda name: largest[name], reverse=True)[: drawing.MOST_SERIES]
    few = f" The {len(kept)} blocks of the largest κ are shown." if len(kept) < len(largest) else ""
    return {name: own for name, own in reading.blocks.items() if name in kept}, few


def _short(name: str) -> str:
    return drawing.label(name, 14)
