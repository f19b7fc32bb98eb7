"""The `stop_gradient` of `tf.nn.moments`, which its second derivatives must not have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def is_moments_stop(op: tf.Operation, operations: Sequence[tf.Operation]) -> bool:
    """Whether this is the stop_gradient of `tf.nn.moments`: on x̄ in mean((x - x̄)²), x̄ = mean(x).

    Another function of x - x̄, a weighted sum for one, would have another first derivative without
    it: that stop is the user's own.
    """
    mean = op.inputs[0].op
    if mean.type != "Mean":
        return False

    def users(producer: tf.Operation) -> list[tf.Operation]:
        made = producer.outputs[0].name
        return [user for user in operations if any(t.name == made for t in user.inputs)]

    squares = users(op)
    of_same = all(
        square.type == "SquaredDifference"
        and any(_same_tensor(t, mean.inputs[0]) for t in square.inputs)
        for square in squares
    )
    means = [user for square in squares for user in users(square)] if of_same else []
    return bool(means) and all(m.type == "Mean" and _same_axes(m, mean) for m in means)


def _same_tensor(a: tf.Tensor, b: tf.Tensor) -> bool:
    """Whether two tensors are one, or two readings of one variable."""
    reads = a.op.type == b.op.type == "ReadVariableOp"
    return a.name == b.name or (reads and a.op.inputs[0].name == b.op.inputs[0].name)


def _same_axes(a: tf.Operation, b: tf.Operation) -> bool:
    """Whether two means are over the same axes, known ones."""
    axes = [tf.get_static_value(op.inputs[1]) for op in (a, b)]
    rank = a.inputs[0].shape.rank
    if rank is None or any(axis is None for axis in axes):
        return a.inputs[1].name == b.inputs[1].name
    first, second = ({int(n) % rank for n in np.ravel(axis)} for axis in axes)
    return first == second
