"""A strong Wolfe line search that goes by slopes where rounding hides what losses say.

Along a ray w + αd, ψ(α) = L(w + αd) - L(w), with ψ'(0) = g.d < 0. A step is taken where

    ψ(α)  ≤ c₁ α ψ'(0)              sufficient decrease
    |ψ'(α)| ≤ c₂ |ψ'(0)|            curvature

A loss is known to within e, its rounding, and a difference of two to within 2e. A slope is a sum
of products and keeps its digits for longer. So ψ(α) is taken to be what is nearest the trapezoidal
rule among all that the losses allow:

    T(α) = α (ψ'(0) + ψ'(α)) / 2
    ψ(α) = T(α), but at least L(w + αd) - L(w) - 2e and at most L(w + αd) - L(w) + 2e

Where the change is above the rounding, this is the difference of losses, and the search is Moré &
Thuente's. Where it is below, it is T, and sufficient decrease is ψ'(α) ≤ (2c₁ - 1) ψ'(0), which is
Hager & Zhang's approximate Wolfe condition. In both cases no point is taken whose computed loss is
above the one at the start: their condition and Shi et al.'s would allow a rise by a few e. Where
the slopes take a trial and its loss refuses it, other steps nearby are other draws of the rounding.

e may be too small: weights that are rounded move the loss, too, which near a minimum is more than
the loss's own rounding. Where the slope is monotone, ψ is as near to T as

    |ψ(α) - T(α)| ≤ α |ψ'(α) - ψ'(0)| / 2

and what the losses show beyond that, between slopes that are nearly the same, is 2e at least. Then
the trials before were judged by too small an error, and the search begins again, where the secant
of the slopes is zero.

References:
    Moré & Thuente 1994, Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20,
    286-307.
    Hager & Zhang 2005, A new conjugate gradient method with guaranteed descent and an efficient
    line search, SIAM J. Optim. 16, 170-192: the approximate Wolfe conditions.
    Shi, Xie, Byrd & Nocedal 2022, A noise-tolerant quasi-Newton algorithm for unconstrained
    optimization, SIAM J. Optim. 32, 29-55: the point that is taken and the point whose gradient
    tells the curvature are two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_count, check_number
from keras_qnewton.quasi_newton.more_thuente import FARTHEST, Interval, Knot
from keras_qnewton.registry import Policy

# No trial is longer than this many times the first.
_LONGEST = 1e10
# A trial whose loss is not finite is followed by one at this share of its distance from x.
_SHRINK = 0.25
# An interval that is narrower, relative to its ends, is not divided further.
_NARROWEST = 1e-14
# Trials that the slopes take and the losses refuse before the search ends: each is another draw of
# the losses' rounding.
_REFUSALS = 4
# Slopes that differ by less, relatively, are nearly the same. An error is found to be at most so
# many times what it was said to be: more is no rounding.
_LEVEL = 0.1
_UNDERRATED = 2.0**16


class Point(NamedTuple):
    """A point w + αd on the line.

    Attributes:
        step: α, float64 scalar.
        value: The loss, float64 scalar.
        slope: gᵀd, float64 scalar.
        gradient: g, `[N]`, any float dtype.
    """

    step: tf.Tensor
    value: tf.Tensor
    slope: tf.Tensor
    gradient: tf.Tensor


class Searched(NamedTuple):
    """What a line search found.

    Attributes:
        point: The point to take; the start if no trial was better.
        satisfied: Boolean scalar: the conditions hold at it, by the losses or, within their error,
            by the slopes.
        evaluations: How many points were evaluated, int32 scalar.
        pair: The point whose gradient's difference from the start's tells the curvature: `point` if
            `satisfied`; else the trial of least slope that meets the curvature condition, so that
            the next direction differs though no step was taken; else the start: there is no pair.
            Its loss may be above the start's.
        value_error: e, larger than it was said to be if the losses showed that, float64 scalar: a
            bound for the next search.
    """

    point: Point
    satisfied: tf.Tensor
    evaluations: tf.Tensor
    pair: Point
    value_error: tf.Tensor


class _State(NamedTuple):
    """What one trial leaves to the next."""

    interval: Interval
    trial: tf.Tensor  # the step to evaluate
    wall: tf.Tensor  # the shortest step whose loss was not finite
    best: Point
    pair: Point
    error: tf.Tensor  # of a difference of losses
    satisfied: tf.Tensor
    ended: tf.Tensor
    refusals: tf.Tensor
    evaluations: tf.Tensor


class _Verdict(NamedTuple):
    """What one trial is good for."""

    knot: Knot
    error: tf.Tensor  # of a difference of losses, as far as it is known now
    misjudged: tf.Tensor  # trials before, by too small an error
    finite: tf.Tensor
    satisfied: tf.Tensor
    refused: tf.Tensor  # by its loss alone, within the error
    better: tf.Tensor  # than the best before
    flatter: tf.Tensor  # than the flattest before, and flat enough
    ends: tf.Tensor  # the search


@keras.saving.register_keras_serializable(package="keras_qnewton")
class StrongWolfe(Policy):
    """Moré & Thuente's line search; see the module for what it does near a loss's rounding.

    A trial whose loss or slope is not finite counts as too long.

    Args:
        sufficient_decrease: How much of the decrease that the first slope promises a step has to
            reach: c₁, 0 < c₁ ≤ c₂.
        curvature: How steep the slope may be at the end of a step, as a fraction of the first:
            c₂, below 1.
        max_evaluations: Largest number of losses and gradients in one search.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Moré & Thuente 1994, ACM Transactions on Mathematical Software 20, 286-307.
    """

    def __init__(
        self,
        sufficient_decrease: float = 1e-4,
        curvature: float = 0.9,
        max_evaluations: int = 25,
    ):
        between = "a number between 0 and 1"
        self.curvature = check_number("curvature", curvature, between, most=1.0, ends="()")
        self.sufficient_decrease = check_number(
            "sufficient_decrease",
            sufficient_decrease,
            f"a positive number, at most `curvature`, which is {self.curvature}",
            most=self.curvature,
        )
        self.max_evaluations = check_count("max_evaluations", max_evaluations)

    def along(
        self,
        evaluate: Callable[[tf.Tensor], Point],
        start: Point,
        first: tf.Tensor,
        value_error: tf.Tensor,
        *,
        any_slope: tf.Tensor | bool = False,
    ) -> Search:
        """A search for a point of lower loss on a ray.

        Args:
            evaluate: Gives the point at a step α, float64 scalar. `Search.found` traces it twice,
                for the first trial and in the body of a loop.
            start: The point at α = 0. Where its slope is not negative or its loss is not finite, it
                is what the search finds, after no evaluation that counts.
            first: The first trial's α, float64 scalar, positive.
            value_error: e, an absolute bound of a loss's rounding error, float64 scalar; 0 goes by
                losses alone.
            any_slope: Whether sufficient decrease is enough, boolean scalar.
        """
        start = Point(*(tf.convert_to_tensor(field) for field in start))
        return Search(
            self, evaluate, start, tf.convert_to_tensor(first, tf.float64), value_error, any_slope
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "sufficient_decrease": self.sufficient_decrease,
            "curvature": self.curvature,
            "max_evaluations": self.max_evaluations,
        }


class Search:
    """A search on one ray. Most end with their first trial, by few operations.

    Args:
        policy: Its constants.
        evaluate: See `StrongWolfe.along`, as for all that follow.
        start: Of tensors.
        first: A tensor.
        value_error: As given.
        any_slope: As given.

    Attributes:
        first: The first trial's α, float64 scalar; 0 where nothing is to be taken, since the slope
            is no descent.
    """

    def __init__(
        self,
        policy: StrongWolfe,
        evaluate: Callable[[tf.Tensor], Point],
        start: Point,
        first: tf.Tensor,
        value_error: tf.Tensor,
        any_slope: tf.Tensor | bool,
    ):
        flat = policy.curvature * tf.abs(start.slope)
        self._flat = flat
        if any_slope is not False:
            flat = tf.where(any_slope, tf.constant(float("inf"), flat.dtype), flat)
        self._policy, self._evaluate, self._start = policy, evaluate, start
        self._asked = first
        self._trials = _Trials(
            policy.sufficient_decrease * start.slope,
            flat,
            start,
            _LONGEST * first,
            tf.convert_to_tensor(value_error),
        )
        self._begins = (start.slope < 0) & (first > 0)
        self.first = tf.where(self._begins, first, tf.zeros_like(first))

    def found(self) -> Searched:
        """What the search finds."""
        return self.followed(self.at(self.first))

    def at(self, step: tf.Tensor) -> Point:
        """The point at a step."""
        point = self._evaluate(step)
        gradient = tf.ensure_shape(point.gradient, self._start.gradient.shape)
        return point._replace(gradient=gradient, step=step)

    def takes(self, point: Point) -> tf.Tensor:
        """Whether the search ends with the first trial, and its losses show no larger error.

        Args:
            point: The one at `first`. There are such to end with of which this is False.
        """
        # Slopes of which one is so much flatter are not nearly the same, so that nothing more is
        # learned of the error.
        if self._policy.curvature <= 1 - _LEVEL:
            return self._begins & self._trials.takes(point, self._flat)
        verdict = self._trials.verdict(self._trials.beginning(self._asked), point)
        return self._begins & verdict.satisfied & (verdict.error <= self._trials.error)

    def alone(self, point: Point) -> Searched:
        """What the search finds if it `takes` the first trial."""
        error = self._trials.error / 2
        return Searched(point, tf.constant(True), tf.constant(1), point, error)

    def followed(self, point: Point) -> Searched:
        """What the search finds by the first trial and all that follow, be it taken or not."""
        trials = self._trials
        state = trials.beginning(self._asked)
        after = tf.cond(state.ended, lambda: state, lambda: trials.after(state, point))

        def body(*fields: Any) -> _State:
            state = _State(*fields)
            return trials.after(state, self.at(state.trial))

        last = tf.while_loop(
            lambda *fields: ~_State(*fields).ended,
            body,
            after,
            parallel_iterations=1,
            maximum_iterations=self._policy.max_evaluations - 1,
        )
        return Searched(last.best, last.satisfied, last.evaluations, last.pair, last.error / 2)


class _Trials:
    """Judges trials of one search, and says where the next one is.

    Args:
        decrease: c₁ ψ'(0), scalar.
        flat: c₂ |ψ'(0)|, scalar.
        start: The point at α = 0.
        longest: The largest step, scalar.
        value_error: See `StrongWolfe.along`.
    """

    def __init__(
        self,
        decrease: tf.Tensor,
        flat: tf.Tensor,
        start: Point,
        longest: tf.Tensor,
        value_error: tf.Tensor,
    ):
        self._start = start
        self._longest = longest
        self.error = 2 * value_error
        self._decrease = decrease
        self._flat = flat

    def beginning(self, first: tf.Tensor) -> _State:
        """The state before the first trial, at the step `first`; it has ended if there is none."""
        start = self._start
        sound = (start.slope < 0) & tf.math.is_finite(start.value + start.slope)
        return _State(
            interval=Interval.begin(start.slope, first, self._longest),
            trial=first,
            wall=tf.constant(float("inf"), tf.float64),
            best=start,
            pair=start,
            error=self.error,
            satisfied=tf.constant(False),
            ended=~(sound & tf.math.is_finite(first) & (first > 0)),
            refusals=tf.constant(0),
            evaluations=tf.constant(0),
        )

    def after(self, state: _State, point: Point) -> _State:
        """The state that follows `state` once its trial has been evaluated."""
        verdict = self.verdict(state, point)
        pair = tf.cond(verdict.flatter, lambda: point, lambda: state.pair)
        interval, trial, wall = tf.cond(
            verdict.ends,
            lambda: (state.interval, state.trial, state.wall),
            lambda: tf.cond(
                verdict.misjudged,
                lambda: self._begun_again(state, point, pair),
                lambda: tf.cond(
                    verdict.finite,
                    lambda: self._interpolated(state, verdict.knot),
                    lambda: self._shrunk(state),
                ),
            ),
        )
        return _State(
            interval=interval,
            trial=trial,
            wall=wall,
            best=tf.cond(verdict.better, lambda: point, lambda: state.best),
            pair=pair,
            error=verdict.error,
            satisfied=verdict.satisfied,
            ended=verdict.ends | interval.exhausted(trial, _NARROWEST),
            refusals=state.refusals + tf.cast(verdict.refused, tf.int32),
            evaluations=state.evaluations + 1,
        )

    def takes(self, point: Point, flat: tf.Tensor) -> tf.Tensor:
        """Whether `verdict` is satisfied by a first trial whose slope is no steeper than `flat`.

        The few operations of most searches: the error is taken to be what it is said to be.
        """
        start, difference = self._start, point.value - self._start.value
        trapezoid = point.step * (0.5 * (start.slope + point.slope))
        change = tf.clip_by_value(trapezoid, difference - self.error, difference + self.error)
        wolfe = (change <= point.step * self._decrease) & (tf.abs(point.slope) <= flat)
        return wolfe & (difference <= 0) & tf.math.is_finite(difference + point.slope)

    def verdict(self, state: _State, point: Point) -> _Verdict:
        """What the trial of `state` is good for, which led to `point`."""
        start, trial = self._start, state.trial
        difference = point.value - start.value
        finite = tf.math.is_finite(difference) & tf.math.is_finite(point.slope)
        trapezoid = trial * (start.slope + point.slope) / 2
        error, misjudged = self._error_seen(state, point, difference, trapezoid)
        change = tf.clip_by_value(trapezoid, difference - error, difference + error)
        decreased = change <= trial * self._decrease
        flat = finite & (tf.abs(point.slope) <= self._flat)
        wolfe = flat & decreased
        allowed = finite & (difference <= 0)
        satisfied = wolfe & allowed
        refused = wolfe & ~allowed
        endless = (trial >= self._longest) & decreased & (point.slope <= self._decrease)
        hidden = refused & (state.refusals + 1 >= _REFUSALS)
        return _Verdict(
            knot=Knot(trial, change, point.slope),
            error=error,
            misjudged=misjudged,
            finite=finite,
            satisfied=satisfied,
            refused=refused,
            better=satisfied | (allowed & (point.value < state.best.value)),
            flatter=satisfied | (flat & (tf.abs(point.slope) < tf.abs(state.pair.slope))),
            ends=satisfied | hidden | endless,
        )

    def _error_seen(
        self, state: _State, point: Point, difference: tf.Tensor, trapezoid: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The error of a difference of losses, and whether it was thought to be smaller.

        It was not where anything is not finite.
        """
        bend = tf.abs(point.slope - self._start.slope)
        beyond = tf.abs(difference - trapezoid) - state.trial * bend / 2
        level = bend <= _LEVEL * tf.abs(self._start.slope)
        larger = level & (beyond > state.error) & (beyond <= _UNDERRATED * self.error)
        return tf.where(larger, beyond, state.error), larger

    def _begun_again(
        self, state: _State, point: Point, pair: Point
    ) -> tuple[Interval, tf.Tensor, tf.Tensor]:
        """The first interval again, and the step at which the secant of the slopes is zero.

        The secant is that of the flattest trial; without one, of this trial: then it is far away.
        """
        known = pair.step > 0
        step = tf.where(known, pair.step, point.step)
        slope = tf.where(known, pair.slope, point.slope)
        secant = step * self._start.slope / (self._start.slope - slope)
        farthest = FARTHEST * step
        first = tf.where((secant > 0) & (secant < farthest), secant, farthest)
        first = tf.minimum(tf.minimum(first, self._longest), (step + state.wall) / 2)
        return Interval.begin(self._start.slope, first, self._longest), first, state.wall

    def _interpolated(self, state: _State, knot: Knot) -> tuple[Interval, tf.Tensor, tf.Tensor]:
        interval, step = state.interval.advanced(knot, self._decrease, self._longest)
        return interval, tf.minimum(step, (knot.step + state.wall) / 2), state.wall

    def _shrunk(self, state: _State) -> tuple[Interval, tf.Tensor, tf.Tensor]:
        x = state.interval.x.step
        return state.interval, x + _SHRINK * (state.trial - x), state.trial
