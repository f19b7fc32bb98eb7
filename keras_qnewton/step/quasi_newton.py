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

References:
    Nocedal & Wright 2006, algorithm 6.1; procedure 18.2 (damped pairs, after Powell 1978).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import data_changed
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.directions import BlockStep, learned, unknown
from keras_qnewton.loss import batch_size
from keras_qnewton.loss.fingerprint import data_fingerprint, same_rows, vector_fingerprint
from keras_qnewton.norms import norm, norms_of_rows, unit
from keras_qnewton.quasi_newton.inverse import dot
from keras_qnewton.quasi_newton.line_search import FirstTrial, Point, Searched, StrongWolfe
from keras_qnewton.quasi_newton.policy import QuasiNewton
from keras_qnewton.settings import Settings
from keras_qnewton.state.quasi_newton_state import Here, QuasiNewtonState
from keras_qnewton.step.batch import Batch, Share, share_of
from keras_qnewton.step.checks import checked_loss, sound
from keras_qnewton.step.gradient_check import verified
from keras_qnewton.step.line import Line
from keras_qnewton.step.newton import Step
from keras_qnewton.step.rounding import ROUNDING
from keras_qnewton.step.trial import Trial

# A pair whose curvature is less than this, relative to its lengths, is rounding.
_LEAST_CURVATURE = 1e-12
# The first length supposes that the loss falls as much as in the last step, and a bit more.
_OPTIMISM = 1.01
# A fall of the loss of fewer of its rounding errors tells nothing.
_VISIBLE = 8.0
# What a search found of the loss's error is believed a bit less by the next, and up to so many
# times the rounding of the loss itself.
_FADING, _UNDERRATED = 0.9, 2.0**16
TINY = 2.0**-1022
# A gradient with a largest entry in between is taken for a step before anything is learned.
_SANE = (2.0**-20, 2.0**20)
# Where the data change, the share of a batch's step falls to that of so many.
_MOST_BATCHES = 20.0
# Of its expected curvature, what a pair of one batch among others has at least (Powell 1978).
_LEAST_SHARE = 0.2
_INFINITE = np.float64(math.inf)


class _Start(NamedTuple):
    """Where a step starts.

    Attributes:
        here: What is known of the weights. Its `decrease` is by how much the loss may fall now.
        part: What the batch's step is of a whole one, float64 scalar.
        full: N for the next step; see `Share`.
    """

    here: Here
    part: tf.Tensor
    full: tf.Tensor | None


class _End(NamedTuple):
    """Where a step ends.

    Attributes:
        gradient: g there, float64 `[N]`.
        product: H' g, float64 `[N]`.
        weights: Fingerprint of the weights, int64 scalar.
        numbers: Its length, its loss, the loss's error, the search's evaluations, and by how much
            the loss fell: zero where H has learned nothing. float64 `[5]`.
    """

    gradient: tf.Tensor
    product: tf.Tensor
    weights: tf.Tensor
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
    data = data_fingerprint(batch.loss)
    start = _start(batch, state, data)
    here = start.here
    line = Line.of(batch, state, here.product, start.part)
    end = _end(state, line, here, _first_trial(policy, line, here, batch.loss.value.dtype))
    length, loss_after, error, evaluations, decrease = tf.unstack(end.numbers)
    trial = Trial(
        blocks=[_block(policy, state, settings, evaluations)],
        damping=tf.constant(math.nan, tf.float64),
        length=length,
        loss_after=loss_after,
        ratio=tf.constant(math.nan, tf.float64),
        accepted=length > 0,
    )
    return Step(
        directions=line.directions(length),
        trial=trial,
        formations=[tf.constant(Formation.NOT_FORMED)],
        loss=here.loss,
        memory=Here(
            loss=loss_after,
            gradient=end.gradient,
            product=end.product,
            decrease=decrease,
            error=error,
            count=here.count,
            data=here.data,
            weights=end.weights,
        ),
        full=start.full,
    )


def _start(batch: Batch, state: QuasiNewtonState, data: tf.Tensor | None) -> _Start:
    """L, g and H g at the weights: the last step's, if those and the data are the same.

    And the batch's share of the work.
    """
    last = state.last()
    here_before = last.weights == vector_fingerprint(state.flatten(batch.weights))
    size = batch_size(batch.loss)

    def searched_for() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        here, share = _found(batch, state, here_before, data)
        falls = tf.where(here.decrease > 0, here.decrease, norm(here.gradient) / 2)
        (falls,) = batch.agreed(falls)
        full = [] if share.full is None else [share.full]
        numbers = [here.loss, falls, here.error, here.count, share.part(), *full]
        return here.gradient, here.product, tf.stack(numbers)

    if data is None or batch.gradients is not None:
        gradient, product, numbers = searched_for()
    else:
        # Nothing is asked of the weights that was asked where the last step ended.
        usual = here_before & (last.data == data) & (last.decrease > 0)
        rate = tf.cast(batch.update.learning_rate, tf.float64)
        (usual,) = batch.agreed(usual & tf.math.is_finite(last.loss + rate))

        def as_it_was() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            one = tf.constant(1.0, tf.float64)
            full = [] if size is None else [size.count]
            numbers = [last.loss, last.decrease, last.error, one, one, *full]
            return last.gradient, last.product, tf.stack(numbers)

        gradient, product, numbers = _tf_private.rarely(~usual, searched_for, as_it_was)
    # Numbers that go through a branch together are few operations.
    loss, falls, error, count, part, *full = tf.unstack(numbers, 5 if size is None else 6)
    data = last.data if data is None else data
    here = Here(loss, gradient, product, falls, error, count, data, last.weights)
    return _Start(here, part, full[0] if full else None)


def _found(
    batch: Batch, state: QuasiNewtonState, here_before: tf.Tensor, data: tf.Tensor | None
) -> tuple[Here, Share]:
    """What `_start` finds where weights or data may be others; what may refuse a step is asked."""
    last = state.last()
    known, reordered = _known(batch, state, here_before, data)

    def evaluated() -> tuple[tf.Tensor, tf.Tensor]:
        loss, gradients = batch.loss.value_and_gradients(batch.weights)
        return tf.cast(loss, tf.float64), state.flatten(gradients)

    def remembered() -> tuple[tf.Tensor, tf.Tensor]:
        # The sum over examples is rounded as in the trials' losses.
        return _tf_private.cond(reordered, value, lambda: last.loss), last.gradient

    def value() -> tf.Tensor:
        return tf.cast(batch.value(), tf.float64)

    loss, gradient = tf.cond(known, remembered, evaluated)
    if batch.gradients is not None:
        loss = tf.cast(batch.loss.value, tf.float64)
        own = state.unflatten(gradient, batch.weights)
        gradient = state.flatten(verified(batch.loss, batch.weights, batch.gradients, own))
    flat = state.flatten(batch.weights)
    is_sound = sound(batch, [flat], lambda: state.unflatten(flat, batch.weights))
    loss, (gradient,) = checked_loss(loss, [gradient], is_sound)
    same = tf.reduce_all(gradient == last.gradient)
    product = tf.cond(same, lambda: last.product, lambda: state.inverse.product(gradient))
    # Positive definite but for rounding; where that has the last word, H is forgotten.
    product, usable, factor = batch.agreed(
        product, dot(gradient, product) > 0, _first_factor(gradient)
    )
    learned = usable & (last.decrease > 0)
    with tf.control_dependencies([tf.cond(learned, _nothing, lambda: _forgotten(state, factor))]):
        product = tf.where(learned, product, factor * gradient)
    # A batch in another order has another fingerprint, and the same loss.
    moved = here_before & ~known & _differ(last.loss, loss, batch, state, gradient)
    noisy = moved | (~here_before & (last.count > 1))
    last_share = last.count, state.foreseen().full
    share = share_of(batch_size(batch.loss), noisy, last_share, _MOST_BATCHES)
    here = Here(
        loss=loss,
        gradient=gradient,
        product=product,
        decrease=tf.where(learned, tf.where(noisy, _INFINITE, last.decrease), 0.0),
        error=tf.where(noisy, tf.zeros_like(last.error), last.error),
        count=share.count,
        data=last.data if data is None else data,
        weights=last.weights,
    )
    return here, share


def _known(
    batch: Batch, state: QuasiNewtonState, here_before: tf.Tensor, data: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether L and g at the weights are the last step's, and whether examples changed places.

    Of examples in another order the loss has to be what it was, up to rounding: there are losses
    that depend on the order.
    """
    if data is None:
        return tf.constant(False), tf.constant(False)
    last = state.last()
    same = last.data == data

    def same_loss() -> tf.Tensor:
        return ~_differ(last.loss, batch.value(), batch, state, last.gradient)

    maybe = here_before & ~same & same_rows(last.data, data)
    reordered = _tf_private.cond(maybe, same_loss, lambda: tf.constant(False))
    return here_before & (same | reordered), reordered


def _differ(
    then: tf.Tensor, now: tf.Tensor, batch: Batch, state: QuasiNewtonState, gradient: tf.Tensor
) -> tf.Tensor:
    """Whether two losses at the weights are those of different data, boolean scalar."""
    dtype = batch.loss.value.dtype
    weights = state.flatten(batch.weights)
    changed = data_changed(tf.cast(then, dtype), tf.cast(now, dtype), [weights], [gradient])
    return batch.agreed(changed)[0]


def _first_trial(policy: QuasiNewton, line: Line, here: Here, dtype: tf.DType) -> FirstTrial:
    """The line search as far as its first trial."""
    (slope,) = line.batch.agreed(dot(here.gradient, line.flat))
    start = Point(tf.constant(0.0, tf.float64), here.loss, slope, here.gradient)
    rounding = ROUNDING[dtype] * tf.abs(here.loss)
    error = tf.clip_by_value(_FADING * here.error, rounding, _UNDERRATED * rounding)
    # The loss may fall as in the last step. Of an H that has learned nothing, about as far as 1.
    first = tf.math.divide_no_nan(-2 * _OPTIMISM * here.decrease, slope)
    # The estimate may underflow to no step at all.
    estimated = (here.decrease > _VISIBLE * error) & (first > 0)
    first = tf.where(estimated, tf.minimum(first, 1.0), 1.0)
    search = policy.line_search or StrongWolfe()
    # Of a batch among others only the sufficient decrease: its minimum is not looked for.
    return search.first_trial(line.at, start, first, error, any_slope=here.count > 1)


def _end(state: QuasiNewtonState, line: Line, here: Here, trial: FirstTrial) -> _End:
    """The end of the search; H takes in its pair."""
    point = trial.point
    s, y = line.moved(point.step), point.gradient - here.gradient
    gs, ys = dot(here.gradient, s), dot(y, s)
    sbs = -(point.step * line.share) * gs
    # Where a square vanishes or overflows, the other branch looks again.
    curved = ys * ys > (2 * _LEAST_CURVATURE) ** 2 * (tf.nn.l2_loss(y) * tf.nn.l2_loss(s))
    usual = trial.taken & (here.count <= 1) & curved & (ys > 0) & (sbs > 0)
    (usual,) = line.batch.agreed(usual)
    weights = line.fingerprint(point.step)

    def with_first() -> _End:
        product = state.inverse.learned(s, y, point.gradient, here.product, sbs)
        (product,) = line.batch.agreed(product)
        return _End(point.gradient, product, weights, _numbers(here, trial.alone()))

    def searched_on() -> _End:
        searched = trial.followed()
        product = _learn(state, line, here, searched)
        end = searched.point
        numbers = _numbers(here, searched)
        return _End(end.gradient, product, line.fingerprint(end.step), numbers)

    return _End(*_tf_private.rarely(~usual, searched_on, with_first))


def _numbers(here: Here, searched: Searched) -> tf.Tensor:
    """See `_End`."""
    end = searched.point
    # Not zero where H has learned, be the loss's decrease lost in rounding.
    decrease = tf.maximum(here.loss - end.value, TINY)
    satisfied = tf.get_static_value(searched.satisfied)
    if satisfied is None or not satisfied:
        decrease = tf.where((end.step > 0) | (searched.pair.step > 0), decrease, 0.0)
    evaluations = tf.cast(searched.evaluations, tf.float64)
    return tf.stack([end.step, end.value, searched.value_error, evaluations, decrease])


def _learn(state: QuasiNewtonState, line: Line, here: Here, searched: Searched) -> tf.Tensor:
    """H' g at the end of the step, once H has taken in the search's pair.

    A search without an end and without a pair says that H is of no use: it is forgotten.
    """
    end, pair = searched.point, searched.pair
    s = line.moved(pair.step)
    y = pair.gradient - here.gradient
    minus_bs = pair.step * line.share * here.gradient
    sbs, noisy = -dot(minus_bs, s), here.count > 1
    y, sbs = tf.cond(noisy, lambda: _damped(s, y, minus_bs, sbs), lambda: (y, sbs))
    lengths = tf.reduce_prod(norms_of_rows(tf.stack([y, s])))
    curved = dot(y, s) > _LEAST_CURVATURE * lengths
    (known,) = line.batch.agreed((pair.step > 0) & curved & (sbs > 0))

    def learn() -> tf.Tensor:
        # H y from H g' - H g, where y is the difference.
        to = tf.where(noisy, y, pair.gradient)
        since = tf.where(noisy, tf.zeros_like(y), here.product)
        product = state.inverse.learned(s, y, to, since, sbs)
        with tf.control_dependencies([product]):
            ready = (pair.step == end.step) & ~noisy
            return tf.cond(ready, lambda: tf.identity(product), multiply)

    def multiply() -> tf.Tensor:
        return state.inverse.product(end.gradient)

    def forget() -> tf.Tensor:
        with tf.control_dependencies([_forgotten(state)]):
            return tf.identity(here.gradient)

    product = tf.cond(known, learn, lambda: tf.cond(end.step > 0, multiply, forget))
    return line.batch.agreed(product)[0]


def _damped(
    s: tf.Tensor, y: tf.Tensor, minus_bs: tf.Tensor, sbs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """y and sᵀBs of one batch among others, whose curvature it is not much less than.

    A batch's own curvature is no reason to believe much less in that of the others.
    """
    ys = dot(y, s)
    theta = tf.where(ys < _LEAST_SHARE * sbs, (1 - _LEAST_SHARE) * sbs / (sbs - ys), 1.0)
    y = theta * y - (1 - theta) * minus_bs
    return y, tf.minimum(sbs, dot(y, s))


def _forgotten(state: QuasiNewtonState, factor: tf.Tensor | float = 1.0) -> tf.Tensor:
    state.inverse.reset(factor)
    return tf.constant(True)


def _first_factor(gradient: tf.Tensor) -> tf.Tensor:
    """H over I before it has learned anything: 1, but for gradients that make no sane step."""
    u = unit(gradient)
    return tf.where((u >= _SANE[0]) & (u <= _SANE[1]), tf.ones_like(u), 1 / u)


def _nothing() -> tf.Tensor:
    return tf.constant(True)


def _block(
    policy: QuasiNewton, state: QuasiNewtonState, settings: Settings, evaluations: tf.Tensor
) -> BlockStep:
    blank = unknown(state.size, tf.float64, settings.scheduler)
    asked_for = isinstance(settings.curvature, QuasiNewton)
    return learned(blank, policy.rule(state.size), evaluations, asked_for)
