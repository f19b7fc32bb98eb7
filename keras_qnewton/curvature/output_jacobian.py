"""The two parts of a network's loss in the weights: through its outputs z, and beside them.

    J  = dz/dw          `OutputJacobian`: J v by forward mode, as two reverse ones, and Jᵀ u
    R  = R(w)''         `Remainder`: second derivative of the loss while z is held, R v

v is one tensor a weight, of its shape, and u one an output z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.called import Called

# Of the weights, and of what has a tape record what depends on another tensor.
Evaluate = Callable[[Sequence[tf.Tensor], Callable[[tf.Tensor], None]], list[tf.Tensor]]
_ZERO = tf.UnconnectedGradients.ZERO


class OutputJacobian:
    """J at one point, to be multiplied by vectors from either side.

    Args:
        network: From the weights to all z and other tensors.
        weights: The weights.
        like: Tensors of the shapes of the z.

    Attributes:
        outputs: All z, on the tapes.
        others: The other tensors that `network` returned.
        called: Functions of J that branches of its graph call.
    """

    def __init__(self, network: Evaluate, weights: Sequence[tf.Tensor], like: Sequence[tf.Tensor]):
        self._weights = list(weights)
        self._probes = [tf.zeros_like(t) for t in like]
        with _tf_private.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._backward:
            self._backward.watch(self._weights)
            values = network(self._weights, self._backward.watch)
        self.outputs, self.others = values[: len(like)], values[len(like) :]
        self.called = Called(tf.compat.v1.get_default_graph())

    def product(self, vectors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        """J v of a v that is zero but for the weights `of`, whose vectors are given.

        Its operations are made where it is asked for: most steps do without.
        """
        with _tf_private.GradientTape(watch_accessed_variables=False) as forward:
            forward.watch(self._probes)
            # Jᵀu: linear in u, so that its derivative in u along v is J v.
            pulled = self.transposed(self._probes, of)
        return forward.gradient(pulled, self._probes, list(vectors), unconnected_gradients=_ZERO)

    def called_product(self, vectors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        """`product` by the call of a function, which loops are long to trace in; not for pfor."""

        def product(*vectors: tf.Tensor) -> list[tf.Tensor]:
            return self.product(vectors, of)

        return list(self.called(tuple(of), product, vectors))

    def transposed(self, vectors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        """Jᵀ u for the weights `of`."""
        return self.transposed_from(self.outputs, vectors, of)

    def transposed_from(
        self, inside: Sequence[tf.Tensor], seeds: Sequence[tf.Tensor], of: Sequence[int]
    ) -> list[tf.Tensor]:
        """Derivatives of tensors that the network made, times `seeds`, for the weights `of`."""
        weights = [self._weights[i] for i in of]
        return _dense(
            self._backward.gradient(list(inside), weights, list(seeds), unconnected_gradients=_ZERO)
        )

    def gradient(
        self, inside: Sequence[tf.Tensor], seeds: Sequence[tf.Tensor]
    ) -> list[tf.Tensor | None]:
        """The same for all weights, None where there is none."""
        gradients = self._backward.gradient(list(inside), self._weights, list(seeds))
        return [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    def transposed_of(self, i: int, vector: tf.Tensor, of: Sequence[int]) -> list[tf.Tensor]:
        """J_iᵀ u of the i-th output, for the weights `of`."""
        return self.inner_derivatives(i, vector, [self._weights[j] for j in of])

    def inner_derivatives(
        self, i: int, seed: tf.Tensor, inside: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Derivatives of the i-th output times `seed` in tensors that the network made."""
        return _dense(
            self._backward.gradient(
                self.outputs[i], list(inside), seed, unconnected_gradients=_ZERO
            )
        )


def _dense(gradients: Sequence[tf.Tensor | tf.IndexedSlices]) -> list[tf.Tensor]:
    """As tensors: those of a gather are slices."""
    return [tf.convert_to_tensor(g) for g in gradients]


class Remainder:
    """R at one point: the curvature of what depends on the weights beside z.

    Args:
        loss: From the weights and the values of tensors that are held to the loss.
        weights: The weights.
        held: These values.

    Attributes:
        value: The loss, scalar.
        gradients: Its gradient in the weights while the others are held; None where it has none.
        held_gradients: Its gradient in the tensors that are held, while the weights are.
    """

    def __init__(
        self,
        loss: Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], tf.Tensor],
        weights: Sequence[tf.Tensor],
        held: Sequence[tf.Tensor],
    ):
        self._weights = list(weights)
        with _tf_private.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._tape:
            self._tape.watch(self._weights)
            with _tf_private.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch([self._weights, list(held)])
                self.value = loss(self._weights, held)
            in_weights, in_held = inner.gradient(self.value, [self._weights, list(held)])
            self.gradients = [None if g is None else tf.convert_to_tensor(g) for g in in_weights]
        self.held_gradients: list[tf.Tensor | None] = in_held

    def depends_on(self, indices: Sequence[int]) -> bool:
        """True if one of these weights has such a part."""
        return any(self.gradients[i] is not None for i in indices)

    def product(self, vectors: Sequence[tf.Tensor], of: Sequence[int]) -> list[tf.Tensor]:
        """R v with the rows and columns of the weights `of`."""
        known = [
            (self.gradients[i], v)
            for i, v in zip(of, vectors, strict=True)
            if self.gradients[i] is not None
        ]
        if not known:
            return [tf.zeros_like(v) for v in vectors]
        gradients, along = zip(*known, strict=True)
        inside = [self._weights[i] for i in of]
        return _dense(
            self._tape.gradient(list(gradients), inside, list(along), unconnected_gradients=_ZERO)
        )
