"""Gradients that were given for operations, run again where the operations are.

`tf.custom_gradient` passes a function's results y and arguments x through one operation and gives
that a gradient; `tf.Graph.gradient_override_map` gives one to any operation:

    u -> v        u: dL/dy, one tensor an output      v: dL/dx, one tensor an input or None

Such a function is closed over tensors of the recorded graph: results at the variables' present
values. So it is traced once, as the body of a function, and the body is run again with those
tensors replaced by their new values. Its operations are plain ones, which tapes differentiate once
more, and pfor vectorises.

A given gradient that uses the function's result y is differentiated through y by the given
gradient, too: y' = 1/(1 + 3y²), given with an iteration for y behind a `stop_gradient`, has the
second derivative that it should have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import control_flow, graph_walk
from keras_qnewton.loss.raw import LossNotReplayableError, here, raw_op
from keras_qnewton.loss.replayable import READS, VALUE_INDEPENDENT, check_replayable

# Collections of a graph: its operations' traced gradients, and a mark of a traced gradient's graph.
_TRACED = "keras_qnewton/given_gradients"
_IS_TRACE = "keras_qnewton/is_given_gradient"


class _Given(NamedTuple):
    """A given gradient, traced.

    Attributes:
        body: Its graph, outputs and operations.
        upstream: The placeholder of u for each output of the operation; None if it has none.
        captured: Pairs of a tensor that the gradient uses and its placeholder in the body. The
            tensor is of the operation's own graph if that has it.
        results: v for each input of the operation; None if it has none.
    """

    body: control_flow.Body
    upstream: list[tf.Tensor | None]
    captured: list[tuple[tf.Tensor, tf.Tensor]]
    results: list[tf.Tensor | None]


def is_given(op: tf.Operation) -> bool:
    """Whether the operation's gradient is one that was given for it.

    `tf.GradientTape` follows `tf.custom_gradient` everywhere, and `gradient_override_map` in the
    bodies of functions, loops and conditions alone.
    """
    if _tf_private.given_gradient(op) is None:
        return False
    return op.type == "IdentityN" or not _tf_private.is_visible(op.graph)


def bodies(op: tf.Operation) -> list[control_flow.Body]:
    """The body of the operation's given gradient; none for an operation of such a body.

    A given gradient's own operations are not looked into: their gradients may be given without
    end, sin by cos and cos by sin.
    """
    if not is_given(op) or op.graph.get_collection(_IS_TRACE):
        return []
    given = _given(op)
    return [] if given is None else [given.body]


def differentiated_inputs(op: tf.Operation) -> set[int] | None:
    """Positions of the inputs that a given gradient has results for; None if none was given."""
    if not is_given(op):
        return None
    given = _given(op)
    return None if given is None else {i for i, v in enumerate(given.results) if v is not None}


def run(
    op: tf.Operation,
    inputs: Sequence[Any],
    env: dict[str, Any],
    weights: set[str],
    run_: control_flow.Run,
) -> list[Any]:
    """Runs an operation again, with the gradient that was given for it.

    Args:
        op: The operation.
        inputs: Its inputs' new values.
        env: New values of its graph's tensors, by name.
        weights: Names of tensors of the graph that are handles of weights.
        run_: Runs operations.

    Returns:
        The outputs' new values.
    """

    given = _given(op)
    if given is None:
        return raw_op(op)(list(inputs))

    used: dict[str, Any] = {}  # new values of what the gradient captured, by placeholder

    @_tf_private.custom_gradient
    def again(*arguments: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        outputs = raw_op(op)(list(arguments))

        def gradient(*upstream: tf.Tensor | None) -> list[tf.Tensor | None]:
            return _gradient(given, outputs, upstream, used, weights_inside, run_)

        return outputs, gradient

    outputs = again(*inputs)
    now = env | dict(zip((t.name for t in op.outputs), outputs, strict=True))
    now |= _by_results(op, given, outputs)
    used.update(_captured(op, given, now, weights, run_))
    weights_inside = {
        placeholder.name
        for source, placeholder in given.captured
        if source.name in weights and _belongs(source, op.graph)
    }
    return outputs


def _given(op: tf.Operation) -> _Given | None:
    """The operation's gradient, traced at the first call; None if it is an error's.

    TensorFlow's own functions give an inner gradient that only raises `NotImplementedError`, as
    `tf.recompute_grad` does. Its forward operations are differentiated then.
    """
    cache = op.graph.get_collection_ref(_TRACED)
    if not cache:
        cache.append({})
    if op not in cache[0]:
        function = _tf_private.given_gradient(op)
        try:
            cache[0][op] = None if function is None else _traced(op, function)
        except NotImplementedError:
            if not op.graph.get_collection(_IS_TRACE):
                raise
            cache[0][op] = None
    return cache[0][op]


def _traced(op: tf.Operation, function: Callable[..., Any]) -> _Given:
    takes = [t.dtype.is_floating or t.dtype.is_complex for t in op.outputs]

    def gradient(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
        tf.compat.v1.add_to_collection(_IS_TRACE, True)
        of_output = iter(upstream)
        results = function(op, *[next(of_output) if has else None for has in takes])
        if not isinstance(results, (list, tuple)):
            results = [results]
        return [None if v is None else tf.convert_to_tensor(v) for v in results]

    specs = [
        tf.TensorSpec(t.shape, t.dtype) for t, has in zip(op.outputs, takes, strict=True) if has
    ]
    with op.graph.as_default():
        traced = tf.function(gradient, autograph=False).get_concrete_function(*specs)
    outputs = traced.graph.outputs
    of_input = iter(outputs)
    placeholders = iter(traced.inputs)
    upstream = [next(placeholders) if has else None for has in takes]
    own = {
        id(_tf_private.resolve_capture(p)): p for p in _tf_private.captured_placeholders(op.graph)
    }
    captured = [
        (_source(op, outer, own), inner)
        for outer, inner in zip(traced.captured_inputs, placeholders, strict=True)
    ]
    return _Given(
        control_flow.Body(traced.graph, outputs, graph_walk.needed(traced.graph, outputs), 1),
        upstream,
        captured,
        [None if v is None else next(of_input) for v in traced.structured_outputs],
    )


def _source(op: tf.Operation, outer: tf.Tensor, own: dict[int, tf.Tensor]) -> tf.Tensor:
    """The captured tensor itself, or the tensor of the operation's graph that stands for it.

    Args:
        op: The operation whose gradient captured it.
        outer: The captured tensor.
        own: By identity of an outermost tensor, the placeholder of the graph that stands for it.
    """
    if tf.is_symbolic_tensor(outer) and outer.graph is op.graph:
        return outer
    placeholder = own.get(id(_tf_private.resolve_capture(outer)))
    if placeholder is not None:
        return placeholder
    if tf.is_symbolic_tensor(outer) and any(
        o.type in READS for o in graph_walk.needed(outer.graph, [outer])
    ):
        raise LossNotReplayableError(
            f"The gradient given for {op.name!r} uses a tensor from outside the loop, condition or "
            "function that the operation is in, made of a variable. Pass it to the function as an "
            f"argument. Received: tensor {outer.name!r}"
        )
    return outer


def _gradient(
    given: _Given,
    outputs: Sequence[tf.Tensor],
    upstream: Sequence[tf.Tensor | None],
    used: dict[str, Any],
    weights: set[str],
    run_: control_flow.Run,
) -> list[tf.Tensor | None]:
    """v of u by the given gradient, run again.

    Args:
        given: The gradient.
        outputs: The operation's outputs.
        upstream: u for each of them.
        used: New values of what the gradient captured, by name of a placeholder of its body.
        weights: Names of placeholders of the body that are handles of weights.
        run_: Runs operations.
    """
    env = dict(used)
    for placeholder, u, output in zip(given.upstream, upstream, outputs, strict=True):
        if placeholder is not None:
            env[placeholder.name] = tf.zeros_like(output) if u is None else u
    body = given.body
    run_(body.operations, env, weights, {t.name for t in body.outputs})
    return [None if v is None else env[v.name] for v in given.results]


def _captured(
    op: tf.Operation, given: _Given, env: dict[str, Any], weights: set[str], run_: control_flow.Run
) -> dict[str, Any]:
    """New values of what the gradient captured, by name of a placeholder of its body.

    Args:
        op: The operation.
        given: Its gradient.
        env: New values of its graph's tensors, by name; grows.
        weights: As for `run`.
        run_: Runs operations.
    """
    own = [source for source, _ in given.captured if _belongs(source, op.graph)]
    operations = _operations_to(own, env, op.graph)
    for operation in operations:
        check_replayable(operation)
    names = {source.name for source in own}
    run_(operations, env, weights, names)
    return {
        placeholder.name: here(env.get(source.name, source) if source.name in names else source)
        for source, placeholder in given.captured
    }


def _belongs(tensor: tf.Tensor, graph: tf.Graph) -> bool:
    return tf.is_symbolic_tensor(tensor) and tensor.graph is graph


def _by_results(
    op: tf.Operation, given: _Given, outputs: Sequence[tf.Tensor]
) -> dict[str, tf.Tensor]:
    """By name, new values of what a function returned: its results with the given gradient.

    They are the inputs of `tf.custom_gradient`'s operation that have no gradient, and whose
    outputs somebody takes; a function may return its argument, which keeps its own derivative.
    """
    if op.type != "IdentityN":
        return {}
    returned = {t.name for t in getattr(op.graph, "outputs", ())}
    arguments = {t.name for t, v in zip(op.inputs, given.results, strict=True) if v is not None}
    out = {}
    for inner, outer, new, v in zip(op.inputs, op.outputs, outputs, given.results, strict=True):
        taken = bool(outer.consumers()) or outer.name in returned
        if v is None and taken and inner.name not in arguments:
            out[inner.name] = new
    return out


def _operations_to(
    sources: Sequence[tf.Tensor], env: dict[str, Any], graph: tf.Graph
) -> list[tf.Operation]:
    """Operations that `sources` need beyond what `env` has, in an order in which they can run.

    In a body, which is not visible from where it is run again, those are all; else the ones that
    depend on what `env` has: others keep their values.
    """
    missing: set[tf.Operation] = set()
    pending = [source for source in sources if source.name not in env]
    while pending:
        op = pending.pop().op
        if op not in missing:
            missing.add(op)
            pending.extend(t for t in op.inputs if t.name not in env)
    ordered = [op for op in graph.get_operations() if op in missing and op.type != "Placeholder"]
    if not _tf_private.is_visible(graph):
        return ordered
    new = set(env)
    out = []
    for op in ordered:
        if op.type not in VALUE_INDEPENDENT and any(t.name in new for t in op.inputs):
            new.update(t.name for t in op.outputs)
            out.append(op)
    return out
