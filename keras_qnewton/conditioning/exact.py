"""`exact`: κ₂ from all eigenvalues."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.registry import register


@register("condition_number", "exact")
class Exact:
    """max|λ| / min|λ| from `tf.linalg.eigvalsh`, three to five times the cost of an LU.

    Also the one estimator that XLA compiles.
    """

    def log_condition_number(self, matrix: tf.Tensor) -> tf.Tensor:
        """log κ₂, scalar float64; `matrix` `[N, N]` float64, symmetric, finite.

        Inf when min|λ| is within rounding of zero, see `log_ratio`.
        """
        magnitudes = tf.abs(tf.linalg.eigvalsh(matrix))
        return log_ratio(tf.reduce_max(magnitudes), tf.reduce_min(magnitudes), tf.shape(matrix)[0])


def log_ratio(largest: tf.Tensor, smallest: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """log(largest / smallest), or Inf where `smallest` cannot be told from zero.

    A backward-stable eigenvalue is known to N·2⁻⁵²·max|λ| at best: below that the matrix is
    singular as far as float64 can tell (the rule of `numpy.linalg.matrix_rank`).
    """
    resolution = tf.cast(size, tf.float64) * 2.0**-52 * largest
    ratio = tf.math.divide_no_nan(largest, smallest)
    infinity = tf.constant(float("inf"), tf.float64)
    return tf.where(smallest > resolution, tf.math.log(tf.maximum(ratio, 1.0)), infinity)
