"""How many rows of each example a reshape has put below one another.

[B, T, ..., m]  ->  [B·T·..., m]      as before a product with a matrix, or a loss of each token
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_qnewton.loss.known_values import known_lengths

# Operations whose result has a row of its own for each of their first input's.
_ROW_BY_ROW = ("Reshape", "Identity", "Cast", "BiasAdd", "MatMul")


def rows_joined(tensor: tf.Tensor) -> int:
    """T, looked for on the way that leads to `tensor` row by row; 1 where nothing is found."""
    while tf.is_symbolic_tensor(tensor) and tensor.op.type in _ROW_BY_ROW:
        source = tensor.op.inputs[0]
        if tensor.op.type == "MatMul" and tensor.op.get_attr("transpose_a"):
            return 1
        if tensor.op.type == "Reshape":
            before, after = _elements_of_rows(source), _elements_of_rows(tensor)
            if not before or not after or before % after:
                return 1
            if before > after:
                return before // after
        tensor = source
    return 1


def _elements_of_rows(tensor: tf.Tensor) -> int | None:
    """Elements of one row, None if that is not known."""
    if tensor.op.type == "Reshape":
        lengths = known_lengths(tensor.op.inputs[1])
        if lengths is not None and None not in lengths[1:]:
            return math.prod(n for n in lengths[1:] if n is not None)
        if tensor.shape.rank == 2 and tensor.shape[1] is None:
            return width_of_products(tensor)
    count: int | None = tensor.shape[1:].num_elements() if tensor.shape.rank else None
    return count


def width_of_products(tensor: tf.Tensor) -> int | None:
    """Columns of a matrix that is multiplied from the right, whose number is known of the other.

    `tf.tensordot` computes the shape of its matrices where a batch's size is not known.
    """
    for user in tensor.consumers():
        if user.type == "MatMul" and user.inputs[0] is tensor:
            other = user.inputs[1].shape
            if other.rank == 2 and not user.get_attr("transpose_a"):
                width: int | None = other[1 if user.get_attr("transpose_b") else 0]
                return width
    return None
