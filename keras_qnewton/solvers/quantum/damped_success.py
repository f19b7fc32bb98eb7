"""Success probability of a circuit for damped least squares, by the lengths of its vectors.

    from |g⟩    p = (0.99 λ ‖x‖/‖g‖)²             the headroom of an even polynomial
    from |c⟩    p = (0.9 m √λ ‖x‖/‖c‖)²           that of an odd one
                m = 2 for μ ≤ 1, else μ + 1/μ     μ x/(x² + μ²) is 1/m at most on [0, 1]

with x = (UᵀU + λI)⁻¹ g, g = Uᵀc and μ = √λ/α. ‖x‖ is in both alike: ‖g‖ and ‖c‖ alone say which
start is likelier.

Source: `transforms`, whose polynomials are scaled so.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.solvers.arrays import Scalar
from keras_qnewton.solvers.quantum.circuit_depth import float64
from keras_qnewton.solvers.quantum.transforms import BOUNDED_HEADROOM, HEADROOM


def success_probability(
    length: Scalar, damping: Scalar, root: Scalar, gradient: Scalar, residuals: Scalar
) -> tf.Tensor:
    """p of the likelier start, scalar float64; see `types.RowSolver.success` for the arguments."""
    from_gradient = tf.square(BOUNDED_HEADROOM * float64(damping) * float64(length))
    better = tf.maximum(relative_success(damping, root, gradient, residuals), 1.0)
    return tf.minimum(from_gradient * better, 1.0)


def relative_success(
    damping: Scalar, root: Scalar, gradient: Scalar, residuals: Scalar
) -> tf.Tensor:
    """p from |c⟩ over p from |g⟩, scalar float64; 0 where no c is known.

    Args:
        damping: λ.
        root: μ.
        gradient: ‖g‖.
        residuals: ‖c‖; zero where none is known.
    """
    root = float64(root)
    largest = tf.where(root <= 1.0, tf.constant(2.0, tf.float64), root + 1 / root)
    share = tf.math.divide_no_nan(float64(gradient), float64(residuals))
    ratio = (HEADROOM / BOUNDED_HEADROOM) * largest * share * tf.math.rsqrt(float64(damping))
    return tf.square(ratio)
