"""A loss's operations, graph by graph: its own, and those of the bodies that they run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.loss import control_flow, custom_gradients, graph_walk
from keras_qnewton.loss.raw import LossNotReplayableError
from keras_qnewton.loss.replayable import READS

_ASSIGNMENTS = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


class Stretch(NamedTuple):
    """Operations of one graph.

    Attributes:
        operations: In an order in which they can run.
        start: Names of the graph's tensors that depend on weights, or may.
        outputs: The tensors that are wanted of them.
        given: Whether they are a given gradient, or are called by one.
    """

    operations: Sequence[tf.Operation]
    start: Collection[str]
    outputs: Sequence[tf.Tensor]
    given: bool


def stretches(
    operations: Sequence[tf.Operation],
    start: Collection[str],
    outputs: Sequence[tf.Tensor],
    given: bool = False,
) -> list[Stretch]:
    """Operations of a graph, and those of the bodies that they run; see `Stretch`."""
    wanted = graph_walk.wanted_names(operations, outputs)
    found = [Stretch(operations, start, outputs, given)]
    for op in operations:
        of_gradient = op.type not in control_flow.TYPES
        bodies = custom_gradients.bodies(op) if of_gradient else control_flow.bodies(op, wanted)
        for body in bodies:
            if not of_gradient:
                _check_variables(op, body)
            inside = [t.name for t in body.graph.inputs]
            found.extend(stretches(body.operations, inside, body.outputs, given or of_gradient))
    return found


def _check_variables(op: tf.Operation, body: control_flow.Body) -> None:
    """Refuses a body that reads what it has itself changed, as random generators do."""
    changed = {
        o.inputs[0].name
        for o in body.graph.get_operations()
        if o.type in _ASSIGNMENTS and o.inputs[0].dtype == tf.resource
    }
    for inner in body.operations:
        if inner.type in READS and inner.inputs[0].name in changed:
            raise LossNotReplayableError(
                f"The loss depends on the weights through {op.type!r} ({op.name!r}), whose body "
                "reads a variable and assigns it, as a random generator does. Run again at other "
                "weights it would see another value: another dropout mask, for instance. Draw "
                "random numbers, and update states, outside the loop, condition or function. "
                f"Received: variable {inner.inputs[0].name!r} in {body.graph.name!r}"
            )
