"""L D Lᵀ by blocks: symmetric matrices that are not definite, at half of LU's work.

With A in block rows of b unknowns, D block diagonal and U = Lᵀ of unit block diagonal:

    C    = A[j, j:] - U[:j, j]ᵀ R[:j, j:]     A's row, less the rows above
    D_j  = C[:, j]                            inverted by its eigendecomposition
    R_j  = C[:, j+1:],  U_j = D_j⁻¹ R_j

There is no pivoting between blocks, which would need comparisons between products: a D_j whose
smallest eigenvalue is far below the others costs digits. In double precision there are enough, and
refinement wins them back; single precision may be left with none. What is left is seen in the
residual.

References:
    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 11.1 (block LDLᵀ).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.block_rows import equal_width, joined, separated, split
from keras_qnewton.solvers.factorised import GraphFactorisedSolver
from keras_qnewton.solvers.packing import Packable, Packed

# Width of a block row, about: with fewer columns operations cost more to dispatch, with more the
# eigendecompositions, on one thread, take longer than the products.
_WIDTH = 96
# Limit of the block rows, which are unrolled when the graph is traced.
_MAX_ROWS = 32


class LDLState(NamedTuple):
    """The factors of ``A = U^T D U``, by block rows.

    Attributes:
        matrix: A, `[N, N]`.
        inverses: ``D_j^-1`` `[b, b]`, float64, one for each of the P block rows; not finite from
            the first singular one on.
        right: ``R_j = D_j U_j`` `[b, N - (j + 1) b]`, float64; P - 1 of them.
    """

    matrix: tf.Tensor
    inverses: tuple[tf.Tensor, ...]
    right: tuple[tf.Tensor, ...]

    @property
    def exists(self) -> None:
        """`inverses` say it."""
        return None


@register("solver", "ldl")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class LDL(GraphFactorisedSolver[LDLState], Packable[LDLState]):
    """``A x = b`` by a block LDLᵀ factorisation in float64, for a symmetric A, definite or not.

    A matrix whose N is not known when the graph is traced is one block. One that has no such
    factorisation (a block D_j is singular, as in ``[[0, B], [B^T, 0]]``) never raises: its
    solution and residual are NaN, though A may be regular.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA (LU does not).

    Arguments are those of `FactorisedSolver`.
    """

    name = "ldl"
    direct = True

    def factorise(self, matrix: tf.Tensor) -> LDLState:
        """The factors of `matrix`, of which the upper triangle is read."""
        size = matrix.shape[0]
        if size is None:
            return LDLState(matrix, (_inverse(tf.cast(matrix, tf.float64)),), ())
        width = _width(size)
        inverses: list[tf.Tensor] = []
        right: list[tf.Tensor] = []
        unit = rows = None  # of U and of R, above j, from column j on
        for start in range(0, size, width):
            row = tf.cast(matrix[start : start + width, start:], tf.float64)
            count = int(row.shape[0])
            if rows is not None:
                lead, unit = split(unit, count)
                row -= tf.matmul(lead, rows, transpose_a=True)
                rows = rows[:, count:]
            block, rest = split(row, count)
            inverses.append(_inverse(block))
            if rest is not None:
                right.append(rest)
                new = tf.matmul(inverses[-1], rest)
                unit = new if unit is None else tf.concat([unit, new], 0)
                rows = rest if rows is None else tf.concat([rows, rest], 0)
        return LDLState(matrix, tuple(inverses), tuple(right))

    def substitute(self, state: LDLState, rhs: tf.Tensor) -> tf.Tensor:
        return _substituted(state, rhs)

    def pack(self, state: LDLState) -> Packed:
        rows = joined(state.inverses, state.right)
        # Where there are no factors, they are not finite themselves.
        return Packed(tf.ones([rows.shape[0]], rows.dtype), rows)

    def unpack(self, matrix: tf.Tensor, packed: Packed) -> LDLState:
        width = _width(int(packed.factor.shape[0]))
        return LDLState(matrix, *separated(packed.factor, width, tf.float64))


def _substituted(state: LDLState, rhs: tf.Tensor) -> tf.Tensor:
    """``(U^T D U)^-1 b``, in the dtype of b."""
    rest = tf.cast(rhs, tf.float64)[:, None]
    halfway = []
    for inverse, right in zip(state.inverses, state.right, strict=False):
        part, rest = tf.split(rest, [right.shape[0], right.shape[1]])
        halfway.append(part)
        rest -= tf.matmul(right, tf.matmul(inverse, part), transpose_a=True)
    x = tf.matmul(state.inverses[-1], rest)
    for inverse, right, part in zip(
        state.inverses[-2::-1], state.right[::-1], halfway[::-1], strict=True
    ):
        x = tf.concat([tf.matmul(inverse, part - tf.matmul(right, x)), x], 0)
    return tf.cast(x[:, 0], rhs.dtype)


def _inverse(block: tf.Tensor) -> tf.Tensor:
    """``D^-1``; not finite where D is singular or not finite."""
    # The op raises where it does not converge: always, on NaN or Inf.
    finite = tf.reduce_all(tf.math.is_finite(block))
    identity = tf.eye(tf.shape(block)[0], dtype=block.dtype)
    values, vectors = tf.linalg.eigh(tf.where(finite, block, identity))
    values = tf.where(finite, values, tf.constant(math.nan, block.dtype))
    return tf.matmul(vectors / values, vectors, transpose_b=True)


def _width(size: int) -> int:
    return equal_width(size, min(_MAX_ROWS, max(1, round(size / _WIDTH))))
