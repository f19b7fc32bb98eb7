"""Iterative refinement of a factorised solve, residuals in float64.

Each step solves ``A d = b - A x`` with the factors at hand and takes ``x + d``: the residual
shrinks by about κ·u a step, u the unit round-off of the factors, so that one step brings a
float32 factorisation of a moderately conditioned matrix to float32's own limit (Higham 2002,
Accuracy and Stability of Numerical Algorithms, chapter 12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.solvers.checks import relative_norm


def refined(
    apply_inverse: Callable[[Any], Any], matrix: Any, rhs: Any, steps: int
) -> tuple[Any, Any]:
    """``A^-1 b`` after at most `steps` refinements, never worse than without.

    Args:
        apply_inverse: From a tensor `[N]` to the factors' approximation of ``A^-1`` times it.
        matrix: Tensor `[N, N]`, float32 or float64.
        rhs: Tensor `[N]`, same dtype.
        steps: Number of refinements, a Python int: the loop is unrolled.

    Returns:
        The solution `[N]` and its relative residual, scalar float64.
    """
    matrix64, rhs64 = tf.cast(matrix, tf.float64), tf.cast(rhs, tf.float64)

    def gap_of(x: Any) -> Any:
        return rhs64 - tf.linalg.matvec(matrix64, tf.cast(x, tf.float64))

    x = apply_inverse(rhs)
    gap = gap_of(x)
    residual = relative_norm(gap, rhs64)
    for _ in range(steps):
        candidate = x + apply_inverse(tf.cast(gap, rhs.dtype))
        candidate_gap = gap_of(candidate)
        candidate_residual = relative_norm(candidate_gap, rhs64)
        # On a nearly singular matrix refinement can diverge: keep the better of the two.
        better = candidate_residual < residual
        x = tf.where(better, candidate, x)
        gap = tf.where(better, candidate_gap, gap)
        residual = tf.where(better, candidate_residual, residual)
    return x, residual


def check_steps(refinements: int) -> int:
    """`refinements` as an int.

    Raises:
        ValueError: If it is negative or not a whole number.
    """
    if int(refinements) != refinements or refinements < 0:
        raise ValueError(
            "Argument `refinements` must be a whole number, 0 or more. "
            f"Received: refinements={refinements!r}"
        )
    return int(refinements)
