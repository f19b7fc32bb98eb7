"""Where a quasi-Newton step starts: what of it the last step knew, and what is found anew.

    here    the weights are those that the last step led to
    same    and the data are those that it was on, in `fit` in any order: L and g are known
    usual   and H has learned something, and all is finite: nothing else has to be asked

Any of them may be decided while the step runs. Where the gradient was handed over and has to be
checked, or the data have no fingerprint, no start is usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.conditioning import data_changed
from keras_qnewton.loss import batch_size
from keras_qnewton.loss.fingerprint import data_fingerprint, has_constant_data, same_rows
from keras_qnewton.norms import norm, unit
from keras_qnewton.quasi_newton.inverse import dot
from keras_qnewton.state.quasi_newton_state import Here, QuasiNewtonState
from keras_qnewton.step.batch import Batch, share_of
from keras_qnewton.step.checks import checked_loss, sound
from keras_qnewton.step.gradient_check import verified

# Where the data change, the share of a batch's step falls to that of so many.
_MOST_BATCHES = 20.0
_INFINITE = np.float64(np.inf)


class Known(NamedTuple):
    """What a step is told before its loss is evaluated, boolean scalars but for two.

    Attributes:
        here: See the module.
        same: See the module.
        usual: See the module; None where no start is.
        loss: L at the weights if `same`, float64 scalar.
        data: Fingerprint of the data, int64 scalar; None if they have none.
    """

    here: tf.Tensor
    same: tf.Tensor
    usual: tf.Tensor | None
    loss: tf.Tensor
    data: tf.Tensor | None


class Start(NamedTuple):
    """Where a step starts.

    Attributes:
        here: What is known of the weights. Its `decrease` is by how much the loss may fall now.
        part: What the batch's step is of a whole one, float64 scalar.
        full: N for the next step, float64 scalar; see `Share`. Empty if it is not known.
    """

    here: Here
    part: tf.Tensor
    full: tuple[tf.Tensor, ...]


class Evaluated(NamedTuple):
    """L and g at the weights, and H g where that is known, too; else None."""

    loss: tf.Tensor
    gradient: tf.Tensor
    product: tf.Tensor | None


def known_of(batch: Batch, state: QuasiNewtonState, last: Here) -> Known:
    """What the last step tells of this one's start."""
    data = data_fingerprint(batch.loss)
    here = tf.reduce_all(last.weights == state.flatten(batch.weights))
    if data is None:
        return Known(here, tf.constant(False), None, last.loss, None)
    same, loss = here & (last.data == data), last.loss
    # Elsewhere the loss would take a branch, for which all steps would wait.
    if batch.is_evaluated and not has_constant_data(batch.loss):
        reordered, value = _in_another_order(batch, state, last, here & ~same, data)
        # The sum over examples is rounded as in the trials' losses.
        same, loss = same | reordered, tf.where(reordered, value, loss)
    if batch.gradients is not None:
        return Known(here, same, None, loss, data)
    rate = tf.cast(batch.update.learning_rate, tf.float64)
    usual = same & (last.decrease > 0) & tf.math.is_finite(loss + rate)
    return Known(here, same, batch.agreed(usual)[0], loss, data)


def as_it_was(batch: Batch, last: Here, known: Known) -> Start:
    """A usual start."""
    one = tf.constant(1.0, tf.float64)
    assert known.data is not None
    size = batch_size(batch.loss)
    here = last._replace(loss=known.loss, count=one, data=known.data)
    return Start(here, one, () if size is None else (size.count,))


def found(
    batch: Batch,
    state: QuasiNewtonState,
    last: Here,
    known: Known,
    evaluated: Callable[[], Evaluated],
) -> Start:
    """A start where weights or data may be others; what may refuse a step is asked.

    Args:
        batch: The present one.
        state: Has H, which is forgotten where it is of no use.
        last: What the last step left.
        known: What that tells of this one.
        evaluated: L and g.
    """
    loss, gradient, product = evaluated()
    if batch.gradients is not None:
        loss = tf.cast(batch.loss.value, tf.float64)
        own = state.unflatten(gradient, batch.weights)
        gradient = state.flatten(verified(batch.loss, batch.weights, batch.gradients, own))
    flat = state.flatten(batch.weights)
    is_sound = sound(batch, [flat], lambda: state.unflatten(flat, batch.weights))
    loss, (gradient,) = checked_loss(loss, [gradient], is_sound)
    if product is None:
        unchanged = tf.reduce_all(gradient == last.gradient)
        product = tf.cond(unchanged, lambda: last.product, lambda: state.inverse.product(gradient))
    # Positive definite but for rounding; where that has the last word, H is forgotten.
    # H over I before it has learned anything: steps are the same whatever power of two is on L.
    factor = 1 / unit(gradient)
    product, usable, factor = batch.agreed(product, dot(gradient, product) > 0, factor)
    learned = usable & (last.decrease > 0)
    with tf.control_dependencies([tf.cond(learned, _nothing, lambda: forgotten(state, factor))]):
        product = tf.where(learned, product, factor * gradient)
    # A batch in another order has another fingerprint, and the same loss.
    moved = known.here & ~known.same & _differ(last.loss, loss, batch, state, gradient)
    noisy = moved | (~known.here & (last.count > 1))
    last_share = last.count, state.foreseen().full
    share = share_of(batch_size(batch.loss), noisy, last_share, _MOST_BATCHES)
    expected = tf.where(noisy, _INFINITE, last.decrease)
    (falls,) = batch.agreed(tf.where(learned, expected, norm(gradient) / 2))
    here = Here(
        loss=loss,
        gradient=gradient,
        product=product,
        decrease=falls,
        error=tf.where(noisy, tf.zeros_like(last.error), last.error),
        count=share.count,
        data=last.data if known.data is None else known.data,
        weights=last.weights,
    )
    return Start(here, share.part(), () if share.full is None else (share.full,))


def evaluated_or_remembered(
    batch: Batch, state: QuasiNewtonState, last: Here, known: Known
) -> Evaluated:
    """L and g at the weights; evaluated only if the last step did not."""

    def evaluated() -> tuple[tf.Tensor, tf.Tensor]:
        loss, gradients = batch.loss.value_and_gradients(batch.weights)
        return tf.cast(loss, tf.float64), state.flatten(gradients)

    loss, gradient = tf.cond(known.same, lambda: (known.loss, last.gradient), evaluated)
    return Evaluated(loss, gradient, None)


def forgotten(state: QuasiNewtonState, factor: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Has H be `factor` I."""
    state.inverse.reset(factor)
    return tf.constant(True)


def _in_another_order(
    batch: Batch, state: QuasiNewtonState, last: Here, maybe: tf.Tensor, data: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether examples have changed places, and nothing else; and the loss if they have.

    It has to be what it was, up to rounding: there are losses that depend on the order.
    """
    value = batch.value()
    same = ~_differ(last.loss, value, batch, state, last.gradient)
    return maybe & same_rows(last.data, data) & same, tf.cast(value, tf.float64)


def _differ(
    then: tf.Tensor, now: tf.Tensor, batch: Batch, state: QuasiNewtonState, gradient: tf.Tensor
) -> tf.Tensor:
    """Whether two losses at the weights are those of different data, boolean scalar."""
    dtype = batch.loss.value.dtype
    weights = state.flatten(batch.weights)
    changed = data_changed(tf.cast(then, dtype), tf.cast(now, dtype), [weights], [gradient])
    return batch.agreed(changed)[0]


def _nothing() -> tf.Tensor:
    return tf.constant(True)
