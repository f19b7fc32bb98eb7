"""Cholesky: positive definite matrices, several times cheaper than LU."""

from __future__ import annotations

from typing import NamedTuple

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
from keras_qnewton.solvers.factorised import GraphFactorisedSolver
from keras_qnewton.solvers.packing import Packable, Packed
from keras_qnewton.solvers.scaling import matrix_unit
from keras_qnewton.traced_once import traced_once


class CholeskyState(NamedTuple):
    """The factor of ``A / α = L L^T``, α a power of two; 1 but for extreme A.

    Attributes:
        matrix: A, `[N, N]`.
        unit: α, scalar.
        factor: L^T by block rows, and whether A is numerically positive definite.
    """

    matrix: tf.Tensor
    unit: tf.Tensor
    factor: BlockedFactor

    @property
    def exists(self) -> tf.Tensor:
        """Scalar bool, whether A is numerically positive definite."""
        return self.factor.definite


@register("solver", "cholesky")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Cholesky(GraphFactorisedSolver[CholeskyState], Packable[CholeskyState]):
    """``A x = b`` by Cholesky's factorisation, for a positive definite A.

    By blocks (`blocked_cholesky`) if N is known when the graph is traced and above 384, at
    about the speed of LAPACK; by `tf.linalg.cholesky` otherwise. A matrix that is not positive
    definite never raises: its solution and residual are NaN.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA.

    Arguments are those of `FactorisedSolver`.
    """

    name = "cholesky"
    definite = True
    direct = True

    def factorise(self, matrix: tf.Tensor) -> CholeskyState:
        scaled, unit = _in_its_unit(matrix)
        factor = blocked_cholesky(tf.ensure_shape(scaled, matrix.shape))
        return CholeskyState(matrix, unit, factor)

    def largest_entries(self, matrix: tf.Tensor) -> tf.Tensor:
        """The diagonal: where another entry is larger, the matrix is not positive definite."""
        return tf.linalg.diag_part(matrix)

    def substitute(self, state: CholeskyState, rhs: tf.Tensor) -> tf.Tensor:
        return blocked_cholesky_solve(state.factor, rhs) / state.unit

    def pack(self, state: CholeskyState) -> Packed:
        return packed_factor(state.factor)

    def unpack(self, matrix: tf.Tensor, packed: Packed) -> CholeskyState:
        unit = matrix_unit(self.largest_entries(matrix))
        return CholeskyState(matrix, unit, unpacked_factor(packed, matrix.dtype))


@traced_once
def _in_its_unit(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A / α and α; nearly always α is 1, and A is not copied."""
    unit = matrix_unit(tf.linalg.diag_part(matrix))
    return tf.cond(tf.equal(unit, 1), lambda: matrix, lambda: matrix / unit), unit
