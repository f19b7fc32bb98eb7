"""Functions of all elements up to each one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.known_values import known_value

# Numbers up to which there is one for each pair of elements along the axis, and elements of an axis
# up to which there is where the others are not known.
_MOST, _LONGEST = 2**24, 256


@form("CumulativeLogsumexp")
def cumulative_logsumexp(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """log Σ exp(x_j) over j ≤ i, each by itself.

    TensorFlow's gradient takes logarithms of the gradient's positive and negative parts. In single
    precision nothing is left of its derivative.
    """
    x, axis = inputs[0], known_value(inputs[1])
    length = None if axis is None else x.shape[int(axis)]
    if axis is None or not _is_short(x, length) or op.get_attr("exclusive"):
        return [
            tf.math.cumulative_logsumexp(
                x, inputs[1], exclusive=op.get_attr("exclusive"), reverse=op.get_attr("reverse")
            )
        ]
    number = tf.range(length)
    later = number[None, :] > number[:, None]
    if op.get_attr("reverse"):
        later = tf.transpose(later)
    at = int(axis) % x.shape.rank
    order = [n for n in range(x.shape.rank) if n != at]
    pairs = tf.where(later, x.dtype.min / 2, tf.transpose(x, [*order, at])[..., None, :])
    found = tf.reduce_logsumexp(pairs, -1)
    back = [*range(at), x.shape.rank - 1, *range(at, x.shape.rank - 1)]
    return [tf.transpose(found, back)]


def _is_short(x: tf.Tensor, length: int | None) -> bool:
    """Whether pairs of so many elements along an axis fit into memory."""
    if length is None:
        return False
    elements = x.shape.num_elements()
    return length <= _LONGEST if elements is None else elements * length <= _MOST
