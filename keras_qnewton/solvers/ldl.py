"""L D Lᵀ by blocks: symmetric matrices that are not definite, at half of LU's work.

With A in block rows of b unknowns, D block diagonal and U = Lᵀ of unit block diagonal:

    C    = A[j, j:] - U[:j, j]ᵀ R[:j, j:]     A's row, less the rows above
    D_j  = C[:, j]                            inverted by its eigendecomposition
    R_j  = C[:, j+1:],  U_j = D_j⁻¹ R_j

D_j is never inverted as a matrix, whose rounding errors a solve would multiply by its condition
number: V Λ⁻¹ Vᵀ is applied factor by factor, which is backward stable. There is no pivoting between
blocks, which would need comparisons between products: a D_j whose smallest eigenvalue is far below
the others costs digits. Refinement wins them back, as long as there are some left. What is left is
seen in the residual.

References:
    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 11.1 (block LDLᵀ).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import numpy as np
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
# Of the dtype's last place: what rounding leaves of a residual.
_UNITS = 16.0


class LDLState(NamedTuple):
    """The factors of ``A = U^T D U``, by block rows.

    Attributes:
        matrix: A, `[N, N]`.
        values: Eigenvalues Λ of D_j `[b]`, float64, one vector for each of the P block rows; NaN
            where D_j is not finite.
        vectors: Eigenvectors V of D_j `[b, b]`, one a column.
        right: ``R_j = D_j U_j`` `[b, N - (j + 1) b]`, float64; P - 1 of them.
    """

    matrix: tf.Tensor
    values: tuple[tf.Tensor, ...]
    vectors: tuple[tf.Tensor, ...]
    right: tuple[tf.Tensor, ...]

    @property
    def exists(self) -> None:
        """`values` say it."""
        return None


@register("solver", "ldl")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class LDL(GraphFactorisedSolver[LDLState], Packable[LDLState]):
    """``A x = b`` by a block LDLᵀ factorisation in float64, for a symmetric A, definite or not.

    A matrix whose N is not known when the graph is traced is one block. One that has no such
    factorisation (a block D_j is singular, as in ``[[0, B], [B^T, 0]]``) never raises: its
    solution and residual are NaN, though A may be regular.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA (LU does not).

    Args:
        refinements: See `FactorisedSolver`.
        tolerance: See `FactorisedSolver`; but None refines down to rounding, since what is lost
            without pivoting is not known beforehand.
    """

    name = "ldl"
    direct = True

    def __init__(self, refinements: int = 2, tolerance: float | None = None):
        super().__init__(refinements, tolerance)

    def limit(self, dtype: tf.DType) -> float:
        """See `FactorisedSolver.limit`."""
        if self.tolerance is not None:
            return self.tolerance
        return _UNITS * float(np.finfo(dtype.as_numpy_dtype).eps)

    def factorise(self, matrix: tf.Tensor) -> LDLState:
        """The factors of `matrix`, of which the upper triangle is read."""
        size = matrix.shape[0]
        if size is None:
            values, vectors = _decomposed(tf.cast(matrix, tf.float64))
            return LDLState(matrix, (values,), (vectors,), ())
        width = _width(size)
        blocks: list[tuple[tf.Tensor, tf.Tensor]] = []
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
            blocks.append(_decomposed(block))
            if rest is not None:
                right.append(rest)
                new = _solved(*blocks[-1], rest)
                unit = new if unit is None else tf.concat([unit, new], 0)
                rows = rest if rows is None else tf.concat([rows, rest], 0)
        values, vectors = zip(*blocks, strict=True)
        return LDLState(matrix, values, vectors, tuple(right))

    def substitute(self, state: LDLState, rhs: tf.Tensor) -> tf.Tensor:
        return _substituted(state, rhs)

    def pack(self, state: LDLState) -> Packed:
        return Packed(tf.concat(state.values, 0), joined(state.vectors, state.right))

    def unpack(self, matrix: tf.Tensor, packed: Packed) -> LDLState:
        width = _width(int(packed.factor.shape[0]))
        vectors, right = separated(packed.factor, width, tf.float64)
        sizes = [int(block.shape[0]) for block in vectors]
        values = tf.split(tf.cast(packed.numbers, tf.float64), sizes)
        return LDLState(matrix, tuple(values), vectors, right)


def _substituted(state: LDLState, rhs: tf.Tensor) -> tf.Tensor:
    """``(U^T D U)^-1 b``, in the dtype of b."""
    rest = tf.cast(rhs, tf.float64)[:, None]
    blocks = list(zip(state.values, state.vectors, strict=True))
    halfway = []
    for block, right in zip(blocks, state.right, strict=False):
        part, rest = tf.split(rest, [right.shape[0], right.shape[1]])
        halfway.append(part)
        rest -= tf.matmul(right, _solved(*block, part), transpose_a=True)
    x = _solved(*blocks[-1], rest)
    for block, right, part in zip(blocks[-2::-1], state.right[::-1], halfway[::-1], strict=True):
        x = tf.concat([_solved(*block, part - tf.matmul(right, x)), x], 0)
    return tf.cast(x[:, 0], rhs.dtype)


def _decomposed(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Λ and V of ``D = V Λ V^T``; Λ is NaN where D is not finite."""
    # The op raises where it does not converge: always, on NaN or Inf.
    finite = tf.reduce_all(tf.math.is_finite(block))
    identity = tf.eye(tf.shape(block)[0], dtype=block.dtype)
    values, vectors = tf.linalg.eigh(tf.where(finite, block, identity))
    return tf.where(finite, values, tf.constant(math.nan, block.dtype)), vectors


def _solved(values: tf.Tensor, vectors: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """``D^-1`` times `columns`; not finite where D is singular."""
    return tf.matmul(vectors, tf.matmul(vectors, columns, transpose_a=True) / values[:, None])


def _width(size: int) -> int:
    return equal_width(size, min(_MAX_ROWS, max(1, round(size / _WIDTH))))
