"""The loss, found in the graph by the gradients that were handed over.

A train step may take gradients of its loss and hand them to the optimizer without a word of the
loss itself. In the graph that is being traced

    forward operations -> loss -> backward operations -> gradients

the loss is a scalar that depends on the weights. What the gradients are made of after it are
backward operations alone, which TensorFlow names so; and no such scalar is made of it. A loss that
was found is a guess, for which its gradient has to be compared with those handed over.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import control_flow
from keras_qnewton.loss.graph_walk import ancestors
from keras_qnewton.loss.recorded import weight_handles
from keras_qnewton.loss.replayable import VALUE_INDEPENDENT

# Tapes and `tf.gradients` make these outside of their name scopes.
_SUMS = {"AddN", "Identity", "Cast"}
# Of a mean that Keras keeps: total + sum(value * weight).
_OF_METRICS = {"AddV2", "Sum", "Mul", "Identity", "Cast", "Reshape"}
_ASSIGNMENTS = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


def losses_of(
    gradients: Sequence[tf.Tensor | tf.IndexedSlices], variables: Sequence[tf.Variable]
) -> list[tf.Tensor]:
    """The scalars of the gradients' graph, traced now, that they may be those of.

    Args:
        gradients: What was handed over, tensors of that graph or of one around it.
        variables: What they were taken by.

    Returns:
        In the order in which they are computed; none if the gradients are not tensors of the graph.
    """
    flat = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    if not flat or not all(tf.is_symbolic_tensor(g) for g in flat):
        return []
    graph = flat[0].graph
    if not _tf_private.is_visible(graph) or any(g.graph is not graph for g in flat):
        return []
    position = {op: k for k, op in enumerate(graph.get_operations())}
    moving = _depending(graph, weight_handles(graph, variables))
    made_of = ancestors(flat)
    backward = [position[op] for op in made_of if _is_backward(op)]
    if not backward:
        return []
    # The last forward operation that the gradients are made of, in the order of the graph.
    forward = [
        position[op]
        for op in made_of & moving
        if not _is_backward(op) and op.type not in _SUMS and position[op] < max(backward)
    ]
    first, last = max(forward, default=-1), max(backward)
    candidates = [
        tensor
        for op in moving
        if first <= position[op] < last and op.inputs and not _is_backward(op)
        for tensor in _tf_private.returned(op)
        if tensor.dtype.is_floating and tensor.shape.rank == 0
    ]
    candidates.sort(key=lambda tensor: position[tensor.op])
    targets = {tensor.op for tensor in candidates}
    last_ones = [tensor for tensor in candidates if not _leads_to(tensor, targets)]
    # A metric's sum is assigned to its variable.
    kept = [tensor for tensor in last_ones if not _is_assigned(tensor)]
    if kept:
        return kept
    summed = {tensor.name: tensor for tensor in (_summed(t, moving, made_of) for t in last_ones)}
    return list(summed.values())


def _summed(total: tf.Tensor, moving: set[tf.Operation], made_of: set[tf.Operation]) -> tf.Tensor:
    """What a metric adds to its sum: a scalar, times a weight that no gradient is made of.

    Args:
        total: What is assigned to the metric's variable.
        moving: Operations that depend on the weights.
        made_of: Operations that the gradients are made of: a factor of the loss is among them.
    """
    tensor = total
    while tensor.op.type in _OF_METRICS:
        depending = [t for t in tensor.op.inputs if t.op in moving]
        of_the_loss = tensor.op.type == "Mul" and any(
            t.op in made_of for t in tensor.op.inputs if t.op not in moving
        )
        if of_the_loss or len(depending) != 1 or depending[0].shape.rank != 0:
            break
        tensor = depending[0]
    return tensor


def _is_assigned(tensor: tf.Tensor) -> bool:
    """Whether a variable's new value is the tensor, or that and its own."""
    return any(user.type in _ASSIGNMENTS for user in tensor.consumers())


def _depending(graph: tf.Graph, names: Sequence[str] | dict[str, int]) -> set[tf.Operation]:
    """Operations whose results depend on the values of the named tensors."""
    found: set[tf.Operation] = set()
    pending = [graph.get_tensor_by_name(name) for name in names]
    while pending:
        for op in pending.pop().consumers():
            if op not in found and op.type not in VALUE_INDEPENDENT:
                found.add(op)
                pending.extend(op.outputs)
    return found


def _is_backward(op: tf.Operation) -> bool:
    """Whether a tape or `tf.gradients` made the operation, by its name or its function's."""
    if op.type in control_flow.CALLS and "__backward_" in op.get_attr("f").name:
        return True
    scopes = op.name.split("/")[:-1]
    return any(s.partition("_")[0] == "gradients" or s == "gradient_tape" for s in scopes)


def _leads_to(tensor: tf.Tensor, targets: set[tf.Operation]) -> bool:
    """Whether a target is made of the tensor by forward operations."""
    found: set[tf.Operation] = set()
    pending = list(tensor.consumers())
    while pending:
        op = pending.pop()
        if op in found or _is_backward(op):
            continue
        if op in targets:
            return True
        found.add(op)
        pending.extend(user for t in op.outputs for user in t.consumers())
    return False
