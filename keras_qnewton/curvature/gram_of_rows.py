"""G = Σ_i U_iᵀ U_i over outputs, of a block's rows of each; some examples at a time if need be.

    U_i   rows of output i: its examples times its roots     [B_i R_i, N]
    U     those of several outputs, one below another        [Σ_i B_i R_i, N]

Rows come in pieces, one for each weight's columns, and are not put together before the product.
Outputs that fit into memory together are put into one U. Of few columns, an output with many rows
has a product of its own, since a copy takes a good part of the product's time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.example_sums import gram
from keras_qnewton.curvature.row_factors import OfPiece
from keras_qnewton.curvature.shared_by_examples import ThroughShared
from keras_qnewton.curvature.span import Span

# N up to which rows are copied in a good part of the time that their product takes.
_FEW_COLUMNS = 384


class RowsOfOutput(NamedTuple):
    """A block's rows of one output.

    Attributes:
        examples: B, int32 scalar.
        known_examples: B where it is known while tracing, else None.
        roots: R.
        pieces: What the columns of each weight are made of.
        noise: Makes one more column `[B, R]`; None without one.
        through: What the rows are beside, through tensors that examples share; None without any.
    """

    examples: tf.Tensor
    known_examples: int | None
    roots: int
    pieces: Sequence[OfPiece]
    noise: Callable[[], tf.Tensor] | None
    through: ThroughShared | None = None

    @property
    def are_any(self) -> bool:
        """Whether the output depends on a weight of the block."""
        shared = () if self.through is None else self.through.pieces
        return any(piece.factors for piece in (*self.pieces, *shared))

    def bytes_per_example(self, columns: int, dtype: tf.DType) -> int:
        """Of an example's rows."""
        return self.roots * columns * int(dtype.size)

    def columns(self, examples: Span, dtypes: tuple[tf.DType, tf.DType]) -> list[tf.Tensor]:
        """Of some examples, `[R·examples, N_i]` a piece; made in a precision, cast to one."""
        found = [piece.rows(examples, self.roots, dtypes[0]) for piece in self.pieces]
        if self.through is not None:
            beside = self.through.rows(examples, self.roots, dtypes[0])
            parts = tf.split(beside, [piece.piece.columns for piece in self.pieces], axis=2)
            found = [t + more for t, more in zip(found, parts, strict=True)]
        if self.noise is not None:
            found.append(tf.transpose(examples.of(self.noise()))[:, :, None])
        return [tf.cast(tf.reshape(t, [-1, t.shape[2]]), dtypes[1]) for t in found]


def gram_of_rows(
    rows: Sequence[RowsOfOutput],
    size: int,
    memory: float,
    weights_dtype: tf.DType,
    dtype: tf.DType,
) -> tf.Tensor:
    """G, symmetric to the bit: `[N, N]`, with the columns of noise, if there are any, at the end.

    Args:
        rows: Of all outputs.
        size: Number of the weights.
        memory: Bytes that rows may take at once.
        weights_dtype: Precision in which rows are made.
        dtype: Precision of G.
    """
    dtypes = (weights_dtype, dtype)
    columns = size + any(of.noise is not None for of in rows)
    total = zeros = tf.zeros([columns, columns], dtype)
    together: list[RowsOfOutput] = []
    for of_output in rows:
        each, known = of_output.bytes_per_example(columns, dtype), of_output.known_examples
        if not of_output.are_any:
            continue
        if known is not None and known * each <= memory:
            together.append(of_output)
            memory -= known * each
        else:
            total = _added(of_output, total, int(memory / each), dtypes)
    if not together:
        return total
    found = gram(*_groups(together, columns, dtypes))
    return found if total is zeros else total + found


def _groups(
    rows: Sequence[RowsOfOutput], columns: int, dtypes: tuple[tf.DType, tf.DType]
) -> list[list[tf.Tensor]]:
    """Pieces of columns, of each output that has many rows and of the others together.

    To put an output's rows below another's is to copy both. A product of its own adds a matrix, and
    operations to the graph; beside a product of many columns a copy takes no time to speak of.
    """
    least = columns // 2 if columns <= _FEW_COLUMNS else math.inf
    alone: list[list[tf.Tensor]] = []
    joined: list[list[tf.Tensor]] = []
    for of_output in rows:
        known = of_output.known_examples
        assert known is not None  # they would not be known to fit
        has_few = known * of_output.roots < least
        every = Span(None, of_output.examples)
        (joined if has_few else alone).append(of_output.columns(every, dtypes))
    if joined:
        pairs = zip(*joined, strict=True)
        alone.append([piece[0] if len(piece) == 1 else tf.concat(piece, 0) for piece in pairs])
    return alone


def sum_of_turns(
    gram: Callable[[tf.Tensor], tf.Tensor], turns: int, columns: int, dtype: tf.DType
) -> tf.Tensor:
    """Σ G_t `[columns, columns]` over turns t, one after another; `gram` makes each."""

    def add(turn: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return turn + 1, total + gram(turn)

    start = (tf.constant(0), tf.zeros([columns, columns], dtype))
    _, total = tf.while_loop(lambda turn, _: turn < turns, add, start, parallel_iterations=1)
    return total


def _added(
    rows: RowsOfOutput, total: tf.Tensor, chunk: int, dtypes: tuple[tf.DType, tf.DType]
) -> tf.Tensor:
    """`total` and the product of these rows, made of some examples at a time."""
    examples = rows.examples
    step = tf.maximum(1, tf.minimum(examples, chunk))

    def add(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stop = tf.minimum(start + step, examples)
        return stop, total + gram(rows.columns(Span(start, stop), dtypes))

    _, total = tf.while_loop(
        lambda start, _: start < examples, add, (tf.constant(0), total), parallel_iterations=1
    )
    return total
