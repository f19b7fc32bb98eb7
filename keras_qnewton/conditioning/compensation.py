"""Pruning's loss at the small end of a spectrum, given back on the diagonal.

    D    diagonal of |H_ii|
    μ    max(0, min(0, λ_min(D^(-1/2) H D^(-1/2))) - λ_min(D^(-1/2) P D^(-1/2)))
    P + μ D  ⪰  min(0, λ_min(D^(-1/2) H D^(-1/2))) D        positive semidefinite if H is

A shift by a multiple of I would do the same, but the multiple is set by the heaviest rows and
is felt by the lightest: a step on digits at the paper's settings is then mostly shift. In
proportion to the diagonal (Marquardt 1963) it does not depend on how the weights are scaled.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.conditioning.lanczos import extremal_eigenvalues

# λ_min of a pruned block of 1,040 weights is known to 1e-4 of itself by then.
_LANCZOS_STEPS = 60
# Diagonal entries below this, relative to the largest, are rounding of float32.
_NEGLIGIBLE = 1e-6


def compensated(matrix: tf.Tensor, pruned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """P + μ D and μ.

    Args:
        matrix: H, `[N, N]`, symmetric.
        pruned: P, the same with entries dropped, not on the diagonal.

    Returns:
        `[N, N]` of P's dtype, and μ, scalar float64; P itself where nothing was lost.
    """
    magnitudes = tf.abs(tf.cast(tf.linalg.diag_part(matrix), tf.float64))
    scales = tf.maximum(magnitudes, _NEGLIGIBLE * tf.reduce_max(magnitudes))
    roots = tf.sqrt(scales)

    def smallest(a: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Its rows are sized in one go: two N² products, no N³.
        a = tf.cast(a, tf.float64)
        scaled = tf.math.divide_no_nan(a, roots[:, None] * roots[None, :])
        found = extremal_eigenvalues(scaled, iterations=_LANCZOS_STEPS)
        return found.lambda_min, found.residual_min

    # A Ritz value is never below the eigenvalue: too large for H, so that μ errs upwards.
    before = tf.minimum(smallest(matrix)[0], 0.0)
    ritz, error = smallest(pruned)
    lost = tf.maximum(before - (ritz - error), 0.0)
    diagonal = tf.cast(tf.linalg.diag_part(pruned), tf.float64) + lost * scales
    return tf.linalg.set_diag(pruned, tf.cast(diagonal, pruned.dtype)), lost
