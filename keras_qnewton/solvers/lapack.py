"""LAPACK by a host call: what SciPy links is often the fastest factorisation on a CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.refinement import check_steps, refined
from keras_qnewton.solvers.staged import StagedSolver
from keras_qnewton.types import Solution

# What a factorisation turned out to be.
_SINGULAR, _CHOLESKY, _LU = 0, 1, 2


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
class Lapack(StagedSolver):
    """``A x = b`` by SciPy's LAPACK: Cholesky if A is positive definite, else LU.

    `potrf` and `potrs` (LAPACK Users' Guide, 3rd edition, section 2.4.1.2), in A's own
    precision. Where `potrf` meets a pivot that is not positive, `getrf` and `getrs`: LU with
    partial pivoting. A singular matrix, or one that is not finite, never raises: its solution
    and residual are NaN.

    Runs on the host, eagerly or from a `tf.function`. It neither exports nor compiles with
    XLA: where that is needed, `Cholesky` and `LU` are TensorFlow operations.

    Args:
        refinements: Steps of iterative refinement with float64 residuals.

    Raises:
        ValueError: If `refinements` is negative.
    """

    name = "lapack"
    host = True

    def __init__(self, refinements: int = 1):
        self.refinements = check_steps(refinements)

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

        def apply_inverse(vector: Any) -> Any:
            x = tf.numpy_function(
                _substitute,
                [state.factors, state.pivots, state.kind, vector],
                vector.dtype,
                stateful=False,
            )
            return tf.ensure_shape(x, vector.shape)

        x, residual = refined(apply_inverse, state.matrix, rhs, self.refinements)
        return Solution(x, residual, self.name)

    def get_config(self) -> dict[str, Any]:
        return {"refinements": self.refinements}


def _factorise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.int32]:
    """Factors, pivots and kind of `LapackState`."""
    potrf, getrf = scipy.linalg.get_lapack_funcs(("potrf", "getrf"), (matrix,))
    no_pivots = np.zeros(len(matrix), np.int32)
    # LAPACK's arrays are column-major: the transpose of a symmetric matrix is itself, and
    # neither direction costs a copy beside the one that LAPACK overwrites. NaN must be looked
    # for, its answer for them is undefined; a sum costs a small part of what `isfinite` does.
    if not np.isfinite(matrix.sum(dtype=np.float64)):
        return matrix, no_pivots, np.int32(_SINGULAR)
    factors, info = potrf(matrix.T, lower=False, clean=False)
    if info == 0:
        return factors.T, no_pivots, np.int32(_CHOLESKY)
    factors, pivots, info = getrf(matrix.T)
    kind = _LU if info == 0 else _SINGULAR
    return factors.T, pivots.astype(np.int32), np.int32(kind)


def _substitute(
    factors: np.ndarray, pivots: np.ndarray, kind: np.int32, rhs: np.ndarray
) -> np.ndarray:
    """The solution `[N]`, or NaN where there are no factors."""
    if kind == _SINGULAR:
        return np.full_like(rhs, np.nan)
    potrs, getrs = scipy.linalg.get_lapack_funcs(("potrs", "getrs"), (factors, rhs))
    if kind == _CHOLESKY:
        return potrs(factors.T, rhs, lower=False)[0]
    return getrs(factors.T, pivots, rhs)[0]
