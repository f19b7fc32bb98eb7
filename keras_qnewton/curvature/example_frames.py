"""Which rows of a tensor are those of the examples of another one, that is made of it.

A loss may take its terms from parts of one batch, z = u[80:240] of u = network(x). Example k of z
is then row 80 + k of u, and of everything that u is made of:

    frame   (rows, total)   example k is the `rows[k]`-th of `total`

It is read off operations that take rows of the first axis, and supposes that no other moves them.
Whoever builds on it has to verify it by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.graph_walk import ancestors
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import raw_op

# Operations that may take some rows of their last or only input of numbers, and its position.
_TAKE = {"Slice": 0, "StridedSlice": 0, "Split": 1, "SplitV": 0, "GatherV2": 0, "Gather": 0}
# Elements of the largest tensor that is tried to find out which rows an operation takes.
_LARGEST = 1 << 22


class Frame(NamedTuple):
    """Where the examples of z are.

    Attributes:
        rows: Which of all they are, distinct; None for all of them in their order.
        total: How many there are in all; None where that is not known while tracing.
    """

    rows: tuple[int, ...] | None
    total: int | None

    def taken(self, tensor: tf.Tensor, axis: int) -> tf.Tensor:
        """Its rows of a tensor that has `total` along an axis."""
        if self.rows is None:
            return tensor
        first, count = self.rows[0], len(self.rows)
        if self.rows == tuple(range(first, first + count)):
            return tensor[(slice(None),) * axis + (slice(first, first + count),)]
        return tf.gather(tensor, self.rows, axis=axis)


def frames(z: tf.Tensor, examples: int | None) -> Mapping[str, Frame | None]:
    """The frame of each tensor that `z` is made of, by its name; None where there is not one.

    Args:
        z: A tensor of the graph that is being traced.
        examples: How many examples it has, if that is known.
    """
    made_of = ancestors([z])
    found: dict[str, Frame | None] = {z.name: Frame(None, examples)}
    # Backwards: an operation comes after all that its results are used for.
    for op in reversed([op for op in z.graph.get_operations() if op in made_of]):
        for tensor in op.outputs:
            if tensor.name not in found:
                continue
            frame = found[tensor.name]
            for k, source in enumerate(op.inputs):
                inside = frame
                if frame is not None and _TAKE.get(op.type) == k:
                    inside = _before(tensor, source, frame)
                same = found.setdefault(source.name, inside) == inside
                found[source.name] = inside if same else None
    return found


def _before(tensor: tf.Tensor, source: tf.Tensor, frame: Frame) -> Frame:
    """The frame in what `tensor` takes rows of, if they are examples."""
    taken = _rows_taken(tensor, source)
    # The first axis may be another one, as time is in a recurrent layer.
    if taken is None or taken.size != frame.total or np.unique(taken).size != taken.size:
        return frame
    rows = taken if frame.rows is None else taken[list(frame.rows)]
    return Frame(tuple(rows.tolist()), int(source.shape[0]))


def _rows_taken(tensor: tf.Tensor, source: tf.Tensor) -> np.ndarray | None:
    """Rows of `source` that those of `tensor` are; None for all of them, or if that is not known.

    Found by the operation itself, of a tensor whose elements are the numbers of their rows.
    """
    size = source.shape.num_elements()
    if not size or size > _LARGEST or not tensor.shape.rank:
        return None
    count = int(source.shape[0])
    numbers = np.arange(count, dtype=np.int32).reshape([-1] + [1] * (source.shape.rank - 1))
    results = _run(tensor.op, source, np.broadcast_to(numbers, source.shape))
    if results is None or not results[tensor.value_index].size:
        return None
    found = results[tensor.value_index].reshape(int(tensor.shape[0]), -1)
    rows = found[:, 0]
    alike = np.all(found == rows[:, None])
    return None if not alike or np.array_equal(rows, np.arange(count)) else rows


def _run(op: tf.Operation, source: tf.Tensor, value: np.ndarray) -> Sequence[np.ndarray] | None:
    """The results of an operation of `value` in place of `source`; None if others are not known."""
    inputs = [value if t is source else known_value(t) for t in op.inputs]
    if any(x is None for x in inputs):
        return None
    with tf.init_scope():
        return [np.asarray(t) for t in raw_op(op)([tf.constant(x) for x in inputs])]
