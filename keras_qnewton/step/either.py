"""A step of more weights than a matrix is formed of: learned where the data stay, else Newton's.

    rows     of the Gauss-Newton matrix on this batch, U [r, N] in G = UᵀU
    few      r at most `row_limit`: Newton's system is solved in r dimensions, at a bearable price
    stay     the data are those of the last step, or known to be the same in all steps

Of many rows, Newton's system takes some hundred products with the curvature. On data that stay an
inverse Hessian learned from gradients is further after as many seconds; where they change, a pair
of gradients says little of the other batches. docs/benchmarks.md has the measurements.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import data_changed
from keras_qnewton.curvature.row_count import row_count, row_limit
from keras_qnewton.loss.fingerprint import data_fingerprint, has_constant_data
from keras_qnewton.settings import Settings
from keras_qnewton.state import Both, EitherState, Here, Memory
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.newton import Step, newton_step
from keras_qnewton.step.quasi_newton import TINY, quasi_newton_step


def either_step(batch: Batch, settings: Settings, state: EitherState) -> Step:
    """One step of `batch`, of the kind that its data are for; it assigns as that kind does.

    Args:
        batch: The loss, the weights, and the update that the optimizer makes of directions.
        settings: Their `learned` is the policy of quasi-Newton steps.
        state: Of both kinds.

    Raises:
        tf.errors.InvalidArgumentError: If the loss or its gradient has NaN or Inf.
    """
    data = data_fingerprint(batch.loss)
    rows = row_count(batch.loss)
    few = False if rows is None else rows <= row_limit(batch.loss)
    if data is None or few is True:
        return _newton_alone(batch, settings, state)
    if few is False and has_constant_data(batch.loss):
        return _learned_alone(batch, settings, state)

    def newton() -> Step:
        return _alike(_newton(batch, settings, state, data), batch)

    def learned() -> Step:
        return _alike(_learned(batch, settings, state), batch)

    stay = _tf_private.cond(
        tf.convert_to_tensor(few), lambda: tf.constant(False), lambda: _stay(batch, state, data)
    )
    return _tf_private.cond(stay, learned, newton)


def _newton_alone(batch: Batch, settings: Settings, state: EitherState) -> Step:
    step = newton_step(batch, settings, state.newton)
    assert isinstance(step.memory, Memory)
    return step._replace(memory=Both(step.memory, None))


def _learned_alone(batch: Batch, settings: Settings, state: EitherState) -> Step:
    step = quasi_newton_step(batch, settings, state.learned)
    assert isinstance(step.memory, Here)
    return step._replace(memory=Both(None, step.memory))


def _newton(batch: Batch, settings: Settings, state: EitherState, data: tf.Tensor) -> Step:
    """A Newton step after which the other kind knows which data it was on."""
    step = newton_step(batch, settings, state.newton)
    assert isinstance(step.memory, Memory)
    loss = tf.cast(step.loss, tf.float64)
    after = tf.where(step.trial.accepted, tf.cast(step.trial.loss_after, tf.float64), loss)
    last = state.learned.last()
    # Zero says that nothing was learned, and only then.
    fallen = tf.maximum(loss - after, TINY)
    left = last._replace(
        loss=after,
        decrease=tf.where(last.decrease > 0, fallen, 0.0),
        count=tf.constant(1.0, tf.float64),
        data=data,
        weights=state.learned.nowhere(),
    )
    return step._replace(memory=Both(step.memory, left))


def _learned(batch: Batch, settings: Settings, state: EitherState) -> Step:
    """A quasi-Newton step after which Newton's kind knows where it was."""
    step = quasi_newton_step(batch, settings, state.learned)
    assert isinstance(step.memory, Here)
    last = state.newton.memory(batch.loss.value.dtype)
    left = last._replace(
        count=tf.constant(1.0, tf.float64),
        loss=tf.cast(step.loss, batch.loss.value.dtype),
        weights=batch.weights if last.weights else [],
    )
    return step._replace(memory=Both(left, step.memory))


def _alike(step: Step, batch: Batch) -> Step:
    """The step with the same tensors in both branches of the graph."""
    dtype = batch.loss.value.dtype
    nothing = tf.zeros([0], tf.float64)  # which the log does not hold
    trial = step.trial._replace(
        blocks=[block._replace(x=nothing) for block in step.trial.blocks],
        loss_after=tf.cast(step.trial.loss_after, dtype),
    )
    gradient = [tf.cast(g, tf.float64) for g in step.gradient]
    attempts = tf.constant(0) if step.attempts is None else step.attempts
    full = tf.constant(0.0, tf.float64) if step.full is None else step.full
    return step._replace(
        trial=trial,
        loss=tf.cast(step.loss, dtype),
        gradient=gradient,
        attempts=attempts,
        full=full,
    )


def _stay(batch: Batch, state: EitherState, data: tf.Tensor) -> tf.Tensor:
    """Whether the data are those of the last step, boolean scalar; False at the first.

    A batch in another order has another fingerprint, and the loss that the last step foresaw.
    """
    foreseen = state.newton.foreseen().loss

    learned = state.learned
    last = learned.last()

    def same_loss() -> tf.Tensor:
        if batch.gradients is None:
            # Of the last weights that were learned at, which says how far rounding goes.
            gradients = learned.unflatten(last.gradient, batch.weights)
        else:
            gradients = list(batch.gradients)
        changed = data_changed(foreseen, batch.value(), batch.weights, gradients)
        return tf.math.is_finite(foreseen) & ~batch.agreed(changed)[0]

    return _tf_private.cond(last.data == data, lambda: tf.constant(True), same_loss)
