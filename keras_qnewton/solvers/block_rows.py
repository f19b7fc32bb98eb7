"""Triangular factors by block rows: how wide these are, and how they are stored as one matrix.

A matrix `[N, N]` in block rows of b unknowns has, in row j, a diagonal block `[b, b]` and, right of
it, `[b, N - (j + 1) b]`; the last row, which may have fewer unknowns, has nothing there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import tensorflow as tf


def equal_width(size: int, count: int) -> int:
    """Unknowns of a block row if about `count` of them have `size`: a multiple of 8.

    A last row of a few unknowns would cost as much to dispatch as any other.
    """
    return 8 * math.ceil(size / count / 8)


def split(rows: tf.Tensor, width: int) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The first `width` columns, and the others; None where there are none."""
    rest = rows.shape[1] - width
    return tuple(tf.split(rows, [width, rest], axis=1)) if rest else (rows, None)


def joined(diagonal: Sequence[tf.Tensor], right: Sequence[tf.Tensor]) -> tf.Tensor:
    """Diagonal blocks and the rows right of them (the last has none) as `[N, N]`; zeros below."""
    rows, start = [], 0
    for block, rest in itertools.zip_longest(diagonal, right):
        row = block if rest is None else tf.concat([block, rest], 1)
        rows.append(tf.pad(row, [[0, 0], [start, 0]]))
        start += block.shape[0]
    return tf.concat(rows, 0)


def separated(
    matrix: tf.Tensor, width: int, dtype: tf.DType
) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
    """The diagonal blocks and the rows right of them, in `dtype`, that `joined` was given.

    Args:
        matrix: `[N, N]`; N is known when tracing.
        width: Unknowns of a block row.
        dtype: Of the result.
    """
    size = int(matrix.shape[0])
    diagonal, right = [], []
    for start in range(0, size, width):
        stop = min(start + width, size)
        block, rest = split(tf.cast(matrix[start:stop, start:], dtype), stop - start)
        diagonal.append(block)
        if rest is not None:
            right.append(rest)
    return tuple(diagonal), tuple(right)
