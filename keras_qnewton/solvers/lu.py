"""LU with partial pivoting: any non-singular matrix, definite or not."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.refinement import check_steps, refined
from keras_qnewton.solvers.staged import StagedSolver
from keras_qnewton.types import Solution


class LUState(NamedTuple):
    """Factors of ``P A = L U``.

    Attributes:
        matrix: A, `[N, N]`.
        factors: L (unit diagonal, below) and U (above) in one matrix `[N, N]`.
        permutation: P as int32 `[N]`, in `tf.linalg.lu`'s convention.
        regular: Scalar bool; False when A is exactly singular or not finite, and the
            factors are those of the identity.
    """

    matrix: Any
    factors: Any
    permutation: Any
    regular: Any


@register("solver", "lu")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class LU(StagedSolver):
    """``A x = b`` by `tf.linalg.lu` and `tf.linalg.lu_solve`, then refinement.

    Pure TensorFlow ops: works in a `tf.function`, exports; XLA does not compile it (it has
    no kernel for `Lu`). A singular matrix never raises: its solution and residual are NaN.

    Args:
        refinements: Steps of iterative refinement with float64 residuals.

    Raises:
        ValueError: If `refinements` is negative.
    """

    name = "lu"

    def __init__(self, refinements: int = 1):
        self.refinements = check_steps(refinements)

    def init(self, matrix: Any) -> LUState:
        """Factorises `matrix` `[N, N]`, float32 or float64."""
        matrix = check_matrix(matrix)
        # The Lu op raises on an exactly zero (or NaN) pivot, and nothing in a graph can catch
        # that: one dead unit would end a training run. LogMatrixDeterminant factorises in the
        # same way but answers -inf instead, so it tells beforehand. A tiny shift of the
        # diagonal is cheaper but only moves the singular points: a rank-deficient matrix
        # whose rounding noise cancels the shift would still raise, now and then.
        _, log_determinant = tf.linalg.slogdet(matrix)
        regular = tf.math.is_finite(log_determinant)
        size = tf.shape(matrix)[0]
        safe = tf.where(regular, matrix, tf.eye(size, dtype=matrix.dtype))
        factors, permutation = tf.linalg.lu(tf.ensure_shape(safe, matrix.shape))
        return LUState(matrix, factors, permutation, regular)

    def compute(self, state: LUState, rhs: Any) -> Solution:
        """Solves for `rhs` `[N]` with the factors of `init`."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        nan = tf.constant(float("nan"), rhs.dtype)

        def apply_inverse(vector: Any) -> Any:
            x = tf.linalg.lu_solve(state.factors, state.permutation, vector[:, None])[:, 0]
            return tf.where(state.regular, x, nan)

        x, residual = refined(apply_inverse, state.matrix, rhs, self.refinements)
        return Solution(x, residual, self.name)

    def get_config(self) -> dict[str, Any]:
        return {"refinements": self.refinements}
