"""The quasi-Newton step.

    L, g     loss of the batch and its gradient at the weights w     scalar, [N]
    H        inverse Hessian, learned from the pairs of past steps   [N, N]
    m        number of full batches that share a step; 1 if data     scalar
             stay
    n/N      what the batch weighs of a full one; 1 if data stay     scalar
    x        direction (n/N) H g / m                                 [N]
    d(α)     change of the weights that the optimizer makes of α x   [N]
    α        length; the strong Wolfe conditions hold at d(α)        scalar
    s, y     the pair d(α), g(w + d(α)) - g                          [N]

Both gradients of a pair are of one batch. Where the next step is on the same data, what the line
search knows of its end, L, g and H g, is that step's beginning: a step costs one loss and gradient,
and one product with H.

That one evaluation is in no branch: it is the line search's first trial where the step starts where
the last one ended, and else the loss and gradient where it starts. What is then to do in the usual
step is little, and stands beside one branch with all the rest.

References:
    Nocedal & Wright 2006, algorithm 6.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.directions import BlockStep, learned, unknown
from keras_qnewton.quasi_newton.inverse import dot
from keras_qnewton.quasi_newton.line_search import Point, Search, Searched, StrongWolfe
from keras_qnewton.quasi_newton.policy import QuasiNewton
from keras_qnewton.settings import Settings
from keras_qnewton.state.quasi_newton_state import Here, QuasiNewtonState
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.line import Arrival, Line, separated
from keras_qnewton.step.newton import Step
from keras_qnewton.step.pair import LEAST_CURVATURE, taken_in
from keras_qnewton.step.rounding import ROUNDING
from keras_qnewton.step.start import (
    Evaluated,
    Known,
    Start,
    as_it_was,
    evaluated_or_remembered,
    found,
    known_of,
)
from keras_qnewton.step.trial import Trial

# The first length supposes that the loss falls as much as in the last step, and a bit more.
_OPTIMISM = 1.01
# A fall of the loss of fewer of its rounding errors tells nothing.
_VISIBLE = 8.0
# What a search found of the loss's error is believed a bit less by the next, and up to so many
# times the rounding of the loss itself.
_FADING, _UNDERRATED = 0.9, 2.0**16
TINY = 2.0**-1022


class _End(NamedTuple):
    """Where a step ends.

    Attributes:
        gradient: g there, float64 `[N]`.
        product: H' g, float64 `[N]`.
        arrival: The weights there.
        numbers: float64 `[7]`: its length, its loss, the loss's error, the search's evaluations, by
            how much the loss fell, or zero where H has learned nothing, L, and m. N for the next
            step follows, if it is known.
    """

    gradient: tf.Tensor
    product: tf.Tensor
    arrival: Arrival
    numbers: tf.Tensor


def quasi_newton_step(batch: Batch, settings: Settings, state: QuasiNewtonState) -> Step:
    """One step of `batch`; it assigns no weight, and no variable but H's.

    Args:
        batch: The loss, the weights, and the update that the optimizer makes of directions.
        settings: Their `learned` is the policy.
        state: The last step's values, and H.

    Raises:
        tf.errors.InvalidArgumentError: If the loss or its gradient has NaN or Inf.
    """
    policy = settings.learned
    assert policy is not None
    last = state.last()
    known = known_of(batch, state, last)
    if known.usual is None:
        start = found(
            batch, state, last, known, lambda: evaluated_or_remembered(batch, state, last, known)
        )
        line, search = _line_and_search(batch, policy, state, start)
        end = _searched(state, line, start, search.found())
    else:
        end = _as_foreseen(batch, policy, state, last, known)
    length, loss_after, error, evaluations, decrease, loss, count, *full = tf.unstack(end.numbers)
    trial = Trial(
        blocks=[_block(policy, state, settings, evaluations)],
        damping=tf.constant(math.nan, tf.float64),
        length=length,
        loss_after=loss_after,
        ratio=tf.constant(math.nan, tf.float64),
        accepted=length > 0,
    )
    return Step(
        directions=separated(end.arrival.directions, batch, state),
        trial=trial,
        formations=[tf.constant(Formation.NOT_FORMED)],
        loss=loss,
        gradient=[state.entries(end.gradient)],
        is_flat=tf.constant(False),
        memory=Here(
            loss=loss_after,
            gradient=end.gradient,
            product=end.product,
            decrease=decrease,
            error=error,
            count=count,
            data=last.data if known.data is None else known.data,
            weights=end.arrival.weights,
        ),
        full=full[0] if full else None,
    )


def _as_foreseen(
    batch: Batch, policy: QuasiNewton, state: QuasiNewtonState, last: Here, known: Known
) -> _End:
    """The end of a step that usually starts where the last one ended, and takes its first trial."""
    usual_start = as_it_was(batch, last, known)
    line, search = _line_and_search(batch, policy, state, usual_start)
    point = line.at(search.first, moved=known.usual)
    arrival = line.arrival(search.first)
    s, y = arrival.moved, point.gradient - last.gradient
    gs, ys = dot(last.gradient, s), dot(y, s)
    sbs = -search.first * gs
    pair = state.inverse.prepared(s, y, point.gradient, last.product, sbs)
    # Where a square vanishes or overflows, the other branch looks again.
    curved = ys * ys > (2 * LEAST_CURVATURE) ** 2 * (tf.nn.l2_loss(y) * tf.nn.l2_loss(s))
    usual = known.usual & search.takes(point) & curved & (ys > 0) & (sbs > 0)
    (usual,) = batch.agreed(usual)

    def with_first() -> _End:
        (product,) = batch.agreed(state.inverse.learned(pair))
        numbers = _numbers(usual_start, search.alone(point))
        return _End(point.gradient, product, arrival, numbers)

    def otherwise() -> _End:
        at_weights = Evaluated(point.value, point.gradient, pair.product)
        start = Start(
            *_tf_private.cond(
                known.usual,
                lambda: usual_start,
                lambda: found(batch, state, last, known, lambda: at_weights),
            )
        )
        line, search = _line_and_search(batch, policy, state, start)
        first = _tf_private.cond(known.usual, lambda: point, lambda: search.at(search.first))
        return _searched(state, line, start, search.followed(Point(*first)))

    return _End(*_tf_private.rarely(~usual, otherwise, with_first))


def _line_and_search(
    batch: Batch, policy: QuasiNewton, state: QuasiNewtonState, start: Start
) -> tuple[Line, Search]:
    """The line along H g, and the search on it, of which nothing is evaluated yet."""
    here = start.here
    line = Line.of(batch, state, here.product, start.part)
    (slope,) = batch.agreed(dot(here.gradient, line.flat))
    at_start = Point(tf.constant(0.0, tf.float64), here.loss, slope, here.gradient)
    rounding = ROUNDING[batch.loss.value.dtype] * tf.abs(here.loss)
    error = tf.clip_by_value(_FADING * here.error, rounding, _UNDERRATED * rounding)
    # The loss may fall as in the last step. Of an H that has learned nothing, about as far as 1.
    first = tf.math.divide_no_nan(-2 * _OPTIMISM * here.decrease, slope)
    # The estimate may underflow to no step at all.
    estimated = (here.decrease > _VISIBLE * error) & (first > 0)
    first = tf.where(estimated, tf.minimum(first, 1.0), 1.0)
    # Of a batch among others only the sufficient decrease: its minimum is not looked for.
    stays = tf.get_static_value(here.count) == 1
    any_slope = False if stays else here.count > 1
    wolfe = policy.line_search or StrongWolfe()
    return line, wolfe.along(line.at, at_start, first, error, any_slope=any_slope)


def _searched(state: QuasiNewtonState, line: Line, start: Start, searched: Searched) -> _End:
    """The end of a search; H takes in its pair."""
    product = taken_in(state, line, start.here, searched)
    end = searched.point
    return _End(end.gradient, product, line.arrival(end.step), _numbers(start, searched))


def _numbers(start: Start, searched: Searched) -> tf.Tensor:
    """See `_End`."""
    end, here = searched.point, start.here
    # Not zero where H has learned, be the loss's decrease lost in rounding.
    decrease = tf.maximum(here.loss - end.value, TINY)
    satisfied = tf.get_static_value(searched.satisfied)
    if satisfied is None or not satisfied:
        decrease = tf.where((end.step > 0) | (searched.pair.step > 0), decrease, 0.0)
    evaluations = tf.cast(searched.evaluations, tf.float64)
    of_search = [end.step, end.value, searched.value_error, evaluations, decrease]
    return tf.stack([*of_search, here.loss, here.count, *start.full])


def _block(
    policy: QuasiNewton, state: QuasiNewtonState, settings: Settings, evaluations: tf.Tensor
) -> BlockStep:
    blank = unknown(state.size, tf.float64, settings.scheduler)
    asked_for = isinstance(settings.curvature, QuasiNewton)
    return learned(blank, policy.rule(state.size), evaluations, asked_for)
