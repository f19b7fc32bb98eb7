"""The two parts of a network's loss in the weights: through its output z, and beside it.

    J  = dz/dw          `OutputJacobian`: J v by forward mode, as two reverse ones, and Jᵀ u
    R  = R(w)''         `Remainder`: second derivative of the loss while z is held, R v

A vector of weights is one `[N_k]` a block; u and J v have the shape of z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Evaluate = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class OutputJacobian:
    """J at one point, to be multiplied by vectors from either side.

    Args:
        network: From the weights to z and other tensors.
        points: The weights.
        like: A tensor of the shape of z.

    Attributes:
        z: The output, on the tapes.
        others: The other tensors that `network` returned.
    """

    def __init__(self, network: Evaluate, points: list[tf.Tensor], like: tf.Tensor):
        self._points = points
        self._probe = tf.zeros_like(like)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._forward:
            self._forward.watch(self._probe)
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._backward:
                self._backward.watch(points)
                self.z, *self.others = network(points)
            # Jᵀu: linear in u, so that its derivative in u along v is J v.
            self._pulled = self.transposed(self._probe)

    def product(self, vectors: Sequence[tf.Tensor]) -> tf.Tensor:
        """J v."""
        return self._forward.gradient(
            self._pulled, self._probe, list(vectors), unconnected_gradients="zero"
        )

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """J v of a v that is zero but for the k-th block."""
        return self._forward.gradient(
            self._pulled[k], self._probe, vector, unconnected_gradients="zero"
        )

    def transposed(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """Jᵀ u."""
        return self._backward.gradient(self.z, self._points, vector, unconnected_gradients="zero")

    def block_transposed(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """The k-th block of Jᵀ u."""
        return self._backward.gradient(
            self.z, self._points[k], vector, unconnected_gradients="zero"
        )


class Remainder:
    """R at one point: the curvature of what depends on the weights beside z.

    Args:
        loss: From the weights to the loss, while z is held.
        points: The weights.
    """

    def __init__(self, loss: Callable[[list[tf.Tensor]], tf.Tensor], points: list[tf.Tensor]):
        self._points = points
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as self._tape:
            self._tape.watch(points)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(points)
                value = loss(points)
            self._gradients = inner.gradient(value, points)

    def depends_on(self, k: int) -> bool:
        """True if the k-th block's weights have such a part."""
        return self._gradients[k] is not None

    def added(self, vectors: Sequence[tf.Tensor], to: list[tf.Tensor]) -> list[tf.Tensor]:
        """R v + `to`."""
        for gradient, vector in zip(self._gradients, vectors, strict=True):
            if gradient is not None:
                rest = self._tape.gradient(
                    gradient, self._points, vector, unconnected_gradients="zero"
                )
                to = [a + b for a, b in zip(to, rest, strict=True)]
        return to

    def block_added(self, k: int, vector: tf.Tensor, to: tf.Tensor) -> tf.Tensor:
        """R_k v + `to` with the k-th diagonal block."""
        if self._gradients[k] is None:
            return to
        return to + self._tape.gradient(
            self._gradients[k], self._points[k], vector, unconnected_gradients="zero"
        )
