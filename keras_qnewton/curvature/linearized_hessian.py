"""Exact Hessian products with vectors: H v = d(g.v)/dw, one backward pass through the gradient."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.loss import RecordedLoss


class LinearizedHessian(Linearized):
    """The exact Hessian by nested gradient tapes. See `Linearized` for the arguments.

    Attributes:
        tape: A persistent tape of `gradients` as functions of `points`.
    """

    def __init__(
        self,
        loss: RecordedLoss,
        weights: Sequence[tf.Tensor],
        parts: Sequence[Part],
        memory: float,
    ):
        loss.require_second_derivatives([loss.recorded.name])
        super().__init__(loss, weights, parts, memory)
        with _tf_private.GradientTape(persistent=True, watch_accessed_variables=False) as self.tape:
            self.tape.watch(self.points)
            # Asked for here, so that this tape sees how they are made.
            _ = self.gradients

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """H v with the whole Hessian: one `[N_k]` a block in, one out."""
        return self.tape.gradient(
            self.gradients,
            self.points,
            output_gradients=list(vectors),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """H_k v with the k-th diagonal block, `[N_k]`."""
        return self.tape.gradient(
            self.gradients[k],
            self.points[k],
            output_gradients=vector,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
