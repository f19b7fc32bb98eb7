"""Functions, loops and conditions of a recorded graph, run again through their bodies.

called function    its body in line
loop               see `recorded_loops`
condition          the branch in line if the predicate is known, else `tf.cond`
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.graph_walk import inner_weights, needed, wanted_names
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.recorded_loops import Observer, RecordedLoop, Run
from keras_qnewton.loss.tensor_lists import MAX_UNROLLED, as_tensor_list

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
LOOPS = {"While", "StatelessWhile"}
CONDITIONS = {"If", "StatelessIf", "Case", "StatelessCase"}
TYPES = CALLS | LOOPS | CONDITIONS


class Body(NamedTuple):
    """A function's graph, and which of its outputs are wanted.

    Attributes:
        graph: The `tf.Graph` of the body.
        outputs: The wanted ones of its output tensors.
        operations: The operations that these need, in an order in which they can run.
        times: How often the body runs for one run of its operation; None if not known.
    """

    graph: tf.Graph
    outputs: list[tf.Tensor]
    operations: list[tf.Operation]
    times: int | None


def bodies(op: tf.Operation, wanted: set[str]) -> list[Body]:
    """The bodies of a call, a loop or a condition, as far as its `wanted` outputs need them."""
    if op.type in LOOPS:
        loop = RecordedLoop(op, wanted)
        times = loop.trips([known_value(t) for t in op.inputs])
        count = None if times is None else len(times)
        outputs = [loop.body.outputs[i] for i in loop.live]
        return [
            Body(loop.cond, loop.cond.outputs, loop.cond_operations, count),
            Body(loop.body, outputs, loop.body_operations, count),
        ]
    kept = [i for i, tensor in enumerate(op.outputs) if tensor.name in wanted]
    out = []
    for graph in _tf_private.function_bodies(op):
        outputs = [graph.outputs[i] for i in kept]
        out.append(Body(graph, outputs, needed(graph, outputs), 1))
    return out


def is_dynamic(op: tf.Operation, wanted: set[str], unroll: int) -> bool:
    """Whether `op` is run again as a loop or a condition of the graph, not in line.

    `unroll` is the number of turns up to which loops are.
    """
    if op.type in LOOPS:
        times = bodies(op, wanted)[0].times
        return times is None or times > unroll
    return op.type in CONDITIONS and known_value(op.inputs[0]) is None


def run(
    op: tf.Operation,
    inputs: list[Any],
    wanted: set[str],
    weights: set[str],
    run_: Run,
    *,
    unroll: int,
    observer: Observer | None = None,
) -> list[Any]:
    """Runs a call, a loop or a condition again.

    Args:
        op: The operation, of a type in `TYPES`.
        inputs: Its inputs' new values.
        wanted: Names of tensors of the graph that something needs.
        weights: Names of tensors of the graph that are handles of weights; the values in
            `inputs` are the weights themselves.
        run_: Runs operations.
        unroll: Loops of at most so many turns are run in line.
        observer: Of what `run_` runs.

    Returns:
        The outputs' new values; None for one that is not wanted.
    """
    if op.type in LOOPS:
        return RecordedLoop(op, wanted).run(inputs, weights, run_, unroll, observer)
    kept = [i for i, tensor in enumerate(op.outputs) if tensor.name in wanted]
    graphs = _tf_private.function_bodies(op)

    def branch(k: int, arguments: list[Any]) -> list[Any]:
        offset = 0 if op.type in CALLS else 1  # a condition's first input is its predicate
        handles = [t.name for t in op.inputs[offset:]]
        outputs = [graphs[k].outputs[i] for i in kept]
        env = dict(zip((t.name for t in graphs[k].inputs), arguments, strict=True))
        inner = inner_weights(graphs[k], handles, weights)
        run_(needed(graphs[k], outputs), env, inner, {t.name for t in outputs})
        return [env[t.name] for t in outputs]

    if op.type in CALLS:
        results = branch(0, inputs)
    else:
        results = _condition(op, inputs, branch, len(graphs), kept)
    out: list[Any] = [None] * len(op.outputs)
    for i, result in zip(kept, results, strict=True):
        out[i] = result
    return out


def bytes_inside(op: tf.Operation, wanted: set[str]) -> tuple[float, tf.Tensor | None]:
    """Bytes of the intermediate results in the bodies of `op`: (those known, the others).

    A body's dimensions that are not known are taken to be the batch's, which is read off an
    output of the operation. A loop with an unknown number of turns counts as `MAX_UNROLLED`.
    """
    known, per_example = _bytes(op, wanted)
    if not per_example:
        return known, None
    for tensor in op.outputs:
        shape = tensor.shape
        if tensor.name in wanted and shape.rank and list(shape).count(None) == 1:
            rest = math.prod(n for n in shape if n is not None)
            if rest:
                batch = tf.size(tensor, out_type=tf.int64) // rest
                return known, per_example * tf.cast(batch, tf.float64)
    return known + per_example, None


def _bytes(op: tf.Operation, wanted: set[str]) -> tuple[float, float]:
    known = per_example = 0.0
    for body in bodies(op, wanted):
        times = MAX_UNROLLED if body.times is None else body.times
        inner_wanted = wanted_names(body.operations, body.outputs)
        for inner in body.operations:
            if inner.type in TYPES:
                a, b = _bytes(inner, inner_wanted)
                known, per_example = known + times * a, per_example + times * b
            for tensor in inner.outputs:
                if tensor.dtype in (tf.resource, tf.variant, tf.string) or not tensor.shape.rank:
                    continue
                size = times * tensor.dtype.size
                size *= math.prod(n for n in tensor.shape if n is not None)
                if tensor.shape.is_fully_defined():
                    known += size
                else:
                    per_example += size
    return known, per_example


# --- conditions ---------------------------------------------------------------------------


def _condition(
    op: tf.Operation,
    inputs: list[Any],
    branch: Callable[[int, list[Any]], list[Any]],
    count: int,
    kept: list[int],
) -> list[Any]:
    """The outputs `kept` of an `If` or a `Case`; branches are numbered as in their graph."""
    is_case = op.type in ("Case", "StatelessCase")
    known = known_value(inputs[0])
    if known is not None:
        if is_case:
            chosen = int(known) if 0 <= int(known) < count else count - 1
        else:
            chosen = 0 if known else 1
        return branch(chosen, inputs[1:])
    arguments = [as_tensor_list(x) for x in inputs[1:]]

    def outputs(k: int) -> list[Any]:
        return [tf.convert_to_tensor(as_tensor_list(x)) for x in branch(k, arguments)]

    if is_case:
        functions = [lambda k=k: outputs(k) for k in range(count)]
        results = tf.switch_case(inputs[0], functions)
    else:
        results = tf.cond(tf.cast(inputs[0], tf.bool), lambda: outputs(0), lambda: outputs(1))
    flat = tf.nest.flatten(results)
    for i, result in zip(kept, flat, strict=True):
        if result.dtype != tf.variant:
            result.set_shape(op.outputs[i].shape)
    return flat
