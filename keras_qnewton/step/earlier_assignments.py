"""Assignments that a train step makes before its optimizer is called, held until a step is certain.

A forward pass moves the statistics of a batch normalisation, the seeds of dropout, the mean of the
losses. In the graph those operations wait for nothing but their own numbers. Here they are made to
wait for the checks of the step, so that a batch that is refused leaves no trace in them either.

What a check depends on cannot wait for it. It depends on the operations that it takes something
of, and on those that `tf.function` runs in the order of the program: all that came before and use
the same resource, and operations with a state that use none.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private

_ASSIGNMENTS = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_NO_RESOURCE = ""


def hold_earlier_assignments(until: tf.Operation) -> None:
    """Has the graph's assignments so far wait for `until`, but for those that it depends on.

    Those inside of functions that are called are left as they are.
    """
    operations = until.graph.get_operations()
    assignments = [op for op in operations if op.type in _ASSIGNMENTS]
    if not assignments:
        return
    before = _ancestors(until, operations)
    for assignment in assignments:
        if assignment.name not in before:
            _tf_private.run_after(assignment, until)


def _ancestors(of: tf.Operation, operations: Sequence[tf.Operation]) -> set[str]:
    """Names of the operations that run before `of`."""
    positions = {op.name: k for k, op in enumerate(operations)}
    users: dict[str, list[int]] = defaultdict(list)
    for k, op in enumerate(operations):
        for resource in _resources(op):
            users[resource].append(k)
    # Of each resource, so many of its users were met: who uses it later runs after all of them.
    met: dict[str, int] = defaultdict(int)
    pending, seen = [of], {of.name}
    while pending:
        op = pending.pop()
        earlier = [t.op for t in op.inputs] + list(op.control_inputs)
        for resource in _resources(op):
            end = bisect.bisect_left(users[resource], positions[op.name])
            earlier += [operations[k] for k in users[resource][met[resource] : end]]
            met[resource] = max(met[resource], end)
        for other in earlier:
            if other.name not in seen:
                seen.add(other.name)
                pending.append(other)
    return seen


def _resources(op: tf.Operation) -> Iterator[str]:
    """Names of the resources that an operation uses."""
    found = False
    for tensor in op.inputs:
        if tensor.dtype in (tf.resource, tf.variant):
            found = True
            yield tensor.name
    if not found and op.op_def.is_stateful and op.type != "Placeholder":
        yield _NO_RESOURCE
