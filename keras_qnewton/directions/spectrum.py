"""Functions of a block and of its spectrum's ends: bounds, κ, and the count of non-zeros."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum

LANCZOS_STEPS = 20
# The large end is found first.
LARGE_END_STEPS = LANCZOS_STEPS // 2
# From this N on rows are counted a few at a time: all would be two more arrays of N² numbers.
_LARGE, _ROWS = 2048, 32


def full_products(spectrum: Spectrum, matrix: tf.Tensor, part: float = 1.0) -> tf.Tensor:
    """How many products with a float64 matrix take as long as `spectrum` did; float64 scalar.

    Args:
        spectrum: Of `matrix`, by products in its precision.
        matrix: `[N, N]`.
        part: Of the matrix that a product reads: a product takes as long as that.
    """
    return spectrum.products * (part * matrix.dtype.size / tf.float64.size)


def row_nonzeros(matrix: tf.Tensor, shifted: bool = False) -> tf.Tensor:
    """d of `matrix` `[N, N]`, or of it with a shift on its diagonal; float64 scalar."""

    def largest_count(rows: tf.Tensor, diagonal: tf.Tensor) -> tf.Tensor:
        # `tf.math.count_nonzero` takes up to twice as long: it counts in int64.
        nonzero = tf.cast(tf.not_equal(rows, 0), tf.float32)
        counts = tf.cast(tf.reduce_sum(nonzero, axis=1), tf.int32)
        if shifted:
            counts += tf.cast(tf.equal(diagonal, 0), tf.int32)
        return tf.reduce_max(counts)

    size, diagonal = matrix.shape[0], tf.linalg.diag_part(matrix)
    if size is None or size <= _LARGE:
        return tf.cast(largest_count(matrix, diagonal), tf.float64)

    def some(start: tf.Tensor) -> tf.Tensor:
        rows = tf.slice(matrix, [start, 0], [_ROWS, size])
        return largest_count(rows, tf.slice(diagonal, [start], [_ROWS]))

    # Where the last rows overlap with those before, they count as much as they did.
    starts = tf.minimum(tf.range(0, size, _ROWS), size - _ROWS)
    return tf.cast(tf.reduce_max(tf.map_fn(some, starts, parallel_iterations=2)), tf.float64)


def largest(spectrum: Spectrum) -> tf.Tensor:
    """Upper bound of the largest |eigenvalue|, float64 scalar."""
    return tf.maximum(
        tf.abs(spectrum.lambda_min - spectrum.residual_min),
        tf.abs(spectrum.lambda_max + spectrum.residual_max),
    )


def semidefinite_spectrum(spectrum: Spectrum, lowest: tf.Tensor) -> Spectrum:
    """The spectrum of a matrix that is positive semidefinite, but for rounding.

    Lanczos finds the small end of a spectrum late, and its error bound there would be added to
    every shift: known to be zero, it costs nothing.

    Args:
        spectrum: Only its large end is right.
        lowest: What rounding can make of the eigenvalue 0, float64 scalar.
    """
    return spectrum._replace(lambda_min=lowest, residual_min=tf.zeros_like(lowest))


def condition_estimate(spectrum: Spectrum, shift: tf.Tensor) -> tf.Tensor:
    """κ(H + s I) by Ritz values, given that the shift made it positive definite; from below.

    A Ritz value is nearer to its eigenvalue than its residual says, by r² over the gap to the next
    (Parlett, section 11.7): bounds by the residual, which a shift must have, make
    κ many times too large where λ is small.
    """
    return (spectrum.lambda_max + shift) / (spectrum.lambda_min + shift)
