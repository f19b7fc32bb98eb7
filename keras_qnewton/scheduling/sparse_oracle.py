"""α of the oracle that published query counts are charged with here."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import Scalar


def of_sparse_oracle(matrix: tf.Tensor, norm: tf.Tensor, sparsity: Scalar) -> tf.Tensor:
    """d max|a| / ‖A‖₂, at least 1 (Gilyén et al. 2018, arXiv:1806.01838, lemma 48).

    Args:
        matrix: A `[N, N]`.
        norm: ‖A‖₂, scalar float64.
        sparsity: d.
    """
    largest = tf.reduce_max(tf.abs(tf.cast(matrix, tf.float64)))
    return tf.maximum(float64(sparsity) * tf.math.divide_no_nan(largest, norm), 1.0)
