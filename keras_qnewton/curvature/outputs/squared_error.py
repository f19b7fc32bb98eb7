"""Squared error, (z - y)² for each element of z: C_cc = 2 ω, by tapes."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from keras_qnewton.curvature.outputs.base import Candidate, LossRule
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.convexity import moving_tensors
from keras_qnewton.registry import register


@register("loss_rule", "squared_error")
class SquaredError(LossRule):
    """The square of the difference between an output and targets that do not move."""

    def candidates(self, loss: RecordedLoss) -> Iterator[Candidate]:
        """Where a difference is squared, one side of which depends on the weights."""
        moving = moving_tensors(loss)
        for op in loss.operations:
            if op.type not in ("Square", "SquaredDifference") and not _is_square(op):
                continue
            difference = op if op.type == "SquaredDifference" else op.inputs[0].op
            if difference.type in ("Sub", "SquaredDifference"):
                sides = [t for t in difference.inputs if t.name in moving]
                if len(sides) == 1:
                    yield Candidate(sides[0], op.outputs[0], [difference, op])


def _is_square(op: tf.Operation) -> bool:
    """True if this is x**2."""
    return op.type == "Pow" and tf.get_static_value(op.inputs[1]) == 2
