"""What may refuse a step, asked before anything is assigned.

    weights, learning rate                    `sound`
    loss, gradient, the curvature's blocks    `finite`

An optimizer's state and a model's weights are assigned after all of these (`gated`). So an error
leaves every variable as it was. XLA leaves checks out: there what is not sound becomes NaN, and
the step is refused.

A learning rate that is not finite makes no finite step: that one is refused, which is said on
stderr. Only where weights decay by the rate itself it is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import RecordedLoss, SummedLoss, data_of
from keras_qnewton.step.batch import Batch

_NO_STEP = "has NaN or Inf: QNewton took no step and changed no weight."
_OF_LOSS = (
    "Check the batch for NaN, and the model for functions without a finite derivative (sqrt or "
    "norm at 0)."
)
_EMPTY = (
    "A replica's batch has no examples: its loss would be a mean of nothing. Drop the last batch "
    "(`drop_remainder=True`), or choose a batch size that leaves at least one example a replica in "
    "the last one. QNewton took no step and changed no weight. Replicas without examples:"
)
_RATE = "The learning rate"
_OF_RATE = (
    "Check the schedule, or what was assigned to `optimizer.learning_rate`. Newton's own is 1.0."
)
_OF_WEIGHT = (
    "It was there before this step. Set the weight anew, as by loading a checkpoint, and look for "
    "what assigned it."
)


def none_is_empty(loss: SummedLoss) -> tf.Operation:
    """Stops the run if a replica's batch has no examples: its loss would be a mean of nothing."""

    def empty(of: RecordedLoss) -> list[tf.Tensor]:
        batches = [t for t in data_of(of) if t.shape.rank and t.shape[0] is None]
        sizes = [tf.shape(t)[0] for t in batches]
        return [tf.reduce_any(tf.equal(sizes, 0)) if sizes else tf.constant(False)]

    found = loss.each(empty)
    (count,) = loss.replicas.total([[tf.cast(flag, tf.int32)] for (flag,) in found])
    return tf.debugging.assert_equal(count, 0, _EMPTY)


def finite(tensor: tf.Tensor, what: str, advice: str = _OF_LOSS) -> tf.Tensor:
    """`tensor`; stops the run with a message if it has NaN or Inf."""
    return tf.debugging.assert_all_finite(tensor, f"{what} {_NO_STEP} {advice}")


def sound(
    batch: Batch, flat: Sequence[tf.Tensor], weights: Callable[[], Sequence[tf.Tensor]]
) -> tf.Tensor:
    """Whether all weights are finite; stops the run with the one that is not.

    So does a learning rate that is not, where weights decay by it. False is seen under XLA alone.

    Args:
        batch: Its weights' names and the update's learning rate.
        flat: All weights, in few tensors.
        weights: Makes the same of `flat`, one tensor a weight.
    """
    rate, decays = batch.update.learning_rate, batch.update.decays
    looked_at = (rate, *flat) if decays else flat
    good = tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(t)) for t in looked_at]))

    def refused() -> tf.Tensor:
        stops = [finite(rate, _RATE, _OF_RATE)] if decays else []
        for name, weight in zip(batch.names, weights(), strict=True):
            stops.append(finite(weight, f"The weight {name!r}", _OF_WEIGHT))
        with tf.control_dependencies(stops):
            return tf.constant(False)

    is_sound = _tf_private.cond(good, lambda: tf.constant(True), refused)
    if decays or _tf_private.compiled_by_xla():
        return is_sound
    with tf.control_dependencies([_told_of(rate)]):
        return tf.identity(is_sound)


def _told_of(rate: tf.Tensor) -> tf.Tensor:
    """Prints to stderr, in the graph, if the learning rate is not finite."""

    def told() -> tf.Tensor:
        text = f"{_RATE} {_NO_STEP} {_OF_RATE}"
        with tf.control_dependencies([tf.print(text, output_stream=sys.stderr)]):
            return tf.constant(False)

    return _tf_private.cond(tf.math.is_finite(rate), lambda: tf.constant(True), told)


def gated(
    tensors: Sequence[tf.Tensor], checks: Sequence[tf.Tensor | tf.Operation]
) -> list[tf.Tensor]:
    """`tensors`, once all `checks` have passed."""
    with tf.control_dependencies(list(checks)):
        return [tf.identity(tensor) for tensor in tensors]


def checked_loss(
    value: tf.Tensor, gradients: Sequence[tf.Tensor], is_sound: tf.Tensor
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """A loss and its gradients that stop the run, all of them, if one has NaN or Inf.

    Args:
        value: The loss.
        gradients: Any tensors that its gradient is made of.
        is_sound: See `sound`.
    """
    value, *gradients = gated([value, *gradients], [is_sound])
    checked = [finite(value, "The loss")]
    for gradient in gradients:
        gradient = tf.where(is_sound, gradient, tf.constant(float("nan"), gradient.dtype))
        checked.append(finite(gradient, "The gradient of the loss"))
    value, *gradients = gated(checked, checked)
    return value, gradients
