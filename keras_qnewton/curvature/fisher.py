"""The empirical Fisher matrix: second moments of per-example gradients.

    ℓ_b(w)      example b's loss, L = Σ_b ℓ_b / B + R(w)
    F   = (1/B) Σ_b ∇ℓ_b ∇ℓ_bᵀ + R''(w)        [N, N], positive semidefinite, rank ≤ B (but for R)

It is the Gauss-Newton matrix with C = B δ δᵀ for each example, δ = ∂L/∂z its gradient in the
network's output: one backward pass gives all ∇ℓ_b of a linear layer, as a_b ⊗ d_b. It is cheap, and
not the curvature: it goes to zero as the model fits (Kunstner et al. 2019).

References:
    Amari 1998, Neural Computation 10(2) (natural gradient).
    Kunstner, Balles & Hennig 2019, arXiv:1905.12558 (limits of the empirical Fisher).
    arXiv:2405.00252 (used for transformers).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.gauss_newton import required_outputs
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.outputs import ConvexPart, OutputCurvature
from keras_qnewton.curvature.policy import Curvature
from keras_qnewton.curvature.structured_gauss_newton import StructuredGaussNewton
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.registry import register


@register("curvature", "fisher")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class EmpiricalFisher(Curvature):
    """Empirical Fisher curvature, for softmax or sigmoid cross-entropy and squared error.

    An example is a row of the output: for a language model whose cross-entropy is taken over
    `[B·T, V]` logits, a token. Sample weights enter squared. See `Curvature` for the argument.
    """

    def at(
        self, loss: RecordedLoss, weights: Sequence[tf.Tensor], parts: Sequence[Part]
    ) -> Linearized:
        """Differentiates `loss` at `weights`; see `Curvature.at`.

        Raises:
            ValueError: If the network's output is not found in the loss.
        """
        convex = required_outputs(loss, "fisher")
        shapes = [loss.tensor(output.name).shape for output in convex.outputs]
        if len(shapes) > 1 or shapes[0].rank in (None, 0):
            raise ValueError(
                "Argument `curvature` can be 'fisher' only for one output with an axis of "
                "examples. "
                f"Received: outputs of shapes {[tuple(shape) for shape in shapes]}"
            )

        def second_moment(part: ConvexPart) -> OutputCurvature:
            return SecondMoment(part.output.rule.curvature(part))

        return StructuredGaussNewton(loss, weights, parts, self.memory, convex, second_moment)


class SecondMoment(OutputCurvature):
    """C = B δ δᵀ for each example, δ = ∂L/∂z: one root, whatever the outputs.

    Args:
        exact: The curvature of the loss itself, which knows how the loss and δ are rounded.
    """

    def __init__(self, exact: OutputCurvature):
        super().__init__(exact.z, exact.gradient, exact.dtype)
        self._exact = exact
        self.loses_digits = exact.loses_digits

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, of the shape of z."""
        axes = list(range(1, self.z.shape.rank))
        along = tf.reduce_sum(self.gradient * vector, axes, keepdims=True)
        return self._examples() * self.gradient * along

    def roots(self) -> tf.Tensor:
        """√B δ, `[1, *z.shape]`."""
        return (tf.sqrt(self._examples()) * self.gradient)[None]

    def coefficients(self) -> tuple[tf.Tensor, tf.Tensor]:
        """1/√B, always."""
        each = tf.fill([tf.shape(self.z)[0], 1], tf.math.rsqrt(self._examples()))
        return each, tf.constant(True)

    def lost_digits(self) -> tf.Tensor:
        """See `OutputCurvature.lost_digits`."""
        return self._exact.lost_digits()

    def lost_digits_at(self, z: tf.Tensor) -> tf.Tensor:
        """See `OutputCurvature.lost_digits_at`."""
        return self._exact.lost_digits_at(z)

    def value_error(self) -> tf.Tensor:
        """See `OutputCurvature.value_error`."""
        return self._exact.value_error()

    def _examples(self) -> tf.Tensor:
        """B, in the precision of z."""
        return tf.cast(tf.shape(self.z)[0], self.z.dtype)
