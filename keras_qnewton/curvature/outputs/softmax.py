"""Softmax cross-entropy: a row of z with weight ω and probabilities p = softmax(z).

    ∂/∂z = ω (p - y)         C = ω (diag p - p pᵀ)
    s_c  = √(ω p_c q_c / (p_c + q_c)) (e_c - Σ_{d>c} (p_d / q_c) e_d),      q_c = Σ_{d>c} p_d

All three are written so that a model that is certain, p_c near 1, loses no digits. Derivatives by
tapes are differences of nearly equal numbers there. The roots are the columns of C's Cholesky
factor, of which the last is zero: each sets a class against those after it.

References:
    Tanabe & Sagae 1992, Journal of the Royal Statistical Society B 54(1) (the Cholesky factor).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_qnewton.curvature.outputs.base import (
    UNIT_ROUNDOFF,
    Candidate,
    ConvexPart,
    LossRule,
    OutputCurvature,
    countable_outputs,
)
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.convexity import moving_tensors
from keras_qnewton.registry import register

_HEADS = {"SparseSoftmaxCrossEntropyWithLogits", "SoftmaxCrossEntropyWithLogits"}
# A row of p - y whose sum is larger, relative to ω, has labels that do not sum to one.
_ROUNDING_OF_SUM = {tf.float32: 2.0**-20, tf.float64: 2.0**-48}


@register("loss_rule", "softmax_cross_entropy")
class SoftmaxCrossEntropy(LossRule):
    """Cross-entropy of logits `[B, C]` with classes or with probabilities that are given."""

    def candidates(self, loss: RecordedLoss) -> Iterator[Candidate]:
        """TensorFlow's own operations, whose labels do not depend on the weights."""
        moving = moving_tensors(loss)
        for op in loss.operations:
            if op.type in _HEADS and op.inputs[1].name not in moving:
                yield Candidate(op.inputs[0], op.outputs[0])

    def curvature(self, part: ConvexPart) -> SoftmaxCurvature:
        """C by formula."""
        return SoftmaxCurvature(part)


class SoftmaxCurvature(OutputCurvature):
    """C = ω (diag p - p pᵀ) of each row."""

    loses_digits = True

    def __init__(self, part: ConvexPart):
        super().__init__(part.z, part.gradient(), part.dtype)
        self._part = part
        self._probabilities = tf.nn.softmax(part.z)
        self._term_weights = part.term_weights()

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, `[B, C]`."""
        return softmax_product(self._probabilities, self._term_weights, vector)

    def roots(self) -> tf.Tensor | None:
        """s_c for each class c but the last, `[C - 1, B, C]`."""
        if countable_outputs(self.z) is None:
            return None
        return softmax_roots(self._probabilities, self._term_weights)

    def lost_digits(self) -> tf.Tensor:
        """The part of ∂L/∂z that rounding took from `gradient`, `[B, C]`; see `_lost`."""
        return self.lost_digits_at(self.z)

    def lost_digits_at(self, z: tf.Tensor) -> tf.Tensor:
        """The same at another z."""
        z = tf.ensure_shape(z, self.z.shape)
        return self._lost(self._part.gradient_of_terms(z), tf.argmax(z, axis=1)[:, None])

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar.

        u Σ|∂L/∂z||z| comes from that of z. The term of a certain example, the logarithm of nearly
        1, has the absolute error u besides.
        """
        terms = tf.reduce_sum(tf.abs(self.gradient * self.z))
        terms += tf.reduce_sum(self._term_weights)
        return UNIT_ROUNDOFF[self.dtype] * tf.cast(terms, tf.float64)

    def _lost(self, gradient: tf.Tensor, likeliest: tf.Tensor) -> tf.Tensor:
        """The number by which a row's sum misses zero, in the entry of its likeliest class.

        A row is ω (p - y), and its sum zero. Where the model is certain of the class y, p_y - 1
        is a difference of nearly equal numbers: in single precision it is wrong by 6e-8, which
        is all of it at a loss of 6e-8. The other entries are right: theirs is its value.
        """
        excess = tf.reduce_sum(gradient, axis=1)
        rounding = _ROUNDING_OF_SUM[tf.float32 if gradient.dtype == tf.float32 else tf.float64]
        explained = tf.abs(excess) <= rounding * self._term_weights
        excess = tf.where(explained, excess, tf.zeros_like(excess))
        count = tf.shape(gradient)[1]
        return -excess[:, None] * tf.one_hot(likeliest[:, 0], count, dtype=gradient.dtype)


def softmax_product(p: tf.Tensor, weights: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """C v = ω (p v - p (p.v)), of the shape of p.

    Where the model is certain, that is a difference of nearly equal numbers. C ignores what
    all entries of v share: taken from the likeliest class, nothing cancels.

    Args:
        p: Probabilities, rows of any number of axes.
        weights: ω, one a row.
        vector: v, of the shape of p.
    """
    likeliest = tf.argmax(p, axis=-1)[..., None]
    v = vector - tf.gather(vector, likeliest, axis=-1, batch_dims=p.shape.rank - 1)
    mean = tf.reduce_sum(p * v, axis=-1, keepdims=True)
    return weights[..., None] * p * (v - mean)


def softmax_roots(p: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """s_c for each class c but the last, `[C - 1, rows, C]`, of p `[rows, C]` and ω `[rows]`."""
    count = int(p.shape[-1])
    if count == 1:
        return tf.zeros_like(p)[None]
    itself = tf.constant(np.eye(count - 1, count)[:, None, :], p.dtype)
    later = tf.constant(np.triu(np.ones([count - 1, count]), 1)[:, None, :], p.dtype)
    # Sums of what follows, and shares in them: nothing cancels.
    these, after = p[:, :-1], tf.cumsum(p, axis=1, exclusive=True, reverse=True)[:, :-1]
    smaller = these * tf.math.divide_no_nan(after, these + after)
    scale = tf.transpose(tf.sqrt(weights[:, None] * smaller))[:, :, None]
    shares = tf.math.divide_no_nan(p[None], tf.transpose(after)[:, :, None])
    return scale * (itself - later * shares)
