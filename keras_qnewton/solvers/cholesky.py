"""Cholesky: positive definite matrices, several times cheaper than LU."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.blocked_cholesky import (
    BlockedFactor,
    blocked_cholesky,
    blocked_cholesky_solve,
    packed_factor,
    unpacked_factor,
)
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.refinement import RefinedSolver, refined
from keras_qnewton.solvers.staged import Packed
from keras_qnewton.types import Solution


class CholeskyState(NamedTuple):
    """The factor of ``A = L L^T``.

    Attributes:
        matrix: A, `[N, N]`.
        factor: L^T by block rows, and whether A is numerically positive definite.
    """

    matrix: Any
    factor: BlockedFactor


@register("solver", "cholesky")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Cholesky(RefinedSolver):
    """``A x = b`` by Cholesky's factorisation, for a positive definite A.

    By blocks (`blocked_cholesky`) if N is known when the graph is traced and above 384, at
    about the speed of LAPACK; by `tf.linalg.cholesky` otherwise. A matrix that is not positive
    definite never raises: its solution and residual are NaN.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA.

    Args:
        refinements: Steps of iterative refinement with float64 residuals, at most.
        tolerance: Relative residual that needs no refinement; None for √u, u the unit round-off
            of the matrix's dtype (2.4e-4 in float32, 1.1e-8 in float64), 0 to refine always.

    Raises:
        ValueError: If `refinements` or `tolerance` is negative.
    """

    name = "cholesky"
    definite = True
    direct = True
    packs = True

    def init(self, matrix: Any) -> CholeskyState:
        """Factorises `matrix` `[N, N]`, float32 or float64."""
        matrix = check_matrix(matrix)
        return CholeskyState(matrix, blocked_cholesky(matrix))

    def packed(self, state: CholeskyState) -> Packed:
        return packed_factor(state.factor)

    def unpacked(self, matrix: Any, packed: Packed) -> CholeskyState:
        return CholeskyState(matrix, unpacked_factor(packed, matrix.dtype))

    def compute(self, state: CholeskyState, rhs: Any) -> Solution:
        """Solves for `rhs` `[N]` with the factor of `init`."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        nan = tf.constant(float("nan"), rhs.dtype)

        def apply_inverse(vector: Any) -> Any:
            x = blocked_cholesky_solve(state.factor, vector)
            return tf.where(state.factor.definite, x, nan)

        x, residual = refined(apply_inverse, state.matrix, rhs, self.refinements, self.tolerance)
        return Solution(x, residual, self.name)
