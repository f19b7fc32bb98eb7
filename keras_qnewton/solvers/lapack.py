"""LAPACK by a host call: SciPy's is often the fastest factorisation on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import TensorLike
from keras_qnewton.solvers.checks import validate
from keras_qnewton.solvers.factorised import HostAnswer, HostFactorisedSolver
from keras_qnewton.solvers.refinement import refined_on_host
from keras_qnewton.solvers.scaling import unit_beside
from keras_qnewton.types import Solution

# Kinds of factors.
_SINGULAR, _CHOLESKY, _LU = 0, 1, 2
# Numbers that are cast to float64 at a time, 1 MB: they stay in the cache.
_CHUNK = 2**17
# Entries up to which a matrix is cast once for all residuals, 8 MB.
_CAST_ONCE = 2**20


class LapackState(NamedTuple):
    """Factors of A, and which they are.

    Attributes:
        matrix: A, `[N, N]`.
        factors: As `potrf` or `getrf` leaves them, transposed, `[N, N]`.
        pivots: Row interchanges of `getrf`, int32 `[N]`, from 0; zeros for `potrf`.
        kind: Scalar int32: 1 for Cholesky, 2 for LU, 0 for a matrix that is singular or
            not finite.
    """

    matrix: tf.Tensor
    factors: tf.Tensor
    pivots: tf.Tensor
    kind: tf.Tensor


@register("solver", "lapack")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Lapack(HostFactorisedSolver[LapackState]):
    """``A x = b`` by SciPy's LAPACK: Cholesky if A is positive definite, else LU.

    `potrf` (LAPACK Users' Guide, 3rd edition, section 2.4.1.2) and two `trsv`, in A's own
    precision. Where `potrf` meets a pivot that is not positive, `getrf` and `getrs`: LU with
    partial pivoting. A singular matrix, or one that is not finite, never raises: its solution
    and residual are NaN.

    Runs on the host, eagerly or from a `tf.function`; `solve` is one call, residual and
    refinement included. It neither exports nor compiles with XLA: where that is needed,
    `Cholesky` and `LU` are TensorFlow operations.

    Arguments are those of `FactorisedSolver`.
    """

    name = "lapack"
    direct = True

    def factorise(self, matrix: tf.Tensor) -> LapackState:
        factors, pivots, kind = tf.numpy_function(
            _factorise, [matrix], [matrix.dtype, tf.int32, tf.int32], stateful=False
        )
        return LapackState(
            matrix,
            tf.ensure_shape(factors, matrix.shape),
            tf.ensure_shape(pivots, matrix.shape[:1]),
            tf.ensure_shape(kind, []),
        )

    def solve(self, matrix: TensorLike, rhs: TensorLike) -> Solution:
        """`compute` for a fresh `matrix`; see `LinearSolver.solve`."""
        matrix, rhs = validate(matrix, rhs)
        unit = unit_beside(matrix, rhs)

        def factorise_and_solve(
            arrays: Sequence[np.ndarray], rhs: np.ndarray, limit: float
        ) -> HostAnswer:
            (matrix,) = arrays
            return self.solve_on_host((matrix, *_factorise(matrix)), rhs, limit)

        x, residual = self.on_host(factorise_and_solve, [matrix], rhs / unit)
        return Solution(x * unit, residual, self.name)

    def solve_on_host(
        self, arrays: Sequence[np.ndarray], rhs: np.ndarray, limit: float
    ) -> HostAnswer:
        matrix, factors, pivots, kind = arrays
        if kind == _SINGULAR:
            return None
        if matrix.size <= _CAST_ONCE:
            matrix = matrix.astype(np.float64, copy=False)
        return refined_on_host(
            lambda v: _substitute(factors, pivots, kind, v.astype(rhs.dtype, copy=False)),
            lambda x: _gap(matrix, x, rhs),
            lambda gap: _relative_norm(gap, rhs),
            rhs,
            self.refinements,
            limit,
        )


def _factorise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors, pivots and kind of `LapackState`."""
    potrf, getrf = scipy.linalg.get_lapack_funcs(("potrf", "getrf"), (matrix,))
    pivots = np.zeros(len(matrix), np.int32)
    # LAPACK's arrays are column-major: the transpose of a symmetric matrix is itself, and
    # neither direction costs a copy beside the one that LAPACK overwrites. OpenBLAS is a fifth
    # faster on the lower triangle.
    factors, info = potrf(matrix.T, lower=True, clean=False)
    kind = _CHOLESKY
    if info != 0:
        factors, pivots, info = getrf(matrix.T)
        kind = _LU if info == 0 else _SINGULAR
    # NaN and Inf are undefined to LAPACK, but none of them leaves the diagonal finite.
    if not np.isfinite(factors.diagonal()).all():
        kind = _SINGULAR
    return factors.T, pivots.astype(np.int32), np.asarray(kind, np.int32)


def _substitute(
    factors: np.ndarray, pivots: np.ndarray, kind: np.ndarray, rhs: np.ndarray
) -> np.ndarray:
    """The solution `[N]`, where there are factors."""
    if kind == _CHOLESKY:
        # `potrs` prepares for many right-hand sides: five times slower on one.
        (trsv,) = scipy.linalg.get_blas_funcs(("trsv",), (factors, rhs))
        return trsv(factors.T, trsv(factors.T, rhs, lower=True), lower=True, trans=1)
    (getrs,) = scipy.linalg.get_lapack_funcs(("getrs",), (factors, rhs))
    return getrs(factors.T, pivots, rhs)[0]


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
