"""Checks that the public functions of this package share."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.types import Array

# Largest distance of the two triangles of a "symmetric" matrix, relative to max|A|: room
# for the rounding of a Hessian computed row by row, none for a matrix of another kind.
_ASYMMETRY = {tf.float32: 1e-4, tf.float64: 1e-8}


def square_matrix(matrix: Array, argument: str = "matrix") -> tf.Tensor:
    """`matrix` as a tensor `[N, N]`, float32 or float64, checked as far as can be.

    Shape and dtype are checked always; symmetry and finiteness only when the values are
    known (eagerly), because a graph has no cheap way of raising.

    Raises:
        ValueError: If `matrix` is not square, not float32 or float64, not symmetric, or has
            NaN or Inf.
    """
    matrix = tf.convert_to_tensor(matrix)
    if matrix.dtype not in _ASYMMETRY:
        raise ValueError(
            f"Argument `{argument}` must be float32 or float64. "
            f"Received: {argument} of dtype {matrix.dtype.name}"
        )
    shape = matrix.shape
    if shape.rank not in (None, 2) or (
        shape.rank == 2 and not shape[:1].is_compatible_with(shape[1:])
    ):
        raise ValueError(
            f"Argument `{argument}` must be square, of shape [N, N]. "
            f"Received: {argument} of shape {tuple(shape)}"
        )
    if tf.executing_eagerly():
        _check_values(matrix, argument)
    return matrix


def _check_values(matrix: tf.Tensor, argument: str) -> None:
    if matrix.shape[0] == 0:
        raise ValueError(
            f"Argument `{argument}` must be square and not empty. "
            f"Received: {argument} of shape (0, 0)"
        )
    values = matrix.numpy()
    largest = float(abs(values).max())
    if not largest < float("inf"):  # NaN fails every comparison
        raise ValueError(
            f"Argument `{argument}` must be finite. Received: {argument} with NaN or Inf"
        )
    asymmetry = float(abs(values - values.T).max())
    if asymmetry > _ASYMMETRY[matrix.dtype] * largest:
        raise ValueError(
            f"Argument `{argument}` must be symmetric. Received: {argument} with "
            f"max|A - Aᵀ| = {asymmetry:.3g} and max|A| = {largest:.3g}"
        )


def symmetrised(matrix: tf.Tensor) -> tf.Tensor:
    """(A + Aᵀ) / 2, symmetric to the bit; the very same numbers if A is so already."""
    transposed = tf.linalg.matrix_transpose(matrix)
    return tf.where(matrix == transposed, matrix, matrix / 2 + transposed / 2)
