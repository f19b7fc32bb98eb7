"""TensorLists of a recorded graph as Python lists.

In an unrolled loop the time steps are the elements of a Python list: the TensorList operations
of the recorded loop, whose gradients neither pfor nor XLA handles well, do not appear again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import raw_op

# Longer loops stay loops, and longer lists TensorLists. Unrolled, a step's rows of the Hessian are
# vectorised and it runs about five times faster, but tracing takes about a second for each turn
# (an LSTM in `fit`): that is regained after some 50 steps.
MAX_UNROLLED = 32

TYPES = {
    "TensorListFromTensor",
    "TensorListGetItem",
    "TensorListPopBack",
    "TensorListPushBack",
    "TensorListSetItem",
    "TensorListStack",
}


class _List(NamedTuple):
    """A TensorList whose elements are known one by one; None for one that is not set yet."""

    items: tuple[Any, ...]
    dtype: tf.DType
    element_shape: Any


def items_of(value: Any) -> tuple[Any, ...] | None:
    """The elements of a TensorList that are known one by one; None of anything else."""
    return value.items if isinstance(value, _List) else None


def is_list_operation(op: tf.Operation, inputs: list[Any]) -> bool:
    """Whether `list_operation` runs `op`."""
    return op.type in TYPES or any(isinstance(x, _List) for x in inputs)


def list_operation(op: tf.Operation, inputs: list[Any], longest: int) -> list[Any]:
    """Runs an operation on a TensorList, on a Python list if that is no longer than `longest`."""
    if op.type == "Identity":
        return [inputs[0]]
    if op.type == "TensorListFromTensor":
        length = inputs[0].shape[0] if inputs[0].shape.rank else None
        if length is None or length > longest:
            return raw_op(op)(inputs)
        items = tuple(tf.unstack(inputs[0]))
        return [_List(items, inputs[0].dtype, inputs[0].shape[1:])]
    known = _as_list(inputs[0], longest)
    if known is not None:
        items = known.items
        if op.type == "TensorListStack":
            return [_stack(known, op.outputs[0].shape[1:])]
        if op.type == "TensorListPushBack":
            return [known._replace(items=(*items, inputs[1]))]
        if op.type == "TensorListPopBack" and items and items[-1] is not None:
            return [known._replace(items=items[:-1]), items[-1]]
        index = known_value(inputs[1]) if op.type in TYPES else None
        if index is not None and 0 <= int(index) < len(items):
            if op.type == "TensorListSetItem":
                return [known._replace(items=_replaced(items, int(index), inputs[2]))]
            if items[int(index)] is not None:
                return [items[int(index)]]
    return raw_op(op)([as_tensor_list(x) for x in inputs])


def _replaced(items: tuple[Any, ...], k: int, item: Any) -> tuple[Any, ...]:
    return (*items[:k], item, *items[k + 1 :])


def _as_list(value: Any, longest: int) -> _List | None:
    """A list made outside the recorded paths is still a tensor of the graph."""
    if isinstance(value, _List) or not tf.is_symbolic_tensor(value):
        return value if isinstance(value, _List) else None
    made_by = value.op
    if made_by.type == "EmptyTensorList":
        count = 0
    elif made_by.type == "TensorListReserve":
        known = known_value(made_by.inputs[1])
        if known is None or int(known) > longest:
            return None
        count = int(known)
    else:
        return None
    shape = tf.get_static_value(made_by.inputs[0])
    if shape is None or np.ndim(shape) == 0:
        element_shape = tf.TensorShape(None)
    else:
        element_shape = tf.TensorShape([None if n < 0 else int(n) for n in shape])
    return _List((None,) * count, made_by.get_attr("element_dtype"), element_shape)


def _stack(known: _List, element_shape: Any) -> tf.Tensor:
    present = [item for item in known.items if item is not None]
    if len(present) == len(known.items):
        return tf.stack(present)
    # TensorFlow, too, stacks elements that were never set as zeros.
    if present:
        blank = tf.zeros_like(present[0])
    else:
        blank = tf.zeros(known.element_shape.merge_with(element_shape), known.dtype)
    return tf.stack([blank if item is None else item for item in known.items])


def as_tensor_list(value: Any) -> Any:
    """A `_List` as the TensorList that it stands for; other values as they are."""
    if not isinstance(value, _List):
        return value
    shape = value.element_shape
    listed = tf.raw_ops.TensorListReserve(
        element_shape=-1 if shape.rank is None else [-1 if n is None else n for n in shape],
        num_elements=len(value.items),
        element_dtype=value.dtype,
    )
    for k, item in enumerate(value.items):
        if item is not None:
            listed = tf.raw_ops.TensorListSetItem(input_handle=listed, index=k, item=item)
    return listed
