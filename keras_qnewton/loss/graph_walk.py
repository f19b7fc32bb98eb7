"""Walks over recorded graphs: which operations make a tensor, and which tensors they read."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_qnewton.loss import ctc


def ancestors(tensors: Sequence[tf.Tensor]) -> set[tf.Operation]:
    """The operations of a graph that the tensors are made by, and of."""
    found: set[tf.Operation] = set()
    pending = [tensor.op for tensor in tensors]
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending.extend(tensor.op for tensor in ctc.inputs_of(op))
    return found


def needed(graph: tf.Graph, outputs: Sequence[tf.Tensor]) -> list[tf.Operation]:
    """Operations of a body that `outputs` need, but for the body's arguments."""
    found = ancestors(outputs)
    return [op for op in graph.get_operations() if op in found and op.type != "Placeholder"]


def wanted_names(operations: Sequence[tf.Operation], outputs: Sequence[tf.Tensor]) -> set[str]:
    """Names of the tensors that the operations read, and of the outputs."""
    return {t.name for op in operations for t in op.inputs} | {t.name for t in outputs}


def inner_weights(graph: tf.Graph, handles: Sequence[str], weights: set[str]) -> set[str]:
    """Names of a body's arguments that are handles of weights."""
    arguments = zip(graph.inputs, handles, strict=True)
    return {tensor.name for tensor, name in arguments if name in weights}
