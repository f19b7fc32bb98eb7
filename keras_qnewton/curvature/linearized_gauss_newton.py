"""Gauss-Newton products with vectors: three passes, and no matrix is formed.

    G v = Jᵀ (C (J v)) + R v        [N] -> [N]; z, J, C and R as in `gauss_newton`

J and R are `output_jacobian`'s, and C is an `OutputCurvature` of the loss, or another in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.output_jacobian import OutputJacobian, Remainder
from keras_qnewton.curvature.outputs import ConvexOutput, ConvexPart, OutputCurvature
from keras_qnewton.loss import RecordedLoss

# Relative size of a change of the gradient that is far below what one batch tells of it.
_NEGLIGIBLE = 2.0**-12


class GaussNewtonLinearized(Linearized):
    """A loss differentiated once through the network and twice through its convex part.

    Args:
        loss: See `Linearized`.
        weights: See `Linearized`.
        parts: See `Linearized`.
        memory: See `Linearized`.
        output: z.
        output_curvature: From the loss behind z to C; that of the rule which found z, if None.
        fetch: Names of other tensors of which the value is wanted.
    """

    def __init__(
        self,
        loss: RecordedLoss,
        weights: Sequence[tf.Tensor],
        parts: Sequence[Part],
        memory: float,
        output: ConvexOutput,
        output_curvature: Callable[[ConvexPart], OutputCurvature] | None = None,
        fetch: Sequence[str] = (),
    ):
        super().__init__(loss, weights, parts, memory)
        self.positive_semidefinite = True
        self._output = output
        names = [output.name, *fetch]
        self._jacobian = OutputJacobian(
            lambda points: loss.evaluate(self.unflatten(points), fetch=names)[1],
            self.points,
            like=loss.tensor(output.name),
        )
        # Static shapes get lost where operations are run again.
        self._z, *others = (
            tf.ensure_shape(tf.stop_gradient(t), loss.tensor(name).shape)
            for t, name in zip([self._jacobian.z, *self._jacobian.others], names, strict=True)
        )
        self._values = dict(zip(fetch, others, strict=True))
        self._remainder = Remainder(self._loss_at_fixed_output, self.points)
        part = ConvexPart(loss, output, self.unflatten(self.points), self._z, self.dtype)
        self._curvature = (output_curvature or output.rule.curvature)(part)
        self._roots = self._curvature.roots()

    def _loss_at_fixed_output(self, points: list[tf.Tensor]) -> tf.Tensor:
        fixed = {self._output.name: self._z}
        return self._loss.evaluate(self.unflatten(points), overrides=fixed)[0]

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """`gradients` with the digits that the loss's derivative in z has lost."""
        if not self._curvature.loses_digits:
            return list(gradients)
        lost = self._curvature.lost_digits()

        def won_back() -> list[tf.Tensor]:
            added = self._jacobian.transposed(lost)
            return [g + more for g, more in zip(gradients, added, strict=True)]

        # A backward pass, which models that are certain of few examples do without.
        worth_it = tf.norm(lost) > _NEGLIGIBLE * tf.norm(self._curvature.gradient)
        return tf.cond(worth_it, won_back, lambda: list(gradients))

    def value_error(self) -> tf.Tensor:
        """About how far rounding has moved the loss, float64 scalar."""
        return self._curvature.value_error()

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient at the weights plus `step`, as exact as `sharpened`."""
        if not self._curvature.loses_digits:
            return super().gradients_after(step)
        points = [x + d for x, d in zip(self.points, step, strict=True)]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(points)
            value, (z,) = self._loss.evaluate(self.unflatten(points), fetch=[self._output.name])
        lost = self._curvature.lost_digits_at(z, tape.gradient(value, z))
        gradients = tape.gradient(value, points, unconnected_gradients="zero")
        added = tape.gradient(z, points, lost, unconnected_gradients="zero")
        return [g + more for g, more in zip(gradients, added, strict=True)]

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """G v with the whole matrix: one `[N_k]` a block in, one out."""
        curved = self._curvature.product(self._jacobian.product(vectors))
        return self._remainder.added(vectors, to=self._jacobian.transposed(curved))

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """G_k v with the k-th diagonal block, `[N_k]`."""
        curved = self._curvature.product(self._jacobian.block_product(k, vector))
        through = self._jacobian.block_transposed(k, curved)
        return self._remainder.block_added(k, vector, to=through)
