"""The step off a saddle point, where the gradient says nothing of the way down.

    λ₁, v    the Hessian's smallest eigenvalue, negative, and its eigenvector      scalar, [N]
    e        about how far rounding moves the loss                                scalar
    c        x's coefficient along v                                              scalar

A step (H² + λ²I)^(-1/2) g has nothing along v where the gradient has nothing: at a saddle point,
and on the way to one from a start that shares a symmetry with it. The loss is then minimised among
the points that have the symmetry. At the saddle x promises a reduction below e, and no loss tells
what it is worth. The model promises a reduction along v all the same, |λ₁| c²/2, which is seen from

    c²  ≥ 2 k e / |λ₁|        k = 2⁸

on. So there x is made to have that coefficient, times |λ₁| (λ₁² + λ²)^(-1/2), which a λ that grows
takes away again. The trial judges it as any step. From then on the gradient has a part along v,
which steps double. Where the loss at the saddle is zero, e is, and x stays as it is.

References:
    Moré & Sorensen 1983, Computing a trust region step, SIAM J. Sci. Stat. Comput. 4, 553-572:
    the hard case, in which a trust region's step is completed along v.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.norms import hypotenuse
from keras_qnewton.solvers.eigen import EigenState

# So many rounding errors of a loss are seen in a difference of two.
_SEEN = 2.0**8
# An eigenvalue of less, relative to N times the largest and the unit round-off, may be rounding.
_CLEAR = 8.0
_EPSILON = {tf.float32: 2.0**-23, tf.float64: 2.0**-52}


def off_a_saddle(
    x: tf.Tensor,
    gradient: tf.Tensor,
    eigen: EigenState,
    damping: tf.Tensor,
    value_error: tf.Tensor,
) -> tf.Tensor:
    """x, or at a saddle point one that leads off it; `[N]`, of x's dtype.

    Args:
        x: The saddle-free step `[N]`, float32 or float64; it is subtracted from the weights.
        gradient: g `[N]`.
        eigen: The Hessian's eigenvalues, ascending, and its eigenvectors.
        damping: λ, float64 scalar.
        value_error: e, float64 scalar; 0 leaves x as it is.
    """
    values = tf.cast(eigen.eigenvalues, tf.float64)
    lowest, v = values[0], eigen.eigenvectors[:, 0]
    largest = tf.maximum(tf.abs(lowest), tf.abs(values[-1]))
    rounding = _CLEAR * int(x.shape[0]) * _EPSILON[x.dtype] * largest
    promised = tf.cast(tf.tensordot(gradient, x, 1), tf.float64)
    at_saddle = (lowest < -rounding) & (promised <= value_error)
    along = tf.cast(tf.tensordot(v, x, 1), tf.float64)
    least = tf.sqrt(2 * _SEEN * value_error / tf.abs(lowest))
    least *= tf.abs(lowest) / hypotenuse(lowest, damping)
    size = tf.maximum(tf.abs(along), least)
    longer = tf.where(along < 0, -size, size) - along
    longer = tf.where(at_saddle, longer, tf.zeros_like(longer))
    return x + tf.cast(longer, x.dtype) * v
