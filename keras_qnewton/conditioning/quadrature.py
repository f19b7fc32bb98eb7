"""How long the solution of a damped system is, by Gauss quadrature from a few products.

    ‖(M + sI)⁻¹ g‖² / ‖g‖² = Σ_i τ_i² / (θ_i + s)²        θ, τ: T's eigenvalues, and the first
                                                          components of its eigenvectors

T is Lanczos' matrix of M that begins with g. For a positive semidefinite M the sum is never above
the integral that it stands for, and converges to it as fast as conjugate gradients do.

References:
    Golub & Meurant 2010, Matrices, Moments and Quadrature with Applications, chapters 6 and 7.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.conditioning.lanczos import eigen_of_tridiagonal, tridiagonalise
from keras_qnewton.norms import norm

# Products, of which small systems take no more than N.
STEPS = 32


def relative_length(matrix: tf.Tensor, rhs: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """About ``‖(M + sI)⁻¹ g‖ / ‖g‖``, from below; float64 scalar, and 1/s for a `rhs` of zeros.

    Args:
        matrix: M `[N, N]`, positive semidefinite, float64, N static.
        rhs: g `[N]`, float64.
        shift: s, positive, float64 scalar.
    """
    length = norm(rhs)
    start = tf.math.divide_no_nan(rhs, length)
    steps = min(STEPS, int(matrix.shape[0]))
    done, alphas, betas = tridiagonalise(lambda v: tf.linalg.matvec(matrix, v), start, steps)
    number = tf.range(steps)
    # What is beyond the last step has no share of g.
    diagonal = tf.where(number < done, alphas, tf.zeros_like(alphas))
    coupling = tf.where(number + 1 < done, betas, tf.zeros_like(betas))
    values, vectors, _ = eigen_of_tridiagonal(diagonal, coupling)
    # Relative to s, as squares of small numbers vanish.
    shares = vectors[0] / (1.0 + tf.maximum(values, 0.0) / shift)
    return tf.sqrt(tf.reduce_sum(tf.square(shares))) / shift
