"""Units that are powers of two: systems of any scale, solved near 1 with the same digits.

    A x = b     (A / α) x' = b / β,     x = x' β / α

Squares and products of numbers near the ends of a dtype's range overflow or vanish, and TensorFlow
takes subnormal numbers for zero. To multiply by a power of two changes no digit.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_qnewton.norms import unit

# A matrix whose largest entry is between 2^-_ORDINARY and 2^_ORDINARY is left as it is.
_ORDINARY = 100


def unit_of(tensor: tf.Tensor) -> tf.Tensor:
    """The power of two at the largest entry of `tensor`, scalar; 1 if that is zero, NaN or Inf."""
    found = unit(tensor)
    return tf.where(tf.math.is_finite(found), found, tf.ones_like(found))


def matrix_unit(matrix: tf.Tensor) -> tf.Tensor:
    """`unit_of` a matrix whose entries are of an extraordinary size; 1 of others."""
    found = unit_of(matrix)
    least, most = (tf.constant(2.0**e, matrix.dtype) for e in (-_ORDINARY, _ORDINARY))
    return tf.where((found < least) | (found > most), found, tf.ones_like(found))


def unit_beside(matrix: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """`unit_of` the right-hand side, or 1 beside a matrix so large that a solution would vanish."""
    large = unit_of(matrix) > tf.constant(rhs.dtype.max, rhs.dtype) ** 0.5
    unit_of_rhs = unit_of(rhs)
    return tf.where(large, tf.ones_like(unit_of_rhs), unit_of_rhs)


def exponent_of(array: np.ndarray) -> int:
    """e, where the largest entry is in [2^(e-1), 2^e); 0 for zeros."""
    return int(np.frexp(np.max(np.abs(array)))[1])


def matrix_exponent(matrix: np.ndarray) -> int:
    """e of a matrix that is taken in units of 2^e: 0 if its entries are of an ordinary size."""
    exponent = exponent_of(matrix)
    return 0 if abs(exponent) <= _ORDINARY else exponent
