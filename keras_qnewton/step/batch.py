"""The loss and the weights that one step is about, and whether its data are those of the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from keras_qnewton.conditioning import data_changed
from keras_qnewton.conditioning.damping import Damping
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.state import Memory


class Update(Protocol):
    """The change of the weights that the optimizer makes of directions: learning rate, clipping.

    Attributes:
        proportional: True if the step is proportional to the directions: no clipping, no
            constraints.
    """

    @property
    def proportional(self) -> bool: ...

    def __call__(self, directions: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The step d of the directions x, one tensor a weight each."""
        ...


@dataclasses.dataclass(frozen=True)
class Batch:
    """The loss of one batch, and the weights that it is about.

    Attributes:
        loss: L, a function of the weights.
        weights: w, one tensor a weight.
        gradients: The gradient of L, one tensor a weight.
        parts: The blocks of the weights.
        update: From directions to the step that would be taken.
    """

    loss: RecordedLoss
    weights: Sequence[tf.Tensor]
    gradients: Sequence[tf.Tensor]
    parts: Sequence[Part]
    update: Update

    def loss_after(self, step: Sequence[tf.Tensor]) -> tf.Tensor:
        """L(w + d), scalar, for a step d of one tensor a weight."""
        return self.loss.value_at([w + d for w, d in zip(self.weights, step, strict=True)])


def batches_to_average(
    batch: Batch, before: tf.Tensor, memory: Memory, damping: Damping
) -> tf.Tensor:
    """m, float64 scalar: 1 if the data are those of the last step.

    Args:
        batch: The present one.
        before: L(w), scalar.
        memory: What the last step left.
        damping: Says how many batches are averaged at most.
    """
    one = tf.constant(1.0, tf.float64)
    if not memory.weights:
        return one
    now = tf.where(tf.math.is_finite(memory.loss), batch.loss.value_at(memory.weights), before)
    noisy = data_changed(memory.loss, now, batch.weights, batch.gradients)
    return tf.where(noisy, tf.minimum(memory.count + 1, float(damping.memory)), one)
