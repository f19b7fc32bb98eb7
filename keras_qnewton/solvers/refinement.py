"""Iterative refinement of a factorised solve, residuals in float64.

Each step solves ``A d = b - A x`` with the factors at hand and takes ``x + d``: the residual
shrinks by about κ·u a step, u the unit round-off of the factors, so that one step brings a
float32 factorisation of a moderately conditioned matrix to float32's own limit (Higham 2002,
Accuracy and Stability of Numerical Algorithms, chapter 12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.checks import relative_norm
from keras_qnewton.solvers.staged import StagedSolver


def refined(
    apply_inverse: Callable[[Any], Any],
    matrix: Any,
    rhs: Any,
    steps: int,
    tolerance: float | None = None,
) -> tuple[Any, Any]:
    """``A^-1 b`` after at most `steps` refinements, never worse than without.

    A refinement reads the matrix and its factors again, which for N below a thousand is a good
    part of the factorisation's time: only a residual above `tolerance` is worth it.

    Args:
        apply_inverse: From a tensor `[N]` to the factors' approximation of ``A^-1`` times it.
        matrix: Tensor `[N, N]`, float32 or float64.
        rhs: Tensor `[N]`, same dtype.
        steps: Number of refinements, a Python int: the loop is unrolled.
        tolerance: See `target`.

    Returns:
        The solution `[N]` and its relative residual, scalar float64.
    """
    matrix64, rhs64 = tf.cast(matrix, tf.float64), tf.cast(rhs, tf.float64)

    def gap_of(x: Any) -> Any:
        return rhs64 - tf.linalg.matvec(matrix64, tf.cast(x, tf.float64))

    def improved(x: Any, gap: Any, residual: Any) -> tuple[Any, Any, Any]:
        candidate = x + apply_inverse(tf.cast(gap, rhs.dtype))
        candidate_gap = gap_of(candidate)
        candidate_residual = relative_norm(candidate_gap, rhs64)
        # On a nearly singular matrix refinement can diverge: keep the better of the two.
        better = candidate_residual < residual
        return (
            tf.where(better, candidate, x),
            tf.where(better, candidate_gap, gap),
            tf.where(better, candidate_residual, residual),
        )

    x = apply_inverse(rhs)
    gap = gap_of(x)
    state = x, gap, relative_norm(gap, rhs64)
    limit = target(tolerance, rhs.dtype.as_numpy_dtype)
    for _ in range(steps):
        # A NaN residual, of a matrix without factors, stays one.
        state = tf.cond(state[2] > limit, lambda now=state: improved(*now), lambda now=state: now)
    x, _, residual = state
    return x, residual


def target(tolerance: float | None, dtype: Any) -> float:
    """The relative residual that needs no refinement: `tolerance`, or √u of a NumPy `dtype`.

    Half of the dtype's digits: a Newton step's error is then far below that of the quadratic
    model it minimises.
    """
    return float(np.sqrt(np.finfo(dtype).eps / 2)) if tolerance is None else tolerance


class RefinedSolver(StagedSolver):
    """A factorisation and its iterative refinement: the settings that all such solvers have.

    Args:
        refinements: Steps of iterative refinement, at most.
        tolerance: Relative residual that needs no refinement; see `target`.

    Raises:
        ValueError: If `refinements` or `tolerance` is negative.
    """

    def __init__(self, refinements: int = 1, tolerance: float | None = None):
        if int(refinements) != refinements or refinements < 0:
            raise ValueError(
                "Argument `refinements` must be a whole number, 0 or more. "
                f"Received: refinements={refinements!r}"
            )
        # Written so that NaN is refused.
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(
                "Argument `tolerance` must be None or a number, 0 or more. "
                f"Received: tolerance={tolerance!r}"
            )
        self.refinements = int(refinements)
        self.tolerance = None if tolerance is None else float(tolerance)

    def get_config(self) -> dict[str, Any]:
        return {"refinements": self.refinements, "tolerance": self.tolerance}
