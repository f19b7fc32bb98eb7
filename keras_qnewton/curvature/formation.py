"""How a block's matrix came about: a number in the graph, a sentence for whoever reads the log.

Assembling a block from its layers takes a backward pass for each output, a generic way one for each
row or each weight. Which it was, and why not the first, is part of every `Decision`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import tensorflow as tf


class Way(enum.IntEnum):
    """The generic ways, that take nothing for granted; see `rows_by_passes`."""

    PRODUCTS = 0
    ROWS = 1
    COLUMNS = 2


class Formation(enum.IntEnum):
    """The ways in which a block is formed, the generic ones by the reason for it.

    Numbers are part of an optimizer's saved log: new ones go to the end.
    """

    NOT_FORMED = 0
    KEPT = 1
    LAYERS = 2
    ROWS = 3
    PRODUCTS = 4
    # Reasons for which the way is a generic one, that of products.
    LOOP = 5
    NOT_LINEAR = 6
    OUTPUT = 7
    REFUTED = 8
    MEMORY = 9
    # The same by rows, and by columns, in the same order; see `by_passes`.
    ROWS_LOOP = 10
    ROWS_NOT_LINEAR = 11
    ROWS_OUTPUT = 12
    ROWS_REFUTED = 13
    ROWS_MEMORY = 14
    COLUMNS_LOOP = 15
    COLUMNS_NOT_LINEAR = 16
    COLUMNS_OUTPUT = 17
    COLUMNS_REFUTED = 18
    COLUMNS_MEMORY = 19
    # Rows of which a part goes through tensors that examples share.
    SHARED = 20


_FIRST_REASON, _REASONS = Formation.LOOP, 5

_SENTENCES = {
    Formation.NOT_FORMED: "not formed",
    Formation.KEPT: "kept: the matrix of an earlier step (`update_every`)",
    Formation.LAYERS: (
        "layers: assembled from the curvature of each example in the outputs of its layers"
    ),
    Formation.ROWS: "rows: assembled from derivatives of each example's output",
    Formation.PRODUCTS: "products with unit vectors",
    Formation.SHARED: (
        "rows: assembled from derivatives of each example's output, and of what examples share, "
        "such as the statistics of a batch"
    ),
}
_WAYS = {
    Way.PRODUCTS: "products with unit vectors",
    Way.ROWS: "rows by single backward passes",
    Way.COLUMNS: "columns by single forward passes",
}
_WHY = {
    Formation.LOOP: (
        ", one at a time: the loss has a loop or a condition that cannot be vectorised"
    ),
    Formation.NOT_LINEAR: (
        ": a weight enters otherwise than linearly, by an operation of a kind that is not known, "
        "or in another precision"
    ),
    Formation.OUTPUT: ": there is not one row of few outputs for each example",
    Formation.REFUTED: (
        ": what was assembled from layers failed its check against a product, so examples "
        "interact or a weight enters elsewhere, too"
    ),
    Formation.MEMORY: (
        ": of so wide a layer the curvature of all examples at once would not fit into memory"
    ),
}


def by_passes(reason: tf.Tensor, way: tf.Tensor) -> tf.Tensor:
    """The `Formation` of a generic `Way` that was taken for this reason; int32 scalars."""
    return reason + _REASONS * way


class Formed(NamedTuple):
    """A block.

    Attributes:
        matrix: H_k `[N_k, N_k]`, symmetric to the bit.
        how: Its `Formation`, int32 scalar.
        unchanged: True if it is the matrix of the last step, bool or scalar bool tensor.
    """

    matrix: tf.Tensor
    how: tf.Tensor
    unchanged: tf.Tensor | bool = False


def explain(how: int) -> str:
    """The sentence for a `Formation`."""
    if how in _SENTENCES:
        return _SENTENCES[Formation(how)]
    way, reason = divmod(Formation(how) - _FIRST_REASON, _REASONS)
    return _WAYS[Way(way)] + _WHY[Formation(_FIRST_REASON + reason)]
