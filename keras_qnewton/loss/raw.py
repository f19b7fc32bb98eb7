"""One operation of a recorded graph, run again through `tf.raw_ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private


class LossNotReplayableError(ValueError):
    """The loss uses an operation that cannot be run again as a function of the weights."""


def raw_op(op: tf.Operation) -> Callable[[list[Any]], list[Any]]:
    """The `tf.raw_ops` call that does what `op` does, as a function of its inputs."""
    function = getattr(tf.raw_ops, op.type, None)
    if function is None:
        raise LossNotReplayableError(
            f"The loss depends on the weights through {op.type!r} ({op.name!r}), an operation "
            "that TensorFlow does not offer to Python."
        )
    definition = op.op_def
    inferred: set[str] = set()
    for arg in definition.input_arg:
        inferred.update(a for a in (arg.number_attr, arg.type_list_attr, arg.type_attr) if a)
    attributes = {a.name: op.get_attr(a.name) for a in definition.attr if a.name not in inferred}

    def call(inputs: list[Any]) -> list[Any]:
        arguments: dict[str, Any] = {}
        at = 0
        for arg in definition.input_arg:
            if arg.number_attr or arg.type_list_attr:
                n = _count(op, arg)
                arguments[arg.name] = inputs[at : at + n]
                at += n
            else:
                arguments[arg.name] = inputs[at]
                at += 1
        arguments |= attributes
        accepted = _tf_private.raw_op_parameters(function)
        renamed = [name for name in arguments if name not in accepted]
        free = [name for name in accepted if name not in arguments]
        for old, new in zip(renamed, free, strict=False):
            arguments[new] = arguments.pop(old)
        result = function(**arguments)
        if isinstance(result, tf.Operation):
            return []
        return list(result) if isinstance(result, (list, tuple)) else [result]

    return call


def _count(op: tf.Operation, arg: Any) -> int:
    if arg.number_attr:
        return op.get_attr(arg.number_attr)
    return len(op.get_attr(arg.type_list_attr))


def here(value: Any) -> Any:
    """A tensor of an outer graph as one of the present graph.

    TensorFlow builds the gradient of a condition in a graph of its own, which sees tensors of the
    branch, and not those of the graph around it.
    """
    if not tf.is_symbolic_tensor(value) or value.dtype == tf.resource:
        return value
    return value if value.graph is tf.compat.v1.get_default_graph() else tf.identity(value)
