"""The paper's regularisation."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.conditioning.arguments import square_matrix
from keras_qnewton.types import Array, Scalar


def regularize(matrix: Array, epsilon: Scalar = 5e-3) -> tf.Tensor:
    """H + ε·max|H|·I: a shift in proportion to the largest entry.

    It lowers κ where H is positive semidefinite. It says nothing about negative eigenvalues,
    which may be larger than the shift: damping is there for those.

    Args:
        matrix: H, `[N, N]`, float32 or float64, symmetric; a tensor or an array.
        epsilon: ε ≥ 0, a number or a scalar tensor. 5e-3 is the default of the paper's code.

    Returns:
        `[N, N]`, dtype of `matrix`; off the diagonal the very same numbers.

    Raises:
        ValueError: If `matrix` is not square or not float32 or float64; eagerly also if it is
            not symmetric or not finite, or if `epsilon` is negative or not finite.
    """
    matrix = square_matrix(matrix)
    if not tf.is_tensor(epsilon):
        if not 0 <= epsilon < float("inf"):
            raise ValueError(
                "Argument `epsilon` must be a finite number, at least 0. "
                f"Received: epsilon={epsilon}"
            )
        # `tf.cast` would make a float32 of a Python float first.
        epsilon = tf.constant(epsilon, matrix.dtype)
    shift = tf.cast(epsilon, matrix.dtype) * tf.reduce_max(tf.abs(matrix))
    return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift)
