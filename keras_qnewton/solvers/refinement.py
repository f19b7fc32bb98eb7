"""Iterative refinement of a factorised solve, residuals in float64.

Each step solves ``A d = b - A x`` with the factors at hand and takes ``x + d``: the residual
shrinks by about κ·u a step, u the unit round-off of the factors, so that one step brings a
float32 factorisation of a moderately conditioned matrix to float32's own limit (Higham 2002,
Accuracy and Stability of Numerical Algorithms, chapter 12).

A refinement reads the matrix and its factors again, which for N below a thousand is a good part
of the factorisation's time: only a residual above a limit is worth it. On a nearly singular
matrix refinement can diverge: the better of two iterates is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.solvers.checks import relative_to


def refined(
    apply_inverse: Callable[[tf.Tensor], tf.Tensor],
    matrix: tf.Tensor,
    rhs: tf.Tensor,
    steps: int,
    limit: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """``A^-1 b`` after at most `steps` refinements, never worse than without.

    Args:
        apply_inverse: From a tensor `[N]` to the factors' approximation of ``A^-1`` times it.
        matrix: Tensor `[N, N]`, float32 or float64.
        rhs: Tensor `[N]`, same dtype.
        steps: Number of refinements, a Python int.
        limit: Relative residual that needs no refinement.

    Returns:
        The solution `[N]` and its relative residual, scalar float64.
    """
    matrix64, rhs64 = tf.cast(matrix, tf.float64), tf.cast(rhs, tf.float64)

    def gap_of(x: tf.Tensor) -> tf.Tensor:
        return rhs64 - tf.linalg.matvec(matrix64, tf.cast(x, tf.float64))

    # Of the right-hand side alone, so that no pass waits for it.
    relative = relative_to(rhs64)
    if not steps:
        x = apply_inverse(rhs)
        return x, relative(gap_of(x))

    def pass_of(
        step: tf.Tensor, x: tf.Tensor, gap: tf.Tensor, residual: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        candidate = x + apply_inverse(tf.cast(gap, rhs.dtype))
        candidate_gap = gap_of(candidate)
        candidate_residual = relative(candidate_gap)
        better = (step == 0) | (candidate_residual < residual)
        return (
            step + 1,
            tf.where(better, candidate, x),
            tf.where(better, candidate_gap, gap),
            tf.where(better, candidate_residual, residual),
        )

    def unfinished(step: tf.Tensor, x: tf.Tensor, gap: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        del x, gap
        # A NaN residual, of a matrix without factors, is not refined: it exceeds nothing.
        return (step == 0) | ((step <= steps) & (residual > limit))

    # The first solve is the loop's first pass, so that its operations are built once.
    start = tf.constant(0), tf.zeros_like(rhs), rhs64, tf.ones([], tf.float64)
    _, x, _, residual = _tf_private.while_loop(unfinished, pass_of, start, parallel_iterations=1)
    return x, residual


def refined_on_host(
    apply_inverse: Callable[[np.ndarray], np.ndarray],
    gap_of: Callable[[np.ndarray], np.ndarray],
    size_of: Callable[[np.ndarray], np.float64],
    rhs: np.ndarray,
    steps: int,
    limit: float,
) -> tuple[np.ndarray, np.float64]:
    """`refined` in NumPy.

    Args:
        apply_inverse: From a vector `[N]` to the factors' approximation of ``A^-1`` times it.
        gap_of: From x to ``b - A x``, float64 `[N]`.
        size_of: From such a gap to its size, a norm in some unit.
        rhs: b `[N]`.
        steps: Number of refinements, at most.
        limit: Size that needs no refinement.

    Returns:
        The solution `[N]` and the size of its gap.
    """
    x = apply_inverse(rhs)
    gap = gap_of(x)
    size = size_of(gap)
    for _ in range(steps):
        # NaN exceeds nothing.
        if not size > limit:
            break
        candidate = x + apply_inverse(gap)
        candidate_gap = gap_of(candidate)
        candidate_size = size_of(candidate_gap)
        if candidate_size < size:
            x, gap, size = candidate, candidate_gap, candidate_size
    return x, size


def target(tolerance: float | None, dtype: type[np.floating]) -> float:
    """The relative residual that needs no refinement: `tolerance`, or √u of a NumPy `dtype`.

    Half of the dtype's digits: a Newton step's error is then far below that of the quadratic
    model it minimises.
    """
    return float(np.sqrt(np.finfo(dtype).eps / 2)) if tolerance is None else tolerance
