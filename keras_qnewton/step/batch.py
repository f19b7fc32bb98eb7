"""The loss and the weights that one step is about, and whether its data are those of the last.

The loss that a step foresaw at the weights that it leads to tells at no cost. Where the next one is
another, it may be the weights that are: then the last weights' loss is evaluated on these data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import data_changed
from keras_qnewton.conditioning.damping import Damping
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.state import Memory
from keras_qnewton.step.gradient_check import verified


class Update(Protocol):
    """The change of the weights that the optimizer makes of directions: learning rate, clipping.

    Attributes:
        proportional: True if the step is proportional to the directions: no clipping, no
            constraints.
        learning_rate: Its present value, a scalar tensor.
        decays: True if weights shrink by the learning rate itself, beside the step.
    """

    @property
    def proportional(self) -> bool: ...

    @property
    def learning_rate(self) -> tf.Tensor: ...
    @property
    def decays(self) -> bool: ...

    def __call__(self, directions: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The step d of the directions x, one tensor a weight each."""
        ...

    def directions_of(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Directions of which it makes `step`, or a shorter one of the same direction."""
        ...


@dataclasses.dataclass(frozen=True)
class Batch:
    """The loss of one batch, and the weights that it is about.

    Attributes:
        loss: L, a function of the weights.
        weights: w, one tensor a weight.
        names: The weights' names.
        gradients: What was handed over as the gradient of L, one tensor a weight; None where
            nobody computed it.
        parts: The blocks of the weights.
        update: From directions to the step that would be taken.
    """

    loss: RecordedLoss
    weights: Sequence[tf.Tensor]
    names: Sequence[str]
    gradients: Sequence[tf.Tensor] | None
    parts: Sequence[Part]
    update: Update

    def loss_after(self, step: Sequence[tf.Tensor]) -> tf.Tensor:
        """L(w + d), scalar, for a step d of one tensor a weight."""
        return self.loss.value_at([w + d for w, d in zip(self.weights, step, strict=True)])


def value_and_gradient(batch: Batch, curvature: Linearized) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """L(w), and its gradient, one `[N_k]` a block: what was handed over, once it is checked."""
    if batch.gradients is None:
        return curvature.value, curvature.gradients
    own = curvature.gradients_of_weights
    checked = verified(batch.loss, batch.weights, batch.gradients, own)
    return batch.loss.value, curvature.flatten(checked)


def batches_to_average(
    batch: Batch,
    curvature: Linearized,
    before: tf.Tensor,
    memory: Memory,
    foreseen: tf.Tensor,
    damping: Damping,
) -> tf.Tensor:
    """m, float64 scalar: 1 if the data are those of the last step.

    Args:
        batch: The present one.
        curvature: Its loss at the weights.
        before: L(w), scalar.
        memory: What the last step left.
        foreseen: The loss at the weights that it led to, float64 scalar; NaN if there was none.
        damping: Says how many batches are averaged at most.
    """
    one = tf.constant(1.0, tf.float64)
    if not memory.weights:
        return one

    def differ(then: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        return data_changed(then, now, curvature.points, curvature.gradients)

    def at_last_weights() -> tf.Tensor:
        return differ(memory.loss, batch.loss.value_at(memory.weights))

    # A loss that the last step foresaw is that of the same data, and the usual case. False of NaN.
    as_foreseen = tf.math.is_finite(foreseen) & ~differ(tf.cast(foreseen, before.dtype), before)
    first = ~tf.math.is_finite(memory.loss)
    noisy = _tf_private.cond(as_foreseen | first, lambda: tf.constant(False), at_last_weights)
    return tf.where(noisy, tf.minimum(memory.count + 1, float(damping.memory)), one)
