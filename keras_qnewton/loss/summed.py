"""The loss of several replicas: the sum of theirs, each of its own data.

L(w) = Σ_r L_r(w)      scalar
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow as tf

from keras_qnewton.loss.recorded import RecordedLoss
from keras_qnewton.replicas import Replicas

_T = TypeVar("_T")


class SummedLoss(RecordedLoss):
    """L of the recorded losses L_r.

    It has no recorded operations of its own to run: who wants to see into the losses asks `each`.

    Args:
        replicas: Add up.
        losses: One a replica of this process.

    Attributes:
        replicas: As given.
        losses: As given.
        value: The loss at the variables' present values, scalar.
        variables: The first replica's.
    """

    def __init__(self, replicas: Replicas, losses: Sequence[RecordedLoss]):
        self.replicas, self.losses = replicas, list(losses)
        self.variables = losses[0].variables
        # Not where it is first asked for, which may be in a branch of the graph.
        (self.value,) = replicas.total([[loss.value] for loss in losses])

    def each(self, function: Callable[[RecordedLoss], _T]) -> list[_T]:
        """`function` of each loss of this process, on its replica's device."""
        return self.replicas.each(function, self.losses)

    def value_at(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """See `RecordedLoss.value_at`."""
        values = self.each(lambda loss: [loss.value_at(weights)])
        return self.replicas.total(values)[0]

    def value_and_gradients(
        self, weights: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """See `RecordedLoss.value_and_gradients`."""
        return summed_gradients(
            self.replicas, self.each(lambda loss: loss.value_and_gradients(weights))
        )

    @property
    def operations(self) -> list[tf.Operation]:
        """Those of all losses of this process."""
        return [op for loss in self.losses for op in loss.operations]

    def at_variables(self) -> list[tf.Tensor]:
        """The first replica's; all have the same values."""
        return self.losses[0].at_variables()


def summed_gradients(
    replicas: Replicas, found: Sequence[tuple[tf.Tensor, Sequence[tf.Tensor | None]]]
) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
    """Sums of values and gradients, one pair a replica; None where all gradients are."""
    # Losses of one model depend on the same weights.
    known = [k for k, g in enumerate(found[0][1]) if g is not None]
    value, *some = replicas.total([[value, *(g[k] for k in known)] for value, g in found])
    gradients: list[tf.Tensor | None] = [None] * len(found[0][1])
    for k, gradient in zip(known, some, strict=True):
        gradients[k] = gradient
    return value, gradients
