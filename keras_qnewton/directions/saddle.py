"""The step off a saddle point, where the gradient says nothing of the way down.

    λ₁, v    the Hessian's smallest eigenvalue, negative, and its eigenvector      scalar, [N]
    e        about how far rounding moves the loss                                scalar
    ℓ        length of the weights; 1 where they are zero                         scalar
    c        x's coefficient along v                                              scalar

A step (H² + λ²I)^(-1/2) g has nothing along v where the gradient has nothing: at a saddle point,
and on the way to one from a start that shares a symmetry with it. The loss is then minimised among
the points that have the symmetry. At the saddle x promises a reduction below e, and no loss tells
what it is worth. The model promises a reduction along v all the same, |λ₁| c²/2, which is seen from

    c²  ≥ 2 k e / |λ₁|        k = 2⁸

on. So there x is made to have that coefficient, times |λ₁| (λ₁² + λ²)^(-1/2), which a λ that grows
takes away again. The trial judges it as any step. From then on the gradient has a part along v,
which steps double.

Where the loss at the saddle is zero, e tells nothing. A loss that bends as λ₁ does over the length
of the weights is about |λ₁| ℓ²/2, and e is taken for that loss's rounding.

References:
    Moré & Sorensen 1983, Computing a trust region step, SIAM J. Sci. Stat. Comput. 4, 553-572:
    the hard case, in which a trust region's step is completed along v.
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.norms import double_norm, hypotenuse
from keras_qnewton.solvers.eigen import EigenState

# So many rounding errors of a loss are seen in a difference of two.
_SEEN = 2.0**8
# An eigenvalue of less, relative to N times the largest and the unit round-off, may be rounding.
_CLEAR = 8.0
_EPSILON = {tf.float32: 2.0**-23, tf.float64: 2.0**-52}


def off_a_saddle(
    x: tf.Tensor, problem: BlockProblem, eigen: EigenState, damping: tf.Tensor
) -> tf.Tensor:
    """x, or at a saddle point one that leads off it; `[N]`, of x's dtype.

    Args:
        x: The saddle-free step `[N]`, float32 or float64; it is subtracted from the weights.
        problem: The block, with its gradient g, and its weights and e; without these x stays.
        eigen: The Hessian's eigenvalues, ascending, and its eigenvectors.
        damping: λ, float64 scalar.
    """
    error, weights = problem.value_error, problem.weights
    if error is None or weights is None:
        return x
    values = tf.cast(eigen.eigenvalues, tf.float64)
    lowest, v = values[0], eigen.eigenvectors[:, 0]
    largest = tf.maximum(tf.abs(lowest), tf.abs(values[-1]))
    rounding = _CLEAR * int(x.shape[0]) * _EPSILON[x.dtype] * largest
    promised = tf.cast(tf.tensordot(problem.gradient, x, 1), tf.float64)
    at_saddle = (lowest < -rounding) & (promised <= error)
    along = tf.cast(tf.tensordot(v, x, 1), tf.float64)
    # 2 e / |λ₁|, as a length.
    length = tf.where(
        error > 0,
        tf.sqrt(2 * error / tf.abs(lowest)),
        math.sqrt(_EPSILON[x.dtype]) * _length_of(weights),
    )
    least = math.sqrt(_SEEN) * length * tf.abs(lowest) / hypotenuse(lowest, damping)
    size = tf.maximum(tf.abs(along), least)
    longer = tf.where(along < 0, -size, size) - along
    longer = tf.where(at_saddle, longer, tf.zeros_like(longer))
    return x + tf.cast(longer, x.dtype) * v


def _length_of(weights: tf.Tensor) -> tf.Tensor:
    """ℓ, float64 scalar."""
    length = double_norm(weights)
    return tf.where(length > 0, length, tf.ones_like(length))
