"""`norm_det`: the upper bound on κ₂ from the Frobenius norm and the determinant.

G. Piazza and T. Politi, "An upper bound for the condition number of a matrix in spectral
norm", J. Comput. Appl. Math. 143 (2002): with T = (n/‖A‖_F²)^n · det(A)² in (0, 1],

    κ₂(A) ≤ (1 + √(1 - T)) / √T.

T underflows float64 already at n of a few dozen, so everything is done with t = log T:
log κ₂ ≤ log(1 + √(-expm1(t))) - t/2.

The bound is true and, for n > 2, loose: t sums n terms, so its logarithm grows linearly with
n. At n = 1024 a matrix of κ₂ = 1e4 can read 1e2285. Do not schedule by it alone.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.registry import register


@register("condition_number", "norm_det")
class NormDet:
    """The norm and determinant bound; costs one LU."""

    compiles = False  # XLA has no LU

    def log_condition_number(self, matrix: tf.Tensor) -> tf.Tensor:
        """An upper bound of log κ₂; `matrix` `[N, N]` float64, symmetric, finite.

        Scalar float64. Finite unless the elimination meets an exactly zero pivot. Round-off
        is allowed for (by at most 0.05 % of κ), so that the bound holds also where it is
        attained: multiples of orthogonal matrices, every 2 × 2 matrix, any spectrum with all
        σ² but the two end ones at the mean of those two.
        """
        n = tf.cast(tf.shape(matrix)[0], tf.float64)
        # With A / (‖A‖_F / √n) the term n log(n/‖A‖_F²) is zero: no cancellation.
        scale = tf.sqrt(tf.reduce_sum(tf.reduce_sum(matrix**2, axis=1)) / n)
        _, log_determinant = tf.linalg.slogdet(tf.math.divide_no_nan(matrix, scale))
        t = tf.minimum(2 * log_determinant, 0.0)

        # Rounding of t. Summing squares row by row: at most n·(2n)·2⁻⁵³. The elimination is
        # exact for some A + E, in practice ‖E‖_F ≤ n·2⁻⁵²·‖A‖_F, so log|det| is off by up to
        # |tr(A⁻¹E)| ≤ n²·2⁻⁵²·κ₂; adding n logarithms of pivots: n²·2⁻⁵² times their size, of
        # order 1 here. Together below 8n²·2⁻⁵²·κ₂, with the bound itself for κ₂. The cap bites
        # where the bound is loose by more than any rounding, or where κ₂ is so large that
        # float64 eigenvalues would not confirm the last digits either.
        log_rounding = tf.math.log(8 * n**2 * 2.0**-52)
        t -= tf.minimum(tf.exp(tf.minimum(log_rounding + _log_bound(t), 0.0)), 1e-3)
        return _log_bound(t)


def _log_bound(t: tf.Tensor) -> tf.Tensor:
    return tf.math.log1p(tf.sqrt(-tf.math.expm1(t))) - t / 2
