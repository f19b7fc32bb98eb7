"""What a direction has to know of its block: the ends of the spectrum, κ, and d."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum
from keras_qnewton.directions.block_step import Keep

LANCZOS_STEPS = 20


def kept_spectrum(keep: Keep, compute: Callable[[], Spectrum]) -> tuple[Spectrum, tf.Tensor]:
    """The spectrum, and whether it is new."""
    (ends,), new = keep("spectrum", lambda: (tf.stack(compute()),))
    return Spectrum(*tf.unstack(ends, len(Spectrum._fields))), new


def products_of(steps: int, matrix: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Lanczos steps in products with a float64 matrix, none if it was spared; float64 scalar."""
    # A product takes as long as the matrix takes to be read.
    made = min(steps, int(matrix.shape[0])) * matrix.dtype.size / tf.float64.size
    return tf.where(new, tf.constant(made, tf.float64), tf.zeros([], tf.float64))


def row_nonzeros(matrix: tf.Tensor, shifted: bool = False) -> tf.Tensor:
    """d of `matrix`, or of it with a shift on its diagonal."""
    # `tf.math.count_nonzero` takes up to twice as long: it counts in int64.
    nonzero = tf.cast(tf.not_equal(matrix, 0), tf.float32)
    counts = tf.cast(tf.reduce_sum(nonzero, axis=1), tf.int32)
    if shifted:
        counts += tf.cast(tf.equal(tf.linalg.diag_part(matrix), 0), tf.int32)
    return tf.cast(tf.reduce_max(counts), tf.float64)


def largest(spectrum: Any) -> tf.Tensor:
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


def condition_bound(spectrum: Any, shift: tf.Tensor) -> tf.Tensor:
    """Upper bound of κ(H + s I), given that the shift made it positive definite."""
    highest = spectrum.lambda_max + spectrum.residual_max + shift
    lowest = spectrum.lambda_min - spectrum.residual_min + shift
    return highest / lowest
