"""What reading a solution costs: R circuits, as `solvers.Shots` and refinement run them.

    R = Σ_k N' / (4 ε₀² p_k)      over the runs k = 1 … K,  N' = 2^⌈log₂ N⌉,  K = ⌈ln ε / ln ε₀⌉

Each run reads a solution to a relative error ε₀ from its own shots, failures included, and the
next one solves for the residual: K of them reach ε, where a single one would take N'/ε². `Shots`
has an error of √(N'/4Mp) for M shots, p of which succeed, and wants ten successes an amplitude:
ε₀ ≤ 0.158.

p depends on the right-hand side. It is that of a residual from the second run on, and those are
all alike: what is left of x is the readout's noise e, which has no direction, so that

    p = (s α ‖e‖ / ‖A e‖)² ≈ (s κ)² N ‖A‖₂² / (κ² ‖A‖_F²),        s κ ≈ 0.55,  s the circuit's scale

(`success_of_noise`). The first right-hand side may well have a p ten times as large, as it leans to
large eigenvalues less; one run of K is overpriced then.
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_qnewton.scheduling.numbers import float64, qubits
from keras_qnewton.types import Scalar

# √(1/40): ten successes an amplitude, below which `Shots` is not confident.
LARGEST_ERROR = math.sqrt(1 / 40)
# With larger ones half of the solves, or more, do not get to ε: their refinement stops before.
MOST_ERROR = 0.2
# s κ of QSVT's polynomials: 0.50 to 0.66 at ε = 1e-3, 0.55 to 0.75 at 1e-2.
_SCALE = 0.55


def success_of_noise(condition_number: Scalar, norms: Scalar | None = None) -> tf.Tensor:
    """p of a run that solves for what a readout's noise left, scalar float64.

    Args:
        condition_number: κ.
        norms: ‖A‖_F² / (N ‖A‖₂²), in [1/N, 1]; None for that of evenly spaced eigenvalues.
    """
    kappa = float64(condition_number)
    spread = (1 + 1 / kappa + 1 / kappa**2) / 3 if norms is None else float64(norms)
    return tf.minimum(tf.square(_SCALE / kappa) / spread, 1.0)


def repetitions(
    size: Scalar,
    epsilon: Scalar,
    success: Scalar,
    shots: int | None = None,
    max_runs: int | None = None,
) -> tf.Tensor:
    """R, scalar float64; Inf for a number of shots that cannot reach ε.

    Args:
        size: N.
        epsilon: ε, relative error of the solution.
        success: p of a run.
        shots: Of each run; None for as many as ε₀ = 0.158 takes.
        max_runs: The most that are made; None for any number.
    """
    amplitudes = tf.pow(tf.constant(2.0, tf.float64), qubits(size))
    if shots is None:
        each = amplitudes / (4 * LARGEST_ERROR**2 * float64(success))
        error = tf.constant(LARGEST_ERROR, tf.float64)
    else:
        each = float64(shots)
        error = tf.sqrt(amplitudes / (4 * each * float64(success)))
    # A fraction of a run is a run; rounding must not make one more of a whole number.
    runs = tf.math.ceil(
        tf.math.log(float64(epsilon)) / tf.math.log(tf.minimum(error, 0.999)) - 1e-9
    )
    runs = tf.maximum(runs, 1.0)
    possible = error <= MOST_ERROR
    if max_runs is not None:
        possible &= runs <= max_runs
    return tf.where(possible, runs * each, tf.constant(math.inf, tf.float64))
