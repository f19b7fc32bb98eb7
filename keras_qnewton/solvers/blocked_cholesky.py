"""Blocked Cholesky from TensorFlow operations: matrix products do nearly all of the work.

`tf.linalg.cholesky` runs on one thread and is about half as fast as LAPACK there. The
left-looking block algorithm (Golub and Van Loan 2013, Matrix Computations, section 4.2.9) leaves
it the diagonal blocks and the rest to `tf.matmul`. With U = L^T, for each block row j:

    C    = A[j, j:] - U[:j, j]^T U[:j, j:]     A's row, less the rows above
    L_jj = cholesky(C[:, j])
    U_j  = L_jj^-1 C[:, j+1:]                  by triangular solves, not with an inverse, so
                                               that the backward error is LAPACK's

A large matrix's block rows are in groups: that algorithm within a group, whose rows are then taken
off from all below it (right-looking), products that do not wait for one another.

Only the upper triangle's blocks are computed, as rows: in row-major order these are contiguous.
They are never put together to one matrix; the solve goes through them one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.solvers.arrays import Scalar
from keras_qnewton.solvers.block_rows import equal_width, joined, separated, split
from keras_qnewton.solvers.packing import Packed
from keras_qnewton.traced_once import traced_once

# Below this, operations cost more to dispatch than tf.linalg.cholesky loses.
_SMALLEST = 385
# Width of a panel from an N on. About 128 leave least to the serial diagonal blocks; with 256 a
# large matrix needs half the operations, and half the copies of U; with 384 one of 10,000 rows
# takes 15 to 25 % less time again.
_WIDTHS = {0: 128, 1025: 256, 4097: 384}
# Panels at least, from the second width on: fewer leave too much to the first.
_MIN_PANELS = 5
# Rows, about, whose effect on those below is taken off at once. Each step of the algorithm copies
# the rows above it: without groups, all of U, and products wait for that. At 1,024 or 2,048 rows,
# which lie in the same lines of the cache, products take a quarter longer.
_GROUP = 1280
# Triangular solves run on one thread: from this width on, in two halves side by side.
_WIDE = 512


class BlockedFactor(NamedTuple):
    """The factor of ``A = U^T U``, by block rows.

    Attributes:
        diagonal: ``L_jj = U_jj^T``, lower triangular `[b, b]`, one for each of the P block
            rows; ones where A's leading part is not positive definite.
        right: What is right of it in that row, ``U_j`` `[b, N - (j + 1) b]`; P - 1 of them.
        definite: Scalar bool, whether A is numerically positive definite.
    """

    diagonal: tuple[tf.Tensor, ...]
    right: tuple[tf.Tensor, ...]
    definite: tf.Tensor


def blocked_cholesky(
    matrix: tf.Tensor,
    shift: Scalar | None = None,
    live: tf.Tensor | None = None,
    group: int = _GROUP,
) -> BlockedFactor:
    """Factorises a symmetric A + sI; never raises where that is not positive definite.

    The blocks are unrolled when the graph is traced, about 18 operations each. A matrix whose
    N is small, or not known then, is one block: `tf.linalg.cholesky`. Its upper
    triangle is read, but for the diagonal blocks, of which it is the lower.

    Args:
        matrix: A, tensor `[N, N]`, symmetric, float32 or float64.
        shift: s, scalar, None for 0; added block by block, without a copy of A.
        live: Indices of the rows and columns that are factorised, int32 `[M]`; None for all.
        group: Rows, about, whose effect on those below is taken off at once.
    """
    size = (matrix if live is None else live).shape[0]
    if size is None or size < _SMALLEST:
        block, definite = _only_block(_shifted(_part(matrix, live, 0, size), shift))
        return BlockedFactor((tf.ensure_shape(block, [size, size]),), (), definite)
    # As a tensor: what is traced for a number of Python's would be kept for each of them.
    shift = None if shift is None else tf.cast(tf.convert_to_tensor(shift), matrix.dtype)
    return _by_panels(matrix, shift, live, matrix.shape[0], size, group)


@traced_once
def _by_panels(
    matrix: tf.Tensor,
    shift: tf.Tensor | None,
    live: tf.Tensor | None,
    whole: int | None,
    size: int,
    group: int,
) -> BlockedFactor:
    """`blocked_cholesky` of `size` rows and columns out of all; `whole` is their number, if known.

    TensorFlow has faster products for a function's body, as for the step's graph, than for the
    branches and turns that a step prepares when it takes them; see `_tf_private.cond`.
    """
    matrix = tf.ensure_shape(matrix, [whole, whole])
    live = None if live is None else tf.ensure_shape(live, [size])
    width = panel_width(size)
    panels = max(1, group // width)
    identity = tf.eye(width, dtype=matrix.dtype)
    starts = range(0, size, width)
    left = [_part(matrix, live, start, start + width) for start in starts]
    diagonal: list[tf.Tensor] = []
    right: list[tf.Tensor] = []
    definite = None  # whether A's leading part is
    above = None  # U's rows of this group above j, from column j on
    for j, start in enumerate(starts):
        count = min(width, size - start)
        corner, rest = split(left[j], count)
        if above is not None:
            # Two products: the first is factorised, on one thread, beside the second.
            lead, above_rest = split(above, count)
            corner -= tf.matmul(lead, lead, transpose_a=True)
            if rest is not None:
                rest -= tf.matmul(lead, above_rest, transpose_a=True)
        corner = _shifted(corner, shift)
        if definite is not None:
            # After a failure the rows mean nothing: the identity spares the log its warnings.
            corner = tf.where(
                definite, corner, identity if count == width else identity[:count, :count]
            )
        block, positive = _diagonal_block(corner)
        definite = positive if definite is None else definite & positive
        diagonal.append(block)
        if rest is not None:
            right.append(_triangular_solve(block, rest))
            above = right[-1] if above is None else tf.concat([above_rest, right[-1]], 0)
            if (j + 1) % panels == 0:
                _take_off(left, above, j + 1, width)
                above = None
    return BlockedFactor(tuple(diagonal), tuple(right), definite)


def _take_off(left: list[tf.Tensor], rows: tf.Tensor, first: int, width: int) -> None:
    """Subtracts a group of U's rows from A's rows below it: A[j, j:] - U[g, j]^T U[g, j:].

    Args:
        left: A[j, j:], less the groups before, for every j; written in place.
        rows: U[g, first·width:].
        first: The first block row below the group.
        width: Rows of a block row.
    """
    # Rows that are split or sliced are not copied, columns are.
    columns = tf.transpose(rows)
    counts = [int(part.shape[0]) for part in left[first:]]
    for k, lead in enumerate(tf.split(columns, counts)):
        others = tf.slice(columns, [k * width, 0], [-1, -1]) if k else columns
        left[first + k] -= tf.matmul(lead, others, transpose_b=True)


def blocked_cholesky_solve(factor: BlockedFactor, rhs: tf.Tensor) -> tf.Tensor:
    """``(U^T U)^-1 b`` by block substitution.

    Args:
        factor: From `blocked_cholesky`; where not `definite` the result means nothing.
        rhs: Tensor `[N]`, the matrix's dtype.

    Returns:
        Tensor `[N]`.
    """
    if not factor.right:
        return tf.ensure_shape(_solved_by_one_block(factor.diagonal[0], rhs), rhs.shape)
    rest = rhs[:, None]
    halfway = []
    for block, right in zip(factor.diagonal, factor.right, strict=False):
        part, rest = tf.split(rest, [right.shape[0], right.shape[1]])
        halfway.append(tf.linalg.triangular_solve(block, part))
        rest -= tf.matmul(right, halfway[-1], transpose_a=True)
    x = tf.linalg.cholesky_solve(factor.diagonal[-1], rest)
    for block, right, part in zip(
        factor.diagonal[-2::-1], factor.right[::-1], halfway[::-1], strict=True
    ):
        part = tf.linalg.triangular_solve(block, part - tf.matmul(right, x), adjoint=True)
        x = tf.concat([part, x], 0)
    return x[:, 0]


def packed_factor(factor: BlockedFactor) -> Packed:
    """The factor's block rows, L_jj and U_j, as one matrix."""
    rows = joined(factor.diagonal, factor.right)
    one = tf.ones([], rows.dtype)
    sound = tf.where(factor.definite, one, tf.constant(float("nan"), one.dtype))
    return Packed(tf.fill([rows.shape[0]], sound), rows)


def unpacked_factor(packed: Packed, dtype: tf.DType) -> BlockedFactor:
    """The factor, in `dtype`, that `packed_factor` was given; N is known when tracing."""
    size = int(packed.factor.shape[0])
    width = size if size < _SMALLEST else panel_width(size)
    diagonal, right = separated(packed.factor, width, dtype)
    return BlockedFactor(diagonal, right, tf.math.is_finite(packed.numbers[0]))


def panel_width(size: int) -> int:
    """Rows of a block row, if N = `size` is large enough for more than one."""
    start = max(n for n in _WIDTHS if n <= size)
    return equal_width(size, max(_MIN_PANELS if start else 1, round(size / _WIDTHS[start])))


@traced_once
def _only_block(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return _diagonal_block(block)


@traced_once
def _solved_by_one_block(block: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    return tf.linalg.cholesky_solve(block, rhs[:, None])[:, 0]


def _diagonal_block(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """L of one block, made safe to divide by, and whether the block is positive definite."""
    # On CPU the op fills the lower triangle with NaN instead of raising. Triangular solves raise
    # on a zero or NaN pivot: they are given a sound factor, or ones.
    factor = tf.linalg.cholesky(block)
    pivots = tf.linalg.diag_part(factor)
    positive = tf.reduce_all((pivots > 0) & tf.math.is_finite(pivots))
    # `tf.where` would go through the block a number at a time, to broadcast the condition.
    sound = tf.cond(positive, lambda: factor, lambda: tf.ones_like(block))
    return sound, positive


def _part(matrix: tf.Tensor, live: tf.Tensor | None, start: int, stop: int | None) -> tf.Tensor:
    """A's rows from `start` to `stop`, columns from `start` on."""
    if live is None:
        return matrix[start:stop, start:]
    return tf.gather(tf.gather(matrix, live[start:stop]), live[start:], axis=1)


def _shifted(block: tf.Tensor, shift: Scalar | None) -> tf.Tensor:
    if shift is None:
        return block
    return tf.linalg.set_diag(block, tf.linalg.diag_part(block) + tf.cast(shift, block.dtype))


def _triangular_solve(block: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    if rhs.shape[1] < _WIDE:
        return tf.linalg.triangular_solve(block, rhs)
    halves = split(rhs, rhs.shape[1] // 2)
    return tf.concat([tf.linalg.triangular_solve(block, half) for half in halves], 1)
