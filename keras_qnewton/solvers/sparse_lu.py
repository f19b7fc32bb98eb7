"""LU of the non-zeros alone by a host call: for systems that were pruned."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.refinement import RefinedSolver, target
from keras_qnewton.types import Solution

# Below this share of a column's largest entry a pivot is not taken from the diagonal.
_PIVOT_THRESHOLD = 0.1


class SparseLUState(NamedTuple):
    """A checked matrix `[N, N]`; factors are SciPy's objects, which a graph cannot hold."""

    matrix: Any


@register("solver", "sparse_lu")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class SparseLU(RefinedSolver):
    """``A x = b`` by SciPy's `splu` (SuperLU; Li 2005, ACM TOMS 31) in float64.

    The non-zeros of A are found, ordered by minimum degree on ``Aᵀ + A``, factorised with
    pivots from the diagonal where they are at least a tenth of their column's largest entry,
    and the solution refined with float64 residuals. Time depends on how much the factors fill
    in: random patterns of 5 entries a row fill 3 % of L, of 16 entries 20 %, and soon no
    time is saved. A singular matrix, or one that is not finite, never raises: its
    solution and residual are NaN.

    Runs on the host, in one call, which factorises: it neither exports nor compiles with XLA.

    Args:
        refinements: Steps of iterative refinement, at most.
        tolerance: Relative residual that needs no refinement; None for √u, u the unit round-off
            of the matrix's dtype, 0 to refine always.

    Raises:
        ValueError: If `refinements` or `tolerance` is negative.
    """

    name = "sparse_lu"
    host = True
    # Its time depends on the number of non-zeros, too.
    cost = "sparse_lu_time"

    def init(self, matrix: Any) -> SparseLUState:
        """Checks `matrix` `[N, N]`, float32 or float64."""
        return SparseLUState(check_matrix(matrix))

    def compute(self, state: SparseLUState, rhs: Any) -> Solution:
        """Factorises and solves for `rhs` `[N]`."""
        matrix = state.matrix
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        limit = target(self.tolerance, rhs.dtype.as_numpy_dtype)
        x, residual = tf.numpy_function(
            lambda matrix, rhs: _solved(matrix, rhs, self.refinements, limit),
            [matrix, rhs],
            [rhs.dtype, tf.float64],
            stateful=False,
        )
        return Solution(tf.ensure_shape(x, rhs.shape), tf.ensure_shape(residual, []), self.name)


def _solved(
    matrix: np.ndarray, rhs: np.ndarray, steps: int, limit: float
) -> tuple[np.ndarray, np.float64]:
    """Solution in the dtype of `rhs` and its relative residual, NaN where there are no factors."""
    failed = np.full_like(rhs, np.nan), np.float64(np.nan)
    largest = float(np.max(np.abs(matrix)))
    if not 0 < largest < np.inf:  # NaN, too
        # Zeros solve for zeros.
        return (rhs, np.float64(0.0)) if largest == 0 and not rhs.any() else failed
    # Scaled to 1: SuperLU takes a pivot below the smallest normal number for zero.
    sparse = scipy.sparse.csc_array(matrix.astype(np.float64) / largest)
    unit = float(np.max(np.abs(rhs))) or 1.0
    b = rhs.astype(np.float64) / unit
    try:
        factors = scipy.sparse.linalg.splu(
            sparse,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=_PIVOT_THRESHOLD,
            options={"SymmetricMode": True},
        )
    except RuntimeError:  # exactly singular
        return failed

    def rounded(x: np.ndarray) -> np.ndarray:
        return (x * (unit / largest)).astype(rhs.dtype)

    def gap_of(x: np.ndarray) -> np.ndarray:
        return b - sparse @ (rounded(x).astype(np.float64) * (largest / unit))

    norm = float(np.linalg.norm(b)) or 1.0
    # Overflow and NaN are told by the residual, not by warnings.
    with np.errstate(all="ignore"):
        x = factors.solve(b)
        gap = gap_of(x)
        for _ in range(steps):
            if not np.linalg.norm(gap) > limit * norm:
                break
            candidate = x + factors.solve(gap)
            candidate_gap = gap_of(candidate)
            # On a nearly singular matrix refinement can diverge: keep the better of the two.
            if np.linalg.norm(candidate_gap) < np.linalg.norm(gap):
                x, gap = candidate, candidate_gap
        residual = np.float64(np.linalg.norm(gap) / norm)
        return failed if np.isnan(residual) else (rounded(x), residual)
