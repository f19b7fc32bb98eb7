"""The condition number of a symmetric system, κ₂ = max|λ| / min|λ|, by name of the estimator."""

from __future__ import annotations

import sys
from typing import Protocol

import tensorflow as tf

from keras_qnewton.conditioning import exact, norm_det, shift_invert  # noqa: F401  (registers the estimators)
from keras_qnewton.conditioning.arguments import square_matrix, symmetrised
from keras_qnewton.registry import resolve
from keras_qnewton.types import Array

_LARGEST = sys.float_info.max


class Estimator(Protocol):
    """A way to find κ₂, registered as `@register("condition_number", name)`; see `exact.py`.

    One with an attribute `compiles = False` is refused where XLA compiles the graph.
    """

    def log_condition_number(self, matrix: tf.Tensor) -> tf.Tensor:
        """log κ₂, scalar float64, or Inf if it is singular; NaN is not asked for.

        Args:
            matrix: `[N, N]`, float64, symmetric and finite, max|A| = 1 (or 0). N may be known at
                run time only.
        """
        ...


def condition_number(matrix: Array, method: str = "lanczos") -> tf.Tensor:
    """κ₂ of a symmetric matrix, or a bound on it.

    Computed in float64 whatever the dtype of `matrix`. Runs eagerly and inside a
    `tf.function`; XLA compiles "exact" only (TensorFlow has no LU there).

    Args:
        matrix: `[N, N]`, float32 or float64, symmetric; a tensor or an array.
        method: "lanczos": an estimate from within, usually to 1 % (one factorisation, twice
            run). "exact": all eigenvalues. "norm_det": the upper bound of Piazza & Politi
            (2002), whose looseness grows with N: it is the paper's, see `norm_det.py`.

    Returns:
        Scalar float64, at least 1. Inf for a singular matrix: where "norm_det" meets an
        exactly zero pivot, and where the other two find min|λ| ≤ N·2⁻⁵²·max|λ|, which
        float64 cannot tell from zero. A "norm_det" bound that is finite but beyond float64
        is returned as the largest float64; `log_condition_number` has it in full. NaN if,
        in a graph, `matrix` has NaN or Inf.

    Raises:
        ValueError: If `method` is unknown, or `matrix` is not square or not float32 or
            float64; eagerly also if it is not symmetric or not finite.
    """
    log_kappa = log_condition_number(matrix, method)
    # exp(709.78...) is the last finite one; comparing first keeps rounding from making it Inf.
    saturated = tf.where(log_kappa < 709.78, tf.exp(log_kappa), _LARGEST)
    return tf.where(tf.math.is_finite(log_kappa), saturated, log_kappa)


def estimator_compiles(method: str) -> bool:
    """Whether XLA compiles an estimator, by its registered name."""
    return bool(getattr(resolve("condition_number", method, "method"), "compiles", True))


def log_condition_number(matrix: Array, method: str = "lanczos") -> tf.Tensor:
    """Natural logarithm of `condition_number`, same arguments; scalar float64, at least 0.

    Finite for every matrix that `condition_number` does not call singular, however large κ₂
    or its bound: "norm_det" passes float64's 1.8e308 for ordinary matrices of a few hundred
    rows.
    """
    resolve("condition_number", method, "method")
    return _log_condition_number(square_matrix(matrix), method)


@tf.function(reduce_retracing=True)
def _log_condition_number(matrix: tf.Tensor, method: str) -> tf.Tensor:
    matrix = symmetrised(tf.cast(matrix, tf.float64))
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    # κ does not depend on the scale; with max|A| = 1 no square over- or underflows.
    scaled = tf.math.divide_no_nan(matrix, tf.reduce_max(tf.abs(matrix)))
    # TensorFlow's eigen solver raises on NaN, even in a graph.
    safe = tf.where(finite, scaled, tf.eye(tf.shape(matrix)[0], dtype=tf.float64))
    estimator: Estimator = resolve("condition_number", method, "method")
    log_kappa = estimator.log_condition_number(safe)
    return tf.where(finite, log_kappa, tf.constant(float("nan"), tf.float64))
