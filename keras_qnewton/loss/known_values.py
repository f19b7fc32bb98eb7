"""Integers and booleans of a recorded graph that are known while tracing.

They follow from constants and shapes by operations that are evaluated at once: the number of
turns of a loop, a condition's predicate, the length of a list, an index into it. Values are
numpy arrays, where tensors would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.raw import raw_op

_KNOWN_SIZE = 1 << 16  # elements of the largest tensor that is evaluated


def reduced_axes(tensor: Any, axes: Any) -> set[int] | None:
    """The axes of `tensor` that a reduction is over, counted from the first; None if not known."""
    known, rank = known_value(axes), tensor.shape.rank
    return None if known is None or rank is None else {int(n) % rank for n in known.ravel()}


def known_value(tensor: Any, depth: int = 32) -> np.ndarray | None:
    """The value of an integer or boolean that follows from constants and shapes, or None."""
    if isinstance(tensor, np.ndarray):
        return tensor
    if not tf.is_tensor(tensor) or not _is_countable(tensor):
        return None
    value = tf.get_static_value(tensor)
    if value is not None or not tf.is_symbolic_tensor(tensor):
        return None if value is None else np.asarray(value)
    op = tensor.op
    if depth == 0 or not op.inputs or not _is_evaluable(op):
        return None
    # Whether an operation's type can be evaluated is asked first, so that only chains of
    # integer arithmetic are followed up the graph.
    inputs = []
    for t in op.inputs:
        value = known_value(t, depth - 1)
        if value is None:
            return None
        inputs.append(value)
    return _evaluate(op, inputs)[tensor.value_index]


def known_lengths(shape: tf.Tensor) -> list[int | None] | None:
    """The entries of a shape, None for one that is not known; None if nothing is.

    Lengths that were taken one by one off a tensor's shape are known if that tensor's are.
    """
    value = known_value(shape)
    if value is not None:
        return [None if n < 0 else int(n) for n in value.ravel()]
    if not tf.is_symbolic_tensor(shape) or shape.op.type != "Pack":
        return None
    return [_known_length(t) for t in shape.op.inputs]


def _known_length(scalar: tf.Tensor) -> int | None:
    value = known_value(scalar)
    if value is not None:
        return None if value < 0 else int(value)
    op = scalar.op
    if op.type != "StridedSlice" or op.inputs[0].op.type != "Shape":
        return None
    lengths, begin = op.inputs[0].op.inputs[0].shape, known_value(op.inputs[1])
    if begin is None or lengths.rank is None or not op.get_attr("shrink_axis_mask"):
        return None
    length: int | None = lengths[int(begin.ravel()[0])]
    return length


def _is_countable(tensor: tf.Tensor) -> bool:
    if not (tensor.dtype.is_integer or tensor.dtype.is_bool) or not tensor.shape.is_fully_defined():
        return False
    return tensor.shape.num_elements() <= _KNOWN_SIZE


def _is_evaluable(op: tf.Operation) -> bool:
    definition = op.op_def
    has_bodies = any(attr.type in ("func", "list(func)") for attr in definition.attr)
    return (
        not definition.is_stateful
        and not has_bodies
        and all(_is_countable(t) for t in (*op.inputs, *op.outputs))
    )


def _evaluate(op: tf.Operation, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    with tf.init_scope():
        if op.type == "Const":
            return [np.asarray(tf.make_ndarray(op.get_attr("value")))]
        return [np.asarray(t) for t in raw_op(op)([tf.constant(v) for v in inputs])]


def evaluate_known(operations: Sequence[tf.Operation], known: dict[str, np.ndarray]) -> None:
    """Adds to `known` what follows from it: names of tensors -> values."""
    for op in operations:
        if _is_evaluable(op) and all(t.name in known for t in op.inputs):
            inputs = [known[t.name] for t in op.inputs]
            for tensor, value in zip(op.outputs, _evaluate(op, inputs), strict=True):
                known[tensor.name] = value
