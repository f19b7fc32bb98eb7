"""LU with partial pivoting: any non-singular matrix, definite or not."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.factorised import GraphFactorisedSolver
from keras_qnewton.solvers.packing import Packable, Packed
from keras_qnewton.solvers.scaling import matrix_unit

# From this N on a second factorisation takes longer than a dataset.
_LARGE = 512


class LUState(NamedTuple):
    """Factors of ``P A / α = L U``, α a power of two; 1 but for extreme A.

    Attributes:
        matrix: A, `[N, N]`.
        unit: α, scalar.
        factors: L (unit diagonal, below) and U (above) in one matrix `[N, N]`.
        permutation: P as int32 `[N]`, in `tf.linalg.lu`'s convention.
        exists: Scalar bool; False when A is exactly singular or not finite, and the
            factors are those of the identity.
    """

    matrix: tf.Tensor
    unit: tf.Tensor
    factors: tf.Tensor
    permutation: tf.Tensor
    exists: tf.Tensor


@register("solver", "lu")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class LU(GraphFactorisedSolver[LUState], Packable[LUState]):
    """``A x = b`` by `tf.linalg.lu` and `tf.linalg.lu_solve`, then refinement.

    Pure TensorFlow ops: works in a `tf.function`, exports; XLA does not compile it (it has
    no kernel for `Lu`). A singular matrix never raises: its solution and residual are NaN.

    Arguments are those of `FactorisedSolver`.
    """

    name = "lu"
    direct = True
    compiles = False

    def factorise(self, matrix: tf.Tensor) -> LUState:
        unit = matrix_unit(matrix)
        factors, permutation, exists = _factorised(matrix / unit)
        # A NaN passes `tf.linalg.lu`, but the triangular solves raise on it.
        exists &= tf.reduce_all(tf.math.is_finite(tf.linalg.diag_part(factors)))
        identity = tf.eye(tf.shape(matrix)[0], dtype=matrix.dtype)
        factors = tf.ensure_shape(tf.where(exists, factors, identity), matrix.shape)
        return LUState(matrix, unit, factors, permutation, exists)

    def substitute(self, state: LUState, rhs: tf.Tensor) -> tf.Tensor:
        x = tf.linalg.lu_solve(state.factors, state.permutation, rhs[:, None])[:, 0]
        return x / state.unit

    def pack(self, state: LUState) -> Packed:
        rows = tf.cast(state.permutation, state.factors.dtype)
        nan = tf.constant(float("nan"), rows.dtype)
        return Packed(tf.where(state.exists, rows, nan), state.factors)

    def unpack(self, matrix: tf.Tensor, packed: Packed) -> LUState:
        exists = tf.reduce_all(tf.math.is_finite(packed.numbers))
        # After a failed LU, zeros are valid indices; `compute` returns NaN.
        rows = tf.where(exists, packed.numbers, tf.zeros_like(packed.numbers))
        factors = tf.cast(packed.factor, matrix.dtype)
        return LUState(matrix, matrix_unit(matrix), factors, tf.cast(rows, tf.int32), exists)


def _factorised(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Factors, permutation, and whether there are any; those of the identity where not.

    The Lu op raises on an exactly zero pivot, and nothing in a graph catches that but a
    `tf.data.Dataset`, which drops elements that raise (`ignore_errors`): one dead unit would
    end a training run. To run the op in a dataset takes 8 ms more; below `_LARGE`, or where it
    would leave a GPU for the CPU, it costs less to factorise twice: LogMatrixDeterminant does
    the same, but answers -inf. A tiny shift of the diagonal is cheaper than both, but only moves
    the singular points: a rank-deficient matrix whose rounding noise cancels the shift would
    still raise, now and then. `tf.linalg.solve` and `tf.linalg.triangular_solve` raise as well;
    `tf.linalg.qr` does not, at several times the work.
    """
    size = tf.shape(matrix)[0]
    identity = tf.eye(size, dtype=matrix.dtype)
    if tf.executing_eagerly():
        try:
            return *tf.linalg.lu(matrix), tf.constant(True)
        except tf.errors.InvalidArgumentError:
            return identity, tf.range(size), tf.constant(False)
    if (matrix.shape[0] or 0) < _LARGE or tf.config.list_logical_devices("GPU"):
        regular = tf.math.is_finite(tf.linalg.slogdet(matrix)[1])
        safe = tf.ensure_shape(tf.where(regular, matrix, identity), matrix.shape)
        return *tf.linalg.lu(safe), regular
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    factors = tf.data.Dataset.from_tensors(matrix).map(lambda a: (*tf.linalg.lu(a), True))
    return (
        factors.ignore_errors()
        .with_options(options)
        .reduce((identity, tf.range(size), False), lambda _, found: found)
    )
