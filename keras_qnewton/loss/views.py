"""Tensors that hold elements of weights, in another shape, order or precision.

    W, transposed, sliced, joined, cast        each element of it is one of a weight's, or is none

Which is which is found by running the operation on the elements' numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import raw_op

_SAME = {"Identity", "EnsureShape", "Cast"}
# Move elements of one input, by other inputs that must be known.
_MOVES = {
    "Reshape", "Squeeze", "ExpandDims", "Transpose", "Slice", "StridedSlice", "Split", "SplitV",
    "Unpack", "ConcatV2", "Pack", "Pad", "ReverseV2", "Roll",
}  # fmt: skip
_GATHERS = {"ResourceGather", "GatherV2", "Gather"}
_JOINS = {"ConcatV2", "Pack"}
_NONE = -1


class View(NamedTuple):
    """A tensor that holds elements of weights.

    Attributes:
        tensor: It.
        elements: Of its shape: numbers of elements, all weights' one after another; -1 for what is
            no weight's.
    """

    tensor: tf.Tensor
    elements: np.ndarray


def is_move(kind: str) -> bool:
    """Whether operations of this type move elements, or keep them."""
    return kind in _SAME or kind in _MOVES or kind == "ReadVariableOp"


def moved(
    op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any], views: dict[int, View]
) -> list[View] | None:
    """Views of the outputs of an operation that moves elements; None if it does otherwise.

    Args:
        op: The operation.
        inputs: Its inputs, some of which are views.
        outputs: Its outputs.
        views: By the id of their tensor.
    """
    if op.type in _SAME:
        floating = outputs[0].dtype.is_floating
        return [View(outputs[0], views[id(inputs[0])].elements)] if floating else None
    if op.type in _GATHERS:
        return _first_rows(op, inputs, outputs, views)
    if op.type not in _MOVES:
        return None
    numbers = [_numbers(x, views, op.type in _JOINS) for x in inputs]
    if any(n is None for n in numbers):
        return None
    with tf.init_scope():
        found = [np.asarray(t) - 1 for t in raw_op(op)([tf.constant(n) for n in numbers])]
    if not all(_is_once(elements) for elements in found):
        return None
    return [View(t, elements) for t, elements in zip(outputs, found, strict=True)]


def _first_rows(
    op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any], views: dict[int, View]
) -> list[View] | None:
    """Of a gather of rows 0, 1, 2, ..., as embeddings of positions are; None for other rows."""
    axis = known_value(inputs[2]) if op.type == "GatherV2" else 0
    rows = known_value(inputs[1])
    if axis != 0 or rows is None or rows.ndim != 1 or not np.array_equal(rows, range(len(rows))):
        return None
    return [View(outputs[0], views[id(inputs[0])].elements[: len(rows)])]


def _numbers(x: Any, views: dict[int, View], may_be_other: bool) -> np.ndarray | None:
    """Numbers of a view's elements from 1 on, 0 for none; else the value of a known tensor."""
    if id(x) in views:
        return views[id(x)].elements + 1
    known = known_value(x)
    if known is not None or not may_be_other or not x.dtype.is_floating:
        return known
    return np.zeros(x.shape, np.int32) if x.shape.is_fully_defined() else None


def _is_once(elements: np.ndarray) -> bool:
    """Whether no element comes twice."""
    some = elements[elements != _NONE]
    return len(np.unique(some)) == len(some)
