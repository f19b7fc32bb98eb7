"""The loss and the weights that one step is about, and whether its data are those of the last.

The loss that a step foresaw at the weights that it leads to tells at no cost. Where the next one is
another, it may be the weights that are: then the last weights' loss is evaluated on these data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import data_changed
from keras_qnewton.conditioning.damping import Damping
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.curvature.summed import Summed
from keras_qnewton.curvature.unscaled import Unscaled
from keras_qnewton.loss import BatchSize, RecordedLoss, SummedLoss, UnscaledLoss, batch_size
from keras_qnewton.state import Foreseen, Memory
from keras_qnewton.step.gradient_check import verified

# A batch of no examples at all, all of them masked, weighs so much of a full one.
_LEAST_WEIGHT = 2.0**-30


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

    def factor(self, dtype: tf.DType) -> tf.Tensor:
        """What directions are multiplied by where steps are proportional to them, scalar."""
        ...

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
            nobody did, or the graph shows that it is L's own.
        parts: The blocks of the weights.
        update: From directions to the step that would be taken.
        is_evaluated: Whether L at the weights is computed in any case, as `fit` does.
    """

    loss: RecordedLoss
    weights: Sequence[tf.Tensor]
    names: Sequence[str]
    gradients: Sequence[tf.Tensor] | None
    parts: Sequence[Part]
    update: Update
    is_evaluated: bool = False

    def value(self) -> tf.Tensor:
        """L(w), scalar; evaluated where it is asked for, if nobody else does."""
        return self.loss.value if self.is_evaluated else self.loss.value_at(self.weights)

    def linearized(self, policy: Curvature) -> Linearized:
        """The curvature at the weights, of the policy's kind."""
        if isinstance(self.loss, SummedLoss):
            losses = self.loss.losses
            given = [one.scaled if isinstance(one, UnscaledLoss) else one for one in losses]
            # A user's kind may be any object with `at`.
            if hasattr(policy, "of_replicas"):
                policy = policy.of_replicas(self.loss.replicas, given)

        def at(loss: RecordedLoss) -> Linearized:
            if not isinstance(loss, UnscaledLoss):
                return policy.at(loss, self.weights, self.parts)
            return Unscaled(policy.at(loss.scaled, self.weights, self.parts), loss.scale)

        return Summed(self.loss, at) if isinstance(self.loss, SummedLoss) else at(self.loss)

    def agreed(self, *tensors: tf.Tensor) -> list[tf.Tensor]:
        """The tensors as all workers have them, whose machines may round differently.

        What decides a branch or a loop of the graph, and what is kept for the next step, is made
        of such and of sums over replicas, number by number.
        """
        if not isinstance(self.loss, SummedLoss):
            return list(tensors)
        return self.loss.replicas.agreed(tensors)

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


class Share(NamedTuple):
    """A batch's part of the work of the last m: its step is weight/count of a whole one.

    Attributes:
        count: m, in full batches, float64 scalar; 1 if the data are those of the last step.
        weight: n/N of a batch of n examples, where N is a full one; float64 scalar. 1 if the data
            are those of the last step.
        full: N for the next step, float64 scalar; None if it is not known.
        summed: Whether the loss is a sum over examples: then its gradient weighs n/N by itself,
            and so does curvature, beside that of full batches.
    """

    count: tf.Tensor
    weight: tf.Tensor
    full: tf.Tensor | None
    summed: bool = False

    def part(self, averaged: bool = True) -> tf.Tensor:
        """What a step is of a whole one.

        Args:
            averaged: Whether its curvature is that of full batches, and not of this one alone.
        """
        return (1.0 if self.summed and averaged else self.weight) / self.count


def share_of(
    size: BatchSize | None, noisy: tf.Tensor, last: tuple[tf.Tensor, tf.Tensor], memory: float
) -> Share:
    """The share of a batch.

    N is the largest batch of late: where the data stay, that one; where batches get smaller for
    good, N follows them, as fast as curvature of theirs takes the place of the others'.

    Args:
        size: n; None if it is not known, and all batches weigh the same.
        noisy: Whether the data are others than those of the last step, boolean scalar.
        last: m and N as the last step left them, float64 scalars.
        memory: How many batches share the work at most.
    """
    one = tf.constant(1.0, tf.float64)
    last_count, last_full = last
    if size is None:
        count = tf.where(noisy, tf.minimum(last_count + 1, memory), one)
        return Share(count, one, None)
    examples = size.count
    full = tf.maximum(examples, last_full)
    # No batch is left out, whatever was masked in it.
    weight = tf.where(noisy, tf.maximum(tf.math.divide_no_nan(examples, full), _LEAST_WEIGHT), one)
    count = tf.where(noisy, tf.minimum(last_count + weight, memory), one)
    fading = tf.where(noisy, (1 - 1 / memory) * last_full, 0.0)
    return Share(count, weight, tf.maximum(examples, fading), size.summed)


def batches_to_average(
    batch: Batch,
    curvature: Linearized,
    before: tf.Tensor,
    memory: Memory,
    foreseen: Foreseen,
    damping: Damping,
) -> Share:
    """The batch's share of the work, all of it if the data are those of the last step.

    Args:
        batch: The present one.
        curvature: Its loss at the weights.
        before: L(w), scalar.
        memory: What the last step left.
        foreseen: What it knew of this one.
        damping: Says how many batches are averaged at most.
    """
    if not memory.weights:
        one = tf.constant(1.0, tf.float64)
        return Share(one, one, None)

    def differ(then: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        (found,) = batch.agreed(data_changed(then, now, curvature.points, curvature.gradients))
        return found

    def at_last_weights() -> tf.Tensor:
        return differ(memory.loss, batch.loss.value_at(memory.weights))

    # A loss that the last step foresaw is that of the same data, and the usual case. False of NaN.
    as_foreseen = tf.math.is_finite(foreseen.loss)
    as_foreseen &= ~differ(tf.cast(foreseen.loss, before.dtype), before)
    first = ~tf.math.is_finite(memory.loss)
    noisy = _tf_private.cond(as_foreseen | first, lambda: tf.constant(False), at_last_weights)
    last = memory.count, foreseen.full
    return share_of(batch_size(batch.loss), noisy, last, float(damping.memory))
