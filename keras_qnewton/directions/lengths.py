"""How long a system's solution will be, by that of an attempt before, at another shift.

    T(s) = ‖(H + sI)⁻¹ g‖ / ‖g‖

    all of g in one eigenvector     T(s') = 1 / (1/T(s) - s + s')
    most where H has nothing        T(s') = T(s) s / s'

For the same g and a semidefinite H, T(s') is between the two, and their geometric mean is guessed:
λ grows by factors of 8 from attempt to attempt.
"""

from __future__ import annotations

import tensorflow as tf


def at_shift(last: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """T for the first run and for refinements, float64 `[2]`; zeros where they are not known.

    Args:
        last: Both, and the shift that they are of, float64 `[3]`; negative where they are of
            another right-hand side, as the result is then.
        shift: s', float64 scalar.
    """
    before, earlier = tf.abs(last[:2]), last[2]
    one = tf.ones_like(before)
    curvature = tf.maximum(tf.math.divide_no_nan(one, before) - earlier, 0.0)
    along = tf.math.divide_no_nan(one, curvature + shift)
    flat = before * tf.math.divide_no_nan(earlier, shift)
    found = tf.where(flat > 0, tf.sqrt(along) * tf.sqrt(flat), along)
    known = (before > 0) & tf.math.is_finite(before) & tf.math.is_finite(found)
    return tf.where(known, tf.sign(last[:2]) * found, tf.zeros_like(before))


def left_by(x: tf.Tensor, rhs: tf.Tensor, refined: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """What the next attempt is told, float64 `[3]`.

    Args:
        x: The solution `[N]`, by whichever route, float64.
        rhs: g `[N]`, float64.
        refined: T of refinements, float64 scalar; of residuals, which are never the same.
        shift: s, float64 scalar.
    """
    length = tf.math.divide_no_nan(tf.norm(x), tf.norm(rhs))
    length = tf.where(tf.math.is_finite(length), length, tf.zeros_like(length))
    return tf.stack([length, -tf.abs(refined), shift])


def of_another_gradient(lengths: tf.Tensor) -> tf.Tensor:
    """What the next step is told of the last attempt's, float64 `[3]`."""
    return tf.stack([-tf.abs(lengths[0]), -tf.abs(lengths[1]), lengths[2]])
