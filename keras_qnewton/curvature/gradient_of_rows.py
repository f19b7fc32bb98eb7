"""g = Σ_i U_iᵀ c_i over outputs, of the rows that blocks are made of anyway.

    U_i   a block's rows of output i: its examples times its roots     [B_i R_i, N]
    c_i   with Σ_r c_r s_r the loss's gradient in each example's z     [B_i, R_i]

Where a weight's columns of U are sums over positions, as in a convolution or a network's
derivatives, to sum for g takes as long as for U. There the rows are made first, and g of them. A
block that is kept for several steps has them made in each, for the gradient alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.example_rows import ExampleRows
from keras_qnewton.curvature.pieces import Piece
from keras_qnewton.curvature.row_factors import OfPiece

# Of a number of the rows, as a block in double precision takes them.
_BYTES = 8


class GradientOfRows(NamedTuple):
    """The gradient, and what it was made of.

    Attributes:
        pieces: Of each output and block, what the columns of each weight are made of.
        flat: g, one `[N_k]` a block.
        finite: Whether it is; a derivative of an example may be none where that of all of them is.
    """

    pieces: list[list[list[OfPiece]]]
    flat: list[tf.Tensor]
    finite: tf.Tensor


def gradient_of_rows(
    rows: Sequence[ExampleRows],
    found: list[list[Piece]],
    coefficients: Sequence[tf.Tensor],
    parts: Sequence[Part],
    dtype: tf.DType,
    memory: float,
) -> GradientOfRows:
    """The gradient through all outputs.

    Args:
        rows: One an output.
        found: The pieces of each block.
        coefficients: c, one `[B, R]` an output.
        parts: The blocks.
        dtype: The weights' precision.
        memory: Bytes that the rows of all blocks and outputs may take together.
    """
    pieces = [of.of_blocks(found) for of in rows]
    for of, of_blocks in zip(rows, pieces, strict=True):
        for part, of_block in zip(parts, of_blocks, strict=True):
            if not _are_many(of, part):
                continue
            for number, piece in enumerate(of_block):
                taken = (of.known_examples or 0) * piece.piece.columns * _BYTES
                if piece.sums_positions and taken <= memory:
                    memory -= taken
                    of_block[number] = piece.with_rows()
    flat = [
        tf.add_n(
            [
                tf.concat([p.total(c, dtype) for p in of_blocks[k]], 0)
                for of_blocks, c in zip(pieces, coefficients, strict=True)
            ]
        )
        for k in range(len(parts))
    ]
    finite = tf.math.is_finite(tf.add_n([tf.reduce_sum(x) for x in flat]))
    return GradientOfRows(pieces, flat, finite)


def _are_many(of: ExampleRows, part: Part) -> bool:
    """Whether a block is surely formed, of at least as many rows of an output as it has columns.

    Of several roots the rows take a sum over positions for each, and the gradient takes one.
    """
    known = of.known_examples
    return known is not None and of.count == 1 and part.dense and part.size <= known
