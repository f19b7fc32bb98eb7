"""LAPACK by a host call: what SciPy links is often the fastest factorisation on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.checks import check_matrix, check_rhs, validate
from keras_qnewton.solvers.refinement import RefinedSolver, target
from keras_qnewton.types import Solution

# What a factorisation turned out to be.
_SINGULAR, _CHOLESKY, _LU = 0, 1, 2
# Numbers that are cast to float64 at a time, 1 MB: they stay in the cache.
_CHUNK = 2**17
# Up to so many they are cast once for all residuals, 8 MB.
_KEPT = 2**20


class LapackState(NamedTuple):
    """Factors of A, and which they are.

    Attributes:
        matrix: A, `[N, N]`.
        factors: As `potrf` or `getrf` leaves them, transposed, `[N, N]`.
        pivots: Row interchanges of `getrf`, int32 `[N]`, from 0; zeros for `potrf`.
        kind: Scalar int32: 1 for Cholesky, 2 for LU, 0 for a matrix that is singular or
            not finite.
    """

    matrix: Any
    factors: Any
    pivots: Any
    kind: Any


@register("solver", "lapack")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Lapack(RefinedSolver):
    """``A x = b`` by SciPy's LAPACK: Cholesky if A is positive definite, else LU.

    `potrf` (LAPACK Users' Guide, 3rd edition, section 2.4.1.2) and two `trsv`, in A's own
    precision. Where `potrf` meets a pivot that is not positive, `getrf` and `getrs`: LU with
    partial pivoting. A singular matrix, or one that is not finite, never raises: its solution
    and residual are NaN.

    Runs on the host, eagerly or from a `tf.function`; `solve` is one call, residual and
    refinement included. It neither exports nor compiles with
    XLA: where that is needed, `Cholesky` and `LU` are TensorFlow operations.

    Args:
        refinements: Steps of iterative refinement with float64 residuals, at most.
        tolerance: Relative residual that needs no refinement; None for √u, u the unit round-off
            of the matrix's dtype (2.4e-4 in float32, 1.1e-8 in float64), 0 to refine always.

    Raises:
        ValueError: If `refinements` or `tolerance` is negative.
    """

    name = "lapack"
    host = True
    direct = True

    def init(self, matrix: Any) -> LapackState:
        """Factorises `matrix` `[N, N]`, float32 or float64."""
        matrix = check_matrix(matrix)
        factors, pivots, kind = tf.numpy_function(
            _factorise, [matrix], [matrix.dtype, tf.int32, tf.int32], stateful=False
        )
        return LapackState(
            matrix,
            tf.ensure_shape(factors, matrix.shape),
            tf.ensure_shape(pivots, matrix.shape[:1]),
            tf.ensure_shape(kind, []),
        )

    def compute(self, state: LapackState, rhs: Any) -> Solution:
        """Solves for `rhs` `[N]` with the factors of `init`."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        return self._solution(_refined, [state.matrix, *state[1:], rhs])

    def solve(self, matrix: Any, rhs: Any) -> Solution:
        """`compute` for a fresh `matrix`; see `StagedSolver.solve`."""
        matrix, rhs = validate(matrix, rhs)

        def factorise_and_solve(matrix: np.ndarray, rhs: np.ndarray, *settings: Any) -> Any:
            return _refined(matrix, *_factorise(matrix), rhs, *settings)

        return self._solution(factorise_and_solve, [matrix, rhs])

    def _solution(self, call: Callable[..., Any], arguments: list[Any]) -> Solution:
        rhs = arguments[-1]
        limit = target(self.tolerance, rhs.dtype.as_numpy_dtype)
        x, residual = tf.numpy_function(
            lambda *tensors: call(*tensors, self.refinements, limit),
            arguments,
            [rhs.dtype, tf.float64],
            stateful=False,
        )
        return Solution(tf.ensure_shape(x, rhs.shape), tf.ensure_shape(residual, []), self.name)


def _factorise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.int32]:
    """Factors, pivots and kind of `LapackState`."""
    potrf, getrf = scipy.linalg.get_lapack_funcs(("potrf", "getrf"), (matrix,))
    no_pivots = np.zeros(len(matrix), np.int32)
    # LAPACK's arrays are column-major: the transpose of a symmetric matrix is itself, and
    # neither direction costs a copy beside the one that LAPACK overwrites. OpenBLAS is a fifth
    # faster on the lower triangle.
    factors, info = potrf(matrix.T, lower=True, clean=False)
    kind = _CHOLESKY
    if info != 0:
        factors, no_pivots, info = getrf(matrix.T)
        kind = _LU if info == 0 else _SINGULAR
    # NaN and Inf are undefined to LAPACK, but none of them leaves the diagonal finite.
    if not np.isfinite(factors.diagonal()).all():
        kind = _SINGULAR
    return factors.T, no_pivots.astype(np.int32), np.int32(kind)


def _substitute(
    factors: np.ndarray, pivots: np.ndarray, kind: np.int32, rhs: np.ndarray
) -> np.ndarray:
    """The solution `[N]`, where there are factors."""
    if kind == _CHOLESKY:
        # `potrs` prepares for many right-hand sides: five times slower on one.
        (trsv,) = scipy.linalg.get_blas_funcs(("trsv",), (factors, rhs))
        return trsv(factors.T, trsv(factors.T, rhs, lower=True), lower=True, trans=1)
    (getrs,) = scipy.linalg.get_lapack_funcs(("getrs",), (factors, rhs))
    return getrs(factors.T, pivots, rhs)[0]


def _refined(
    matrix: np.ndarray,
    factors: np.ndarray,
    pivots: np.ndarray,
    kind: np.int32,
    rhs: np.ndarray,
    steps: int,
    limit: float,
) -> tuple[np.ndarray, np.float64]:
    """`refinement.refined` on the host: solution and residual, NaN where there are no factors."""
    failed = np.full_like(rhs, np.nan), np.float64(np.nan)
    if kind == _SINGULAR:
        return failed
    # Overflow and NaN are told by the residual, not by warnings.
    with np.errstate(all="ignore"):
        if matrix.size <= _KEPT:
            matrix = matrix.astype(np.float64, copy=False)
        x = _substitute(factors, pivots, kind, rhs)
        gap = _gap(matrix, x, rhs)
        residual = _relative_norm(gap, rhs)
        for _ in range(steps):
            if not residual > limit:
                break
            candidate = x + _substitute(factors, pivots, kind, gap.astype(rhs.dtype))
            candidate_gap = _gap(matrix, candidate, rhs)
            candidate_residual = _relative_norm(candidate_gap, rhs)
            # On a nearly singular matrix refinement can diverge: keep the better of the two.
            if candidate_residual < residual:
                x, gap, residual = candidate, candidate_gap, candidate_residual
    return failed if np.isnan(residual) else (x, residual)


def _gap(matrix: np.ndarray, x: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """``b - A x`` in float64."""
    # SciPy's BLAS, like LAPACK: NumPy brings another, whose idle threads get in its way.
    gemv = scipy.linalg.blas.dgemv
    x, out = x.astype(np.float64), rhs.astype(np.float64)
    if matrix.dtype == np.float64:
        return gemv(-1.0, matrix.T, x, beta=1.0, y=out, trans=1, overwrite_y=True)
    rows = max(1, _CHUNK // len(matrix))
    for start in range(0, len(matrix), rows):
        chunk = matrix[start : start + rows].astype(np.float64)
        out[start : start + rows] -= gemv(1.0, chunk.T, x, trans=1)
    return out


def _relative_norm(gap: np.ndarray, rhs: np.ndarray) -> np.float64:
    """`checks.relative_norm` on the host."""
    largest = np.max(np.abs(rhs)).astype(np.float64)
    unit = largest if largest > 0 else np.float64(1.0)
    numerator = np.linalg.norm(gap / unit)
    return numerator if numerator == 0 else numerator / np.linalg.norm(rhs / unit)
