"""The curvature of a loss from that of the loss times a scale S, divided in full precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_qnewton.curvature.formation import Formed
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.low_rank import RowFactors


class Unscaled(Linearized):
    """What `Linearized` gives of S L, divided by S.

    Args:
        scaled: Of S L.
        scale: S, a positive scalar.
    """

    def __init__(self, scaled: Linearized, scale: tf.Tensor):
        self._scaled, self._scale = scaled, scale
        self._parts, self._shapes, self._dtypes = scaled._parts, scaled._shapes, scaled._dtypes
        self.dtype, self.points = scaled.dtype, scaled.points
        self.positive_semidefinite = scaled.positive_semidefinite

    @property
    def value(self) -> tf.Tensor:
        """L, scalar."""
        return self._divided(self._scaled.value)

    @property
    def gradients_of_weights(self) -> list[tf.Tensor | None]:
        """See `Linearized`."""
        found = self._scaled.gradients_of_weights
        return [None if g is None else self._divided(g) for g in found]

    def product(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Linearized`."""
        return [self._divided(v) for v in self._scaled.product(vectors)]

    def block_product(self, k: int, vector: tf.Tensor) -> tf.Tensor:
        """See `Linearized`."""
        return self._divided(self._scaled.block_product(k, vector))

    def sharpened(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Linearized`."""
        times = [g * tf.cast(self._scale, g.dtype) for g in gradients]
        return [self._divided(g) for g in self._scaled.sharpened(times)]

    def value_error(self) -> tf.Tensor:
        """See `Linearized`."""
        return self._divided(self._scaled.value_error())

    def gradients_after(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """See `Linearized`."""
        return [self._divided(g) for g in self._scaled.gradients_after(step)]

    def formed(self, k: int) -> Formed:
        """See `Linearized`."""
        found = self._scaled.formed(k)
        return found._replace(matrix=self._divided(found.matrix))

    def low_rank(
        self, max_ranks: Sequence[int], used: Sequence[tf.Tensor | bool]
    ) -> list[RowFactors | None]:
        """See `Linearized`."""
        found = self._scaled.low_rank(max_ranks, used)
        return [None if rows is None else self._of_rows(rows) for rows in found]

    def _of_rows(self, rows: RowFactors) -> RowFactors:
        diagonal = None if rows.diagonal is None else self._divided(rows.diagonal)
        return rows._replace(
            make=lambda: rows.make().times(self._root()),
            diagonal=diagonal,
            coefficients=self._of_coefficients(rows.coefficients),
        )

    def _of_coefficients(
        self, made: Callable[[], tf.Tensor] | None
    ) -> Callable[[], tf.Tensor] | None:
        return None if made is None else lambda: self._root() * made()

    def _root(self) -> tf.Tensor:
        """1/√S, by which rows and their coefficients are multiplied."""
        return tf.math.rsqrt(tf.cast(self._scale, tf.float64))

    def _divided(self, tensor: tf.Tensor) -> tf.Tensor:
        return tensor / tf.cast(self._scale, tensor.dtype)
