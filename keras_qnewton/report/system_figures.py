"""Figures of the linear systems: condition numbers, residuals, solvers and prices."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.report import condition, drawing
from keras_qnewton.report.described import figure_of, span
from keras_qnewton.report.reading import Reading, at, solver_of
from keras_qnewton.report.words import number, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Dotted lines of what damping alone gives, of this many blocks at most.
_MOST_BOUNDS = 3
# More blocks would not be told apart on an axis.
_MOST_ROWS = 20


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
        span(f"Block {name}", own, [d.condition_number for d in own]) for name, own in shown.items()
    )
    return figure_of(
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
    return figure_of(
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
    if len(solvers) < 2 or len(names) > _MOST_ROWS:
        return ""

    def draw(axes: Axes) -> None:
        drawing.dress(axes, "step", "block")
        axes.set_yticks(range(len(names)), [drawing.label(name, 14) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        for k, solver in enumerate(solvers):
            points = (
                (at(d), float(row))
                for row, own in enumerate(reading.blocks.values())
                for d in own
                if solver_of(d) == solver
            )
            drawing.marks(axes, points, solver, k=k)

    return figure_of(
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
    return figure_of(
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
    return figure_of(
        draw,
        text,
        f"Seconds against steps. Median of the steps after the first: "
        f"{seconds(reading.later_seconds)}. Predicted routes: {', '.join(totals) or 'none'}.",
        f"{prefix}prices-",
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
