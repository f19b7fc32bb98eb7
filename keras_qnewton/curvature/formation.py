"""How a block's matrix came about: a number in the graph, a sentence for whoever reads the log.

Assembling a block from its layers takes a backward pass for each output, the generic way one for
each weight. Which of the two it was, and why not the first, is part of every `Decision`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import tensorflow as tf


class Formation(enum.IntEnum):
    """The ways in which a block is formed, the generic one by the reason for it.

    Numbers are part of an optimizer's saved log: new ones go to the end.
    """

    NOT_FORMED = 0
    KEPT = 1
    LAYERS = 2
    ROWS = 3
    PRODUCTS = 4
    LOOP = 5
    NOT_LINEAR = 6
    OUTPUT = 7
    REFUTED = 8
    MEMORY = 9


_SENTENCES = {
    Formation.NOT_FORMED: "not formed",
    Formation.KEPT: "kept: the matrix of an earlier step (`update_every`)",
    Formation.LAYERS: (
        "layers: assembled from the curvature of each example in the outputs of its layers"
    ),
    Formation.ROWS: "rows: assembled from derivatives of each example's output",
    Formation.PRODUCTS: "products with unit vectors",
    Formation.LOOP: (
        "products with unit vectors, one at a time: the loss has a loop or a condition that "
        "cannot be vectorised"
    ),
    Formation.NOT_LINEAR: (
        "products with unit vectors: a weight enters otherwise than linearly, by an operation of a "
        "kind that is not known, or in another precision"
    ),
    Formation.OUTPUT: (
        "products with unit vectors: there is not one row of few outputs for each example"
    ),
    Formation.REFUTED: (
        "products with unit vectors: what was assembled from layers failed its check against one "
        "of them, so examples interact or a weight enters elsewhere, too"
    ),
    Formation.MEMORY: (
        "products with unit vectors: of so wide a layer the curvature of all examples at once "
        "would not fit into memory"
    ),
}


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
    return _SENTENCES[Formation(how)]
