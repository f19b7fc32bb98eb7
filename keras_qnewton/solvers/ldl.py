"""L D Lᵀ by blocks: symmetric matrices that are not definite, at half of LU's work.

With A in block rows of b unknowns, D block diagonal and U = Lᵀ of unit block diagonal:

    C    = A[j, j:] - U[:j, j]ᵀ R[:j, j:]     what the rows above leave of A's row
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
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.blocked_cholesky import packed_rows
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.refinement import RefinedSolver, refined
from keras_qnewton.solvers.staged import Packed
from keras_qnewton.types import Solution

# Width of a block row, about: with fewer columns operations cost more to dispatch, with more the
# eigendecompositions, on one thread, take longer than the products.
_PANEL = 96
# Block rows at most: the blocks are unrolled when the graph is traced.
_MOST = 32


class LDLState(NamedTuple):
    """The factors of ``A = U^T D U``, by block rows.

    Attributes:
        matrix: A, `[N, N]`.
        inverses: ``D_j^-1`` `[b, b]`, float64, one for each of the P block rows; not finite from
            the first singular one on.
        right: ``R_j = D_j U_j`` `[b, N - (j + 1) b]`, float64; P - 1 of them.
    """

    matrix: Any
    inverses: tuple[Any, ...]
    right: tuple[Any, ...]


@register("solver", "ldl")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class LDL(RefinedSolver):
    """``A x = b`` by a block LDLᵀ factorisation in float64, for a symmetric A, definite or not.

    A matrix whose N is not known when the graph is traced is one block. One that has no such
    factorisation (a block D_j is singular, as in ``[[0, B], [B^T, 0]]``) never raises: its
    solution and residual are NaN, though A may be regular.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA (LU does not).

    Args:
        refinements: Steps of iterative refinement with float64 residuals, at most.
        tolerance: Relative residual that needs no refinement; None for √u, u the unit round-off
            of the matrix's dtype (2.4e-4 in float32, 1.1e-8 in float64), 0 to refine always.

    Raises:
        ValueError: If `refinements` or `tolerance` is negative.
    """

    name = "ldl"
    direct = True
    packs = True

    def init(self, matrix: Any) -> LDLState:
        """Factorises `matrix` `[N, N]`, float32 or float64; its upper triangle is read."""
        matrix = check_matrix(matrix)
        size = matrix.shape[0]
        if size is None:
            return LDLState(matrix, (_inverse(tf.cast(matrix, tf.float64)),), ())
        panel = _panel(size)
        inverses: list[Any] = []
        right: list[Any] = []
        unit = rows = None  # of U and of R, above j, from column j on
        for start in range(0, size, panel):
            mine = tf.cast(matrix[start : start + panel, start:], tf.float64)
            width = int(mine.shape[0])
            if rows is not None:
                lead, unit = _split(unit, width)
                mine -= tf.matmul(lead, rows, transpose_a=True)
                rows = rows[:, width:]
            block, rest = _split(mine, width)
            inverses.append(_inverse(block))
            if start + width < size:
                right.append(rest)
                new = tf.matmul(inverses[-1], rest)
                unit = new if unit is None else tf.concat([unit, new], 0)
                rows = rest if rows is None else tf.concat([rows, rest], 0)
        return LDLState(matrix, tuple(inverses), tuple(right))

    def packed(self, state: LDLState) -> Packed:
        rows = packed_rows(state.inverses, state.right)
        # Where there are no factors, they are not finite themselves.
        return Packed(tf.ones([rows.shape[0]], rows.dtype), rows)

    def unpacked(self, matrix: Any, packed: Packed) -> LDLState:
        size = int(packed.factor.shape[0])
        panel = _panel(size)
        inverses, right = [], []
        for start in range(0, size, panel):
            stop = min(start + panel, size)
            row = tf.cast(packed.factor[start:stop], tf.float64)
            inverses.append(row[:, start:stop])
            if stop < size:
                right.append(row[:, stop:])
        return LDLState(matrix, tuple(inverses), tuple(right))

    def compute(self, state: LDLState, rhs: Any) -> Solution:
        """Solves for `rhs` `[N]` with the factors of `init`."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        x, residual = refined(
            lambda vector: _substituted(state, vector),
            state.matrix,
            rhs,
            self.refinements,
            self.tolerance,
        )
        return Solution(x, residual, self.name)


def _substituted(state: LDLState, rhs: Any) -> Any:
    """``(U^T D U)^-1 b``, in the dtype of b."""
    rest = tf.cast(rhs, tf.float64)[:, None]
    halfway = []
    for inverse, right in zip(state.inverses, state.right, strict=False):
        mine, rest = tf.split(rest, [right.shape[0], right.shape[1]])
        halfway.append(mine)
        rest -= tf.matmul(right, tf.matmul(inverse, mine), transpose_a=True)
    x = tf.matmul(state.inverses[-1], rest)
    for inverse, right, mine in zip(
        state.inverses[-2::-1], state.right[::-1], halfway[::-1], strict=True
    ):
        x = tf.concat([tf.matmul(inverse, mine - tf.matmul(right, x)), x], 0)
    return tf.cast(x[:, 0], rhs.dtype)


def _inverse(block: Any) -> Any:
    """``D^-1``; not finite where D is singular or not finite."""
    # The op raises when it does not converge, as it never does on NaN or Inf.
    finite = tf.reduce_all(tf.math.is_finite(block))
    identity = tf.eye(tf.shape(block)[0], dtype=block.dtype)
    values, vectors = tf.linalg.eigh(tf.where(finite, block, identity))
    values = tf.where(finite, values, tf.constant(math.nan, block.dtype))
    return tf.matmul(vectors / values, vectors, transpose_b=True)


def _panel(size: int) -> int:
    """Of about equal width, in multiples of 8."""
    count = min(_MOST, max(1, round(size / _PANEL)))
    return 8 * math.ceil(size / count / 8)


def _split(rows: Any, width: int) -> Any:
    """The first columns and the others."""
    return tf.split(rows, [width, rows.shape[1] - width], axis=1)
