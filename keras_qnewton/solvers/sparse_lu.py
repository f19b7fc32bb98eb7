"""LU of the non-zeros alone by a host call: for systems that were pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.factorised import HostAnswer, HostFactorisedSolver
from keras_qnewton.solvers.refinement import refined_on_host

# Below this share of a column's largest entry a pivot is not taken from the diagonal.
_PIVOT_THRESHOLD = 0.1


class SparseLUState(NamedTuple):
    """A checked matrix `[N, N]`; factors are SciPy's objects, which a graph cannot hold."""

    matrix: tf.Tensor


@register("solver", "sparse_lu")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class SparseLU(HostFactorisedSolver[SparseLUState]):
    """``A x = b`` by SciPy's `splu` (SuperLU; Li 2005, ACM TOMS 31) in float64.

    The non-zeros of A are found, ordered by minimum degree on ``Aᵀ + A``, factorised with
    pivots from the diagonal where they are at least a tenth of their column's largest entry,
    and the solution refined with float64 residuals. Time depends on how much the factors fill
    in: random patterns of 5 entries a row fill 3 % of L, of 16 entries 20 %, and soon no
    time is saved. A singular matrix, or one that is not finite, never raises: its
    solution and residual are NaN.

    Runs on the host, in one call, which factorises: it neither exports nor compiles with XLA.

    Arguments are those of `FactorisedSolver`.
    """

    name = "sparse_lu"
    # Its time depends on the number of non-zeros, too.
    cost = "sparse_lu_time"

    def factorise(self, matrix: tf.Tensor) -> SparseLUState:
        return SparseLUState(matrix)

    def solve_on_host(
        self, arrays: Sequence[np.ndarray], rhs: np.ndarray, limit: float
    ) -> HostAnswer:
        (matrix,) = arrays
        largest = float(np.max(np.abs(matrix)))
        if not 0 < largest < np.inf:  # NaN, too
            # Zeros solve for zeros.
            return (rhs, np.float64(0.0)) if largest == 0 and not rhs.any() else None
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
            return None

        def rounded(x: np.ndarray) -> np.ndarray:
            return (x * (unit / largest)).astype(rhs.dtype)

        def gap_of(x: np.ndarray) -> np.ndarray:
            return b - sparse @ (rounded(x).astype(np.float64) * (largest / unit))

        norm = float(np.linalg.norm(b)) or 1.0
        x, size = refined_on_host(
            factors.solve, gap_of, np.linalg.norm, b, self.refinements, limit * norm
        )
        return rounded(x), np.float64(size / norm)
