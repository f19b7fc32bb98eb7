"""Terms of the table in which elements of z meet: log-sum-exp, log-softmax, norms.

C = Q diag(μ) Qᵀ of each row of z, by tapes and an eigendecomposition      [m, m]
s_r = √μ_r q_r
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.outputs.base import (
    MAX_OUTPUTS,
    ConvexPart,
    OutputCurvature,
    RuleOfTable,
)


class RowByRow(RuleOfTable):
    """Elements of a row of z meet."""

    def curvature(self, part: ConvexPart) -> OutputCurvature:
        """C by tapes."""
        return CurvatureOfRows(part, together=False)


class AllTogether(RowByRow):
    """The same where all elements of z meet."""

    def curvature(self, part: ConvexPart) -> OutputCurvature:
        """C by tapes."""
        return CurvatureOfRows(part, together=True)


class CurvatureOfRows(OutputCurvature):
    """C of each row of z, or of all its elements together, negative eigenvalues cut off at zero.

    Args:
        part: The terms.
        together: Whether all elements meet, which makes of z a single example.
    """

    def __init__(self, part: ConvexPart, together: bool):
        z = part.z
        with _tf_private.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._tape:
            self._tape.watch(z)
            self._slope = part.gradient_of_terms(z)
        super().__init__(z, part.gradient(), part.dtype)
        self.one_example = together
        size = z.shape.num_elements() if together else z.shape[-1]
        self._factor = None if size is None or size > MAX_OUTPUTS else self._factors(int(size))

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """C v, of the shape of z."""
        if self._factor is None:
            return self._along(vector)
        rows = tf.reshape(vector, [-1, self._factor.shape[1]])
        inner = tf.linalg.matvec(self._factor, rows, transpose_a=True)
        return tf.reshape(tf.linalg.matvec(self._factor, inner), tf.shape(self.z))

    def roots(self) -> tf.Tensor | None:
        """√μ_r q_r of each row of an example, zero on its other rows, `[R, *z.shape]`."""
        if self._factor is None:
            return None
        size = int(self._factor.shape[1])
        if self.one_example:
            return tf.reshape(tf.transpose(self._factor[0]), [size, *self.z.shape])
        each = self.z.shape[1:-1].num_elements() if self.z.shape.rank > 1 else 1
        if each is None or each * size > MAX_OUTPUTS:
            return None
        factor = tf.reshape(self._factor, [-1, each, size, size])
        roots = tf.einsum("pt,btmr->prbtm", tf.eye(each, dtype=factor.dtype), factor)
        return tf.reshape(roots, tf.concat([[each * size], tf.shape(self.z)], 0))

    def _along(self, direction: tf.Tensor) -> tf.Tensor:
        return self._tape.gradient(self._slope, self.z, direction, unconnected_gradients="zero")

    def _factors(self, size: int) -> tf.Tensor:
        """Q √μ of each row, `[rows, m, r]`."""
        shape, rows = tf.shape(self.z), tf.size(self.z) // size

        def column(unit: tf.Tensor) -> tf.Tensor:
            direction = tf.reshape(tf.broadcast_to(unit, [rows, size]), shape)
            return tf.reshape(self._along(direction), [-1, size])

        columns = _tf_private.vectorized_map(column, tf.eye(size, dtype=self.z.dtype))
        matrices = tf.transpose(columns, [1, 2, 0])
        values, vectors = tf.linalg.eigh((matrices + tf.linalg.matrix_transpose(matrices)) / 2)
        return tf.ensure_shape(
            vectors * tf.sqrt(tf.nn.relu(values))[:, None, :], [None, size, size]
        )
