"""The scale of λ where a loss has no curvature to set it: how far its gradient leads, then.

    λ_max        largest |eigenvalue| of a block's curvature                scalar, one a block
    g, n = ‖g‖   gradient, of the block or of all                           [N], scalar
    |L|/‖g‖      Polyak's length, that of the step which lowers a linear loss from L to zero; λ of
                 that step is ‖g‖²/|L|

A loss that is bounded below by zero and falls along -g has curvature of ‖g‖²/(2L) on its way. So a
block with much less than that is linear as far as anybody can see: H = 0 of a linear model's mean
absolute error, a hinge or a quantile, or a penalty that is small beside one. No sum of squares has
such a block: ‖g‖² ≤ 2 λ_max L for a Gauss-Newton matrix.

A loss that may be negative is near zero by chance. So a block is not called linear where its
curvature shows within the length of its weights.

References:
    Polyak 1987, Introduction to Optimization, section 5.3.
    Loizou et al. 2021, arXiv:2002.10542 (the same length for one batch of many).
    Nocedal & Wright 2006, section 4.1 (a trust region sets a step where curvature does not).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.norms import double_norm, norm

# Curvature below this share of what the gradient and the loss tell is none.
_NONE = 1e-1
# Adaptive damping starts at a hundredth of the scale.
_SCALE = 1e2


class DampingScale(NamedTuple):
    """What λ is relative to.

    Attributes:
        whole: The largest |eigenvalue| among blocks that have curvature; what stands for it if
            none has. Float64 scalar.
        eigenvalues: λ_max of each block, float64 scalars.
        factors: How many times λ each block's damping is, float64 scalars; empty if all have λ.
    """

    whole: tf.Tensor
    eigenvalues: Sequence[tf.Tensor]
    factors: Sequence[tf.Tensor] = ()

    @classmethod
    def of_curvature(cls, eigenvalues: Sequence[tf.Tensor]) -> DampingScale:
        """The largest of `eigenvalues`, whatever they are."""
        return cls(tf.reduce_max(tf.stack(eigenvalues)), eigenvalues)

    def of_blocks(self, damping: tf.Tensor) -> list[tf.Tensor]:
        """Each block's damping at λ, float64 scalars."""
        if not self.factors:
            return [damping] * len(self.eigenvalues)
        return [factor * damping for factor in self.factors]

    def or_of_gradient(
        self,
        gradients: Sequence[tf.Tensor],
        weights: Sequence[tf.Tensor],
        loss: tf.Tensor,
        count: tf.Tensor,
    ) -> DampingScale:
        """The same where blocks have curvature; see the module for what it is where they do not.

        Args:
            gradients: g of each block, `[N_k]`.
            weights: w of each block, `[N_k]`.
            loss: L, scalar.
            count: m, the number of batches that share the work, float64 scalar. A step is divided
                by it, and so is the first λ, but for a step without curvature.
        """
        loss = tf.abs(tf.cast(loss, tf.float64))
        slopes, sizes = ([double_norm(v) for v in of] for of in (gradients, weights))
        linear = tf.stack(
            [
                top < _NONE * n / _longest(tf.math.divide_no_nan(loss, n), size)
                for top, n, size in zip(self.eigenvalues, slopes, sizes, strict=True)
            ]
        )
        slope, size = (v[0] if len(v) == 1 else norm(tf.stack(v)) for v in (slopes, sizes))
        polyak = tf.math.divide_no_nan(loss, slope)
        length = tf.where(polyak > 0, polyak, _longest(size))
        instead = _SCALE * count * slope / length
        if len(slopes) == 1:
            return self._replace(whole=tf.where(linear[0], instead, self.whole))
        curved = tf.reduce_max(tf.where(linear, tf.zeros_like(instead), tf.stack(self.eigenvalues)))
        whole = tf.where(curved > 0, curved, instead)
        more = tf.maximum(tf.math.divide_no_nan(instead, whole), 1.0)
        factors = tf.where(linear, more, tf.ones_like(more))
        return DampingScale(whole, self.eigenvalues, tf.unstack(factors, len(slopes)))


def _longest(*lengths: tf.Tensor) -> tf.Tensor:
    """The largest length; 1 where all are zero."""
    largest = tf.reduce_max(tf.stack(lengths))
    return tf.where(largest > 0, largest, tf.ones_like(largest))
