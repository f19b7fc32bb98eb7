"""Eigendecomposition: the inverse, and the absolute inverse of saddle-free Newton."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.norms import power_of_two
from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_norm, relative_residual
from keras_qnewton.solvers.packing import Packable, Packed
from keras_qnewton.solvers.scaling import unit_of
from keras_qnewton.types import Solution


class EigenState(NamedTuple):
    """``A = V diag(eigenvalues) V^T``.

    Attributes:
        matrix: A, `[N, N]`.
        eigenvalues: `[N]`, ascending; NaN when A is not finite.
        eigenvectors: V, `[N, N]`, one a column.
    """

    matrix: tf.Tensor
    eigenvalues: tf.Tensor
    eigenvectors: tf.Tensor


@register("solver", "eigen")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Eigen(Packable[EigenState]):
    """``A x = b`` and ``(A² + λ²I)^(1/2) x = b`` through `tf.linalg.eigh`.

    The second is the saddle-free Newton step of Dauphin et al. 2014 (arXiv:1406.2572,
    section 4: the inverse of |H|) in a smooth form: as λ → 0 it is ``|A|^-1 b``, and λ bounds
    it by ``||b|| / λ``. One decomposition serves any number of λ: `init`, then
    `compute_absolute` for each.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA.
    """

    name = "eigen"
    direct = True

    def init(self, matrix: TensorLike) -> EigenState:
        """Decomposes `matrix` `[N, N]`, float32 or float64."""
        matrix = check_matrix(matrix)
        # The op raises where it does not converge: always, on NaN or Inf.
        finite = tf.reduce_all(tf.math.is_finite(matrix))
        identity = tf.eye(tf.shape(matrix)[0], dtype=matrix.dtype)
        safe = tf.ensure_shape(tf.where(finite, matrix, identity), matrix.shape)
        eigenvalues, eigenvectors = tf.linalg.eigh(safe)
        nan = tf.constant(float("nan"), matrix.dtype)
        return EigenState(matrix, tf.where(finite, eigenvalues, nan), eigenvectors)

    def pack(self, state: EigenState) -> Packed:
        return Packed(state.eigenvalues, state.eigenvectors)

    def unpack(self, matrix: tf.Tensor, packed: Packed) -> EigenState:
        return EigenState(matrix, *(tf.cast(array, matrix.dtype) for array in packed))

    def compute(self, state: EigenState, rhs: TensorLike) -> Solution:
        """``A^-1 b`` for `rhs` `[N]`; not finite when A is exactly singular."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        unit, of_matrix = unit_of(rhs), unit_of(state.eigenvalues)
        x = _apply(state, of_matrix / state.eigenvalues, rhs / unit)
        x *= _quotient(unit, of_matrix)
        return Solution(x, relative_residual(state.matrix, x, rhs), self.name)

    def solve_absolute(self, matrix: TensorLike, rhs: TensorLike, damping: Scalar) -> Solution:
        """``(A² + λ²I)^(-1/2) b``: `compute_absolute` of a fresh decomposition."""
        return self.compute_absolute(self.init(matrix), rhs, damping)

    def compute_absolute(self, state: EigenState, rhs: TensorLike, damping: Scalar) -> Solution:
        """``f(b) = (A² + λ²I)^(-1/2) b`` with the decomposition of `init`.

        The residual is ``||f((A² + λ²I) f(b)) - b|| / ||b||``, with the products done by A
        itself in float64: 0 exactly if f is the inverse square root. For a sound
        decomposition it is about ``u ||A|| / λ``, u the unit round-off of A's dtype, like the
        error of x. (``(A² + λ²I) f(f(b))`` is the same in exact arithmetic, but sees u
        ``(||A||/λ)²``, and would condemn good float32 solutions at a small λ.)

        Args:
            state: From `init`.
            rhs: Tensor or array `[N]`, the matrix's dtype.
            damping: λ, a non-negative scalar (number or tensor), in units of A.

        Raises:
            ValueError: If `damping` is a negative or not finite value, eagerly.
        """
        matrix = state.matrix
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        # `tf.cast` alone would take a Python number through float32.
        damping = tf.cast(tf.convert_to_tensor(damping, dtype_hint=tf.float64), tf.float64)
        if tf.executing_eagerly() and not 0 <= float(damping) < float("inf"):
            raise ValueError(
                "Argument `damping` must be a finite number, 0 or more. "
                f"Received: damping={float(damping)}"
            )
        # In units of the largest of them, so that squares neither overflow nor vanish.
        values = tf.cast(state.eigenvalues, tf.float64)
        unit = power_of_two(tf.maximum(tf.reduce_max(tf.abs(values)), damping))
        damping /= unit
        values = tf.cast(1 / tf.sqrt((values / unit) ** 2 + damping**2), matrix.dtype)
        rhs_unit = unit_of(rhs)
        rhs /= rhs_unit
        x = _apply(state, values, rhs)
        matrix64, x64 = tf.cast(matrix, tf.float64), tf.cast(x, tf.float64)
        product = tf.linalg.matvec(matrix64, x64) / unit
        square = tf.linalg.matvec(matrix64, product) / unit + damping**2 * x64
        back = _apply(state, values, tf.cast(square, matrix.dtype))
        gap = tf.cast(back, tf.float64) - tf.cast(rhs, tf.float64)
        # Zero stays zero where the quotient is too large for the dtype: A and λ of nearly nothing.
        x = tf.math.multiply_no_nan(_quotient(rhs_unit, unit), x)
        return Solution(x, relative_norm(gap, rhs), self.name)


def _quotient(rhs_unit: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
    """What x is multiplied by, in the dtype of b."""
    return tf.cast(tf.cast(rhs_unit, tf.float64) / tf.cast(unit, tf.float64), rhs_unit.dtype)


def _apply(state: EigenState, values: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """``V diag(values) V^T vector``."""
    vectors = state.eigenvectors
    return tf.linalg.matvec(vectors, values * tf.linalg.matvec(vectors, vector, transpose_a=True))
