"""Whether a loss is convex in one of its intermediate results, by the operations behind that.

Sums of convex functions are convex, and multiples by what is not negative: means, sample weights,
counts. Which functions are convex to begin with is said by the loss rules of `curvature.outputs`.
"""

from __future__ import annotations

from collections.abc import Collection

import tensorflow as tf

from keras_qnewton.loss.recorded import RecordedLoss

# Operations through which a convex function of the output stays one, given that factors and
# divisors are constants and not negative (sample weights, counts).
_PASS = {
    "Mean", "Sum", "Mul", "RealDiv", "DivNoNan", "AddV2", "Add", "AddN", "Pack",
    "Reshape", "Squeeze", "ExpandDims", "Cast", "Identity",
}  # fmt: skip
_ADDITIVE = {"AddV2", "Add", "AddN", "Pack"}


def moving_tensors(loss: RecordedLoss) -> set[str]:
    """Names of the tensors that depend on the weights: results of the recorded operations."""
    return {tensor.name for op in loss.operations for tensor in op.outputs}


def stays_convex(
    loss: RecordedLoss, z: tf.Tensor, terms: tf.Tensor, within: Collection[tf.Operation]
) -> bool:
    """True if the loss is a convex function of z, given that `terms` are.

    Args:
        loss: The recorded loss.
        z: A tensor of its graph.
        terms: A tensor behind z, each element of it a convex function of z.
        within: Operations between z and the terms that need not keep a function convex, since
            the terms are known to be so with them.
    """
    moving = moving_tensors(loss)
    known = {op.name for op in within}
    reached = {z.name}
    after = {terms.name}  # made of the terms: no sign may change
    for op in loss.operations:
        inputs = {t.name for t in op.inputs}
        if not inputs & reached:
            continue
        follows = bool(inputs & after)
        if not (op.name in known and not follows) and not _keeps_convex(op, reached):
            return False
        if op.type not in _ADDITIVE and (inputs & moving) - reached:
            return False  # a factor that depends on the weights, say
        outputs = {t.name for t in op.outputs}
        reached |= outputs
        if follows:
            after |= outputs
    return terms.name in reached and any(t.name in reached for t in loss.operations[-1].outputs)


def _keeps_convex(op: tf.Operation, reached: set[str]) -> bool:
    """True if `op` is linear in its reached inputs, with coefficients that are not negative."""
    if op.type in ("RealDiv", "DivNoNan"):
        return op.inputs[1].name not in reached
    if op.type == "Mul":
        factors = sum(t.name in reached for t in op.inputs)
        return factors == 1 and not _has_negative_constant(op)
    return op.type in _PASS


def _has_negative_constant(op: tf.Operation) -> bool:
    values = [tf.get_static_value(t) for t in op.inputs]
    return any(value is not None and (value < 0).any() for value in values)
