"""Whether the gradients that were handed over are those of the recorded loss.

A Newton step takes both from one function. Gradients that were masked, clipped or noised on the
way, or that belong to another loss, would be set against curvature that knows nothing of it.

    g    the gradient that was handed over             one tensor a weight
    r    the recorded loss's own, by a tape of ours    one tensor a weight

Both come from the same operations at the same weights, and differ by rounding alone. How much
that is, is asked where it matters only: another gradient, at weights that differ in their last
digits, says what rounding does to r.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.norms import double_norm

# Relative difference that rounding may make, by the loss's lowest precision: far above what was
# seen, which is mostly none, and below what an edit does.
_TOLERANCE = {tf.bfloat16: 3e-2, tf.float16: 1e-2, tf.float32: 1e-3, tf.float64: 1e-8}
# Spacing of numbers near 1.
_EPSILON = {tf.bfloat16: 2.0**-7, tf.float16: 2.0**-10, tf.float32: 2.0**-23, tf.float64: 2.0**-52}
# A weight's gradient that is smaller than the tolerance's 100th part of the whole may be rounding
# altogether, as a bias's before a batch normalisation is.
_NEGLIGIBLE = 1e-2
# How many times the difference that is seen between two roundings of the gradient is allowed.
_ROUNDINGS = 8.0

_ADVICE = (
    "The gradients handed to QNewton are not those of the recorded loss: they were changed after "
    "the tape (masked, clipped, noised, averaged), or belong to another loss than `scale_loss` "
    "saw last, or the model assigns its trainable weights while it computes the loss. The "
    "curvature would not be theirs. To freeze weights, set `layer.trainable = False` or leave the "
    "variables out; to clip, pass `clipnorm=`, `clipvalue=` or `global_clipnorm=` to QNewton; add "
    "penalties to the loss. No weight was changed."
)


def verified(
    loss: RecordedLoss,
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    own: Sequence[tf.Tensor | None],
) -> list[tf.Tensor]:
    """`gradients`, which stop the run unless they are the loss's own, up to rounding.

    Under XLA, which leaves checks out, they become NaN, and the step is refused. Gradients with
    NaN or Inf pass.

    Args:
        loss: The recorded loss.
        weights: Its variables' present values, one tensor a variable.
        gradients: What was handed over, one tensor a variable.
        own: The loss's own; None where it does not depend on the variable.

    Raises:
        ValueError: If a gradient is seen to be zero while tracing, and the loss's own is not.
        tf.errors.InvalidArgumentError: At run time, if they differ by more than rounding.
    """
    for variable, g, r in zip(loss.variables, gradients, own, strict=True):
        if r is not None and _is_zero(g) and not _is_zero(r):
            raise ValueError(
                f"{_ADVICE} Received: a gradient of zeros for {variable.name!r}, which the loss "
                "depends on"
            )
    precision = _lowest_precision(loss)
    same = _same(loss, weights, gradients, own, precision)
    stop = tf.debugging.Assert(same, [_ADVICE])
    out = []
    for g in gradients:
        with tf.control_dependencies([stop]):
            out.append(tf.where(same, g, tf.constant(float("nan"), g.dtype)))
    return out


def _same(
    loss: RecordedLoss,
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    own: Sequence[tf.Tensor | None],
    precision: tf.DType,
) -> tf.Tensor:
    """Whether g is r up to rounding, boolean scalar."""
    recorded = [tf.zeros_like(w) if r is None else r for w, r in zip(weights, own, strict=True)]
    sizes = tf.stack([double_norm(r) for r in recorded])
    given = tf.stack([double_norm(g) for g in gradients])
    pairs = zip(gradients, recorded, strict=True)
    apart = tf.stack([double_norm(tf.cast(g, r.dtype) - r) for g, r in pairs])
    allowed = _TOLERANCE[precision] * (sizes + _NEGLIGIBLE * double_norm(sizes))
    finite = tf.math.is_finite(tf.reduce_sum(given))

    def within_rounding() -> tf.Tensor:
        _, moved = loss.value_and_gradients(_moved(weights, precision))
        changes = [
            double_norm(m - r) for m, r in zip(moved, recorded, strict=True) if m is not None
        ]
        noise = double_norm(tf.stack(changes)) if changes else tf.constant(0.0, tf.float64)
        return tf.reduce_all(apart <= allowed + _ROUNDINGS * noise)

    near = tf.reduce_all(apart <= allowed)
    return _tf_private.cond(near | ~finite, lambda: tf.constant(True), within_rounding)


def _moved(weights: Sequence[tf.Tensor], precision: tf.DType) -> list[tf.Tensor]:
    """Weights that differ in the last digits that the loss's precision has."""
    epsilon = _EPSILON[precision]
    counts = [w.shape.num_elements() for w in weights]
    noise = tf.random.stateless_normal([sum(counts)], seed=[0, 0])
    out = []
    for w, count, signs in zip(weights, counts, tf.split(noise, counts), strict=True):
        size = double_norm(w) / math.sqrt(max(count, 1))
        size = tf.cast(tf.where(size > 0, size, tf.ones_like(size)), w.dtype)
        signs = tf.cast(tf.reshape(signs, w.shape), w.dtype)
        out.append(w + tf.cast(epsilon, w.dtype) * signs * (tf.abs(w) + size))
    return out


def _lowest_precision(loss: RecordedLoss) -> tf.DType:
    """The dtype of the fewest digits among the recorded results."""
    dtypes = {t.dtype for op in loss.operations for t in op.outputs} | {loss.value.dtype}
    return max((d for d in dtypes if d in _EPSILON), key=lambda d: _EPSILON[d])


def _is_zero(tensor: tf.Tensor) -> bool:
    """Whether a tensor is seen to be zero while tracing."""
    while tensor.op.type in ("Identity", "Cast", "Reshape", "Neg"):
        tensor = tensor.op.inputs[0]
    if tensor.op.type == "ZerosLike":
        return True
    if tensor.op.type == "Mul":
        return any(_is_zero(t) for t in tensor.op.inputs)
    if tensor.op.type == "Fill":
        return _is_zero(tensor.op.inputs[1])
    value = tf.get_static_value(tensor)
    return value is not None and value.size > 0 and not value.any()
