"""Norms of numbers of any size: no square overflows or vanishes.

    ‖x‖ = u ‖x/u‖        u the largest power of two that is at most max|x|

Division by a power of two is exact, so that the result is to the bit what squares of x give,
where those are in range.

References:
    Blue 1978, ACM TOMS 4(1), 15-23 (scaled norms; those of the BLAS's nrm2).
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.traced_once import traced_once

# Bits that hold a number's exponent, and integers of its size.
_EXPONENT = {tf.float32: (tf.int32, 0x7F800000), tf.float64: (tf.int64, 0x7FF0000000000000)}


def power_of_two(number: tf.Tensor) -> tf.Tensor:
    """The largest power of two that is at most |x|, elementwise; 1 for 0 and for denormal x.

    Args:
        number: Tensor, float32 or float64. Of Inf and NaN it is Inf.
    """
    integers, exponent = _EXPONENT[number.dtype]
    bits = tf.bitwise.bitwise_and(tf.bitcast(number, integers), tf.constant(exponent, integers))
    power = tf.bitcast(bits, number.dtype)
    return tf.where(power > 0, power, tf.ones_like(power))


@traced_once
def unit(tensor: tf.Tensor) -> tf.Tensor:
    """`power_of_two` of the largest magnitude in `tensor`, scalar."""
    return power_of_two(tf.reduce_max(tf.abs(tensor)))


@traced_once
def norm(tensor: tf.Tensor) -> tf.Tensor:
    """Euclidean (Frobenius's) norm, scalar; NaN if the tensor has NaN or Inf.

    Of the tensor's dtype; float32 of a half-precision one.
    """
    if tensor.dtype not in _EXPONENT:
        tensor = tf.cast(tensor, tf.float32)
    u = unit(tensor)
    return u * plain_norm(tensor / u)


@traced_once
def double_norm(tensor: tf.Tensor) -> tf.Tensor:
    """Euclidean norm, float64 scalar; squares of shorter floats are in float64's range."""
    return norm(tensor) if tensor.dtype == tf.float64 else plain_norm(tf.cast(tensor, tf.float64))


def norms_of_rows(matrix: tf.Tensor) -> tf.Tensor:
    """`norm` of each row of `[n, k]`, float32 or float64, `[n]`."""
    u = power_of_two(tf.reduce_max(tf.abs(matrix), 1))
    return u * tf.sqrt(tf.reduce_sum(tf.square(matrix / u[:, None]), 1))


def plain_norm(tensor: tf.Tensor) -> tf.Tensor:
    """Euclidean norm, scalar, of numbers whose squares are in range.

    `tf.norm` is the same by twice as many operations.
    """
    return tf.sqrt(2 * tf.nn.l2_loss(tensor))


def hypotenuse(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """√(a² + b²), elementwise, of tensors of one dtype that broadcast."""
    u = power_of_two(tf.maximum(tf.abs(a), tf.abs(b)))
    return u * tf.sqrt((a / u) ** 2 + (b / u) ** 2)
