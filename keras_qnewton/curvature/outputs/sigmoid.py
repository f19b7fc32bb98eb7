"""Sigmoid cross-entropy, max(z, 0) - z y + log(1 + exp(-|z|)) for each element of z.

C_cc = ω p (1 - p),  p = 1 / (1 + exp(-z));  by tapes, of the logarithm: the rest is linear but at 0
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from keras_qnewton.curvature.outputs.base import Candidate, LossRule
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.convexity import moving_tensors
from keras_qnewton.registry import register

_CHAIN = {"Exp", "Neg", "Select", "SelectV2", "Abs"}  # from z to exp(-|z|)


@register("loss_rule", "sigmoid_cross_entropy")
class SigmoidCrossEntropy(LossRule):
    """Cross-entropy of logits of any shape, as `tf.nn.sigmoid_cross_entropy_with_logits` has it."""

    def candidates(self, loss: RecordedLoss) -> Iterator[Candidate]:
        """Where there is log1p(exp(-|z|))."""
        moving = moving_tensors(loss)
        for op in loss.operations:
            z = _logit(op, moving) if op.type == "Log1p" else None
            if z is not None:
                yield Candidate(z, op.outputs[0])


def _logit(op: tf.Operation, moving: set[str]) -> tf.Tensor | None:
    """z of log1p(exp(-|z|)), or None if this is another use of log1p."""
    tensor, passed = op.inputs[0], set()
    while tensor.op.type in _CHAIN:
        passed.add(tensor.op.type)
        inputs = [t for t in tensor.op.inputs if t.name in moving and t.dtype != tf.bool]
        if not inputs:
            return None
        tensor = inputs[-1]
    return tensor if "Exp" in passed else None
