"""Every use of TensorFlow that its public API does not promise, and nothing else.

Each function names the public alternative that was tried, so that one can go back to it
as soon as it will do.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util
from tensorflow.python.ops.parallel_for import pfor

# Priority of the creator of variables that `tf.function` registers.
_OF_FUNCTIONS = 50


def resolve_capture(tensor: tf.Tensor) -> tf.Tensor:
    """The outermost tensor that a graph's captured placeholder stands for.

    Inside a `tf.function` a variable's handle is a placeholder of the function's graph,
    perhaps through several nested graphs (`steps_per_execution`, `tf.cond`).

    Public alternative tried: `ConcreteFunction.captured_inputs`, which exists only once
    tracing is over; the loss is needed while the train step is still being traced.
    """
    while not tf.is_tensor(tensor) or tf.is_symbolic_tensor(tensor):
        captures = getattr(tensor.graph, "captures", ())
        outer = next((ext for ext, internal in captures if internal is tensor), None)
        if outer is None:
            return tensor
        tensor = outer
    return tensor


def captured_from(tensor: tf.Tensor) -> tf.Tensor | None:
    """The tensor that a graph's captured placeholder stands for in the graph around it, or None.

    Public alternative tried: as for `resolve_capture`.
    """
    captures = getattr(tensor.graph, "captures", ())
    return next((outer for outer, internal in captures if internal is tensor), None)


def captured_placeholders(graph: tf.Graph) -> list[tf.Tensor]:
    """The placeholders of a `tf.function`'s graph that stand for captured tensors.

    Public alternative tried: listing operations of type Placeholder, which also gives the
    function's arguments.
    """
    return [internal for _, internal in getattr(graph, "captures", ())]


def function_bodies(op: tf.Operation) -> list[tf.Graph]:
    """The graphs that a call or a condition may run; a condition's first is for "true".

    Their `inputs` and `outputs` correspond one to one to those of the operation (without a
    condition's predicate).

    Public alternative tried: `tf.Graph.as_graph_def().library`, a protobuf that has to be
    imported again: operations made by an import are not recorded by a `GradientTape`.
    """
    if op.type in ("If", "StatelessIf"):
        functions = [op.get_attr("then_branch"), op.get_attr("else_branch")]
    elif op.type in ("Case", "StatelessCase"):
        functions = op.get_attr("branches")
    else:
        functions = [op.get_attr("f")]
    return [op.graph._get_function(f.name).graph for f in functions]


def loop_bodies(op: tf.Operation) -> tuple[tf.Graph, tf.Graph]:
    """The graphs of a loop's condition and body; their inputs are those of the operation.

    Public alternative tried: as for `function_bodies`.
    """
    names = (op.get_attr("cond").name, op.get_attr("body").name)
    cond, body = (op.graph._get_function(name).graph for name in names)
    return cond, body


def registered_gradient(kind: str) -> Callable[..., Any] | None:
    """TensorFlow's gradient of a type of operation, of (operation, *upstream); None if zero.

    Public alternative tried: differentiating one, which needs valid inputs and attributes.

    Raises:
        LookupError: If it has none.
    """
    return ops.gradient_registry.lookup(kind)


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.custom_gradient`, whose gradients are freed with the graph that they are of.

    Public alternative tried: `tf.custom_gradient` alone. It registers a gradient for the life of
    the process, and the gradient holds the tensors that it is closed over, and so their graph.
    """
    given = tf.custom_gradient(function)

    def call(*args: tf.Tensor) -> Any:
        known = set(ops.gradient_registry._registry)
        results = given(*args)
        for name in set(ops.gradient_registry._registry) - known:
            _free_with_graph(name)
        return results

    return call


def _free_with_graph(name: str) -> None:
    """Has the gradient registered under `name` live as long as the graph that is being built."""
    registry = ops.gradient_registry._registry
    entry = registry.get(name, {})
    gradient = entry.get("type")
    if gradient is None or isinstance(gradient, _Weakly):
        return
    graph = tf.compat.v1.get_default_graph()
    # The outermost function's: those inside of it may be copied, and have the same gradients.
    while hasattr(getattr(graph, "outer_graph", None), "outer_graph"):
        graph = graph.outer_graph
    graph.add_to_collection("keras_qnewton/gradients", gradient)
    entry["type"] = _Weakly(gradient, lambda: registry.pop(name, None))


class _Weakly:
    """A gradient that something else holds."""

    def __init__(self, gradient: Callable[..., Any], then: Callable[[], object]):
        self._gradient = weakref.ref(gradient, lambda _: then())

    def __call__(self, op: tf.Operation, *upstream: Any) -> Any:
        gradient = self._gradient()
        assert gradient is not None, "The graph of this operation's gradient is gone."
        return gradient(op, *upstream)


def vectorize_over_batches(kind: str, inputs: Sequence[int]) -> None:
    """Has `tf.vectorized_map` run an operation once, for the batches of all turns together.

    Public alternative tried: none is offered. Without it `vectorized_map` makes a loop of one turn
    an element, and warns of it.

    Args:
        kind: A type of operation that works on each image of a batch.
        inputs: Positions of its inputs, and all outputs are, batches.
    """
    if kind not in pfor._pfor_converter_registry:
        register = pfor.RegisterPForWithArgs(kind, dims=list(inputs))
        register(pfor._convert_flatten_batch)


def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """`tf.vectorized_map`, without what it keeps of each convolution for the life of the process.

    Its tables of reshaped images have graphs for keys, which outlive their models.

    Public alternative tried: `tf.vectorized_map` alone, which has no way to clear them.
    """
    images = pfor._channel_flatten_input_cache
    before = set(images)
    try:
        return tf.vectorized_map(function, elements)
    finally:
        for key in set(images) - before:
            del images[key]


def given_gradient(op: tf.Operation) -> Callable[..., object] | None:
    """The function that was given for an operation's gradient, of (operation, *upstream).

    `tf.custom_gradient` and `tf.Graph.gradient_override_map` name one in an attribute; None if
    there is none, or if it is not known here, as for a loaded model.

    Public alternative tried: making the operation again under `gradient_override_map`, with that
    name. The function is closed over the first operation's tensors, so that the gradient would be
    the one at the weights of the first trace.
    """
    try:
        name = op.get_attr("_gradient_op_type")
        return ops.gradient_registry.lookup(tf.compat.as_str(name))
    except (ValueError, LookupError):
        return None


def returned(op: tf.Operation) -> list[tf.Tensor]:
    """The outputs of an operation, of a called function those that the function returns.

    A tape has functions return their intermediate results, too, for the backward pass.

    Public alternative tried: `tf.Operation.outputs`, which has them all.
    """
    outputs = list(op.outputs)
    if op.type not in ("PartitionedCall", "StatefulPartitionedCall"):
        return outputs
    (graph,) = function_bodies(op)
    structure = tf.nest.flatten(graph.structured_outputs, expand_composites=True)
    return outputs[: sum(tf.is_tensor(t) for t in structure)]


def is_visible(graph: tf.Graph) -> bool:
    """Whether operations that are made now may take the graph's tensors.

    Public alternative tried: making one. What it raises outside depends on the kind of graph.
    """
    current = tf.compat.v1.get_default_graph()
    while current is not None and current is not graph:
        current = getattr(current, "outer_graph", None)
    return current is graph


def compiled_by_xla() -> bool:
    """Whether the graph that is being traced is of a call with `jit_compile=True`.

    Public alternative tried: none tells while tracing. An operation that XLA does not compile would
    end such a call.
    """
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def cond(predicate: Any, true: Callable[[], Any], false: Callable[[], Any]) -> Any:
    """`tf.cond`, whose branches are prepared when they are first taken, not when the graph is.

    A step has large branches that hardly ever run. TensorFlow writes those of a `tf.cond` into the
    graph around it, and prepares them all before the first step.

    Public alternative tried: `tf.cond` alone, which has no argument for it.
    """
    found = tf.cond(predicate, true, false)
    _keep_functional(found)
    return found


def rarely(predicate: Any, rare: Callable[[], Any], usual: Callable[[], Any]) -> Any:
    """`cond`, whose second branch is the usual one and is written into the graph around it.

    To call a function takes as long as some fifty operations on scalars.

    Public alternative tried: as for `cond`.
    """
    return tf.cond(predicate, lambda: cond(predicate, rare, usual), usual)


def while_loop(*args: Any, **kwargs: Any) -> Any:
    """`tf.while_loop`, whose body is prepared when it first runs; see `cond`."""
    found = tf.while_loop(*args, **kwargs)
    _keep_functional(found)
    return found


def _keep_functional(results: Any) -> None:
    """Has the operation that these are results of call its functions, not be replaced by them."""
    for tensor in tf.nest.flatten(results):
        if not tf.is_tensor(tensor) or not tf.is_symbolic_tensor(tensor):
            continue
        op = tensor.op.inputs[0].op if tensor.op.type == "Identity" else tensor.op
        if op.type in ("If", "StatelessIf", "While", "StatelessWhile"):
            op._set_attr("_lower_using_switch_merge", attr_value_pb2.AttrValue(b=False))
            return


def run_after(later: tf.Operation, earlier: tf.Operation) -> None:
    """Has an operation of a graph that is being built wait for one that was made after it.

    Public alternative tried: `tf.control_dependencies`, which is heard by operations that are made
    inside of it alone; those of a forward pass are there before the optimizer is called.
    """
    later._add_control_input(earlier)


@contextlib.contextmanager
def outside_of_functions() -> Iterator[None]:
    """Where variables are made at once, and no `tf.function` that is being traced hears of them.

    A function that makes variables while it is traced is traced twice.

    Public alternative tried: `tf.init_scope`, which takes along the creator by which such a
    function catches its variables. It is the one of that priority; strategies have their own.
    """
    with tf.init_scope():
        graph = tf.compat.v1.get_default_graph()
        before = graph._variable_creator_stack
        graph._variable_creator_stack = [
            (priority, creator) for priority, creator in before if priority != _OF_FUNCTIONS
        ]
        try:
            yield
        finally:
            graph._variable_creator_stack = before


@contextlib.contextmanager
def outside_of_strategies() -> Iterator[None]:
    """Where variables are made at once, one copy each, whatever strategy has a scope here.

    Public alternative tried: `tf.init_scope` and `Strategy.scope`, of which another strategy's
    cannot be entered in one. A mirrored variable cannot be assigned in a branch of a graph.
    """
    with tf.init_scope():
        graph = tf.compat.v1.get_default_graph()
        creators, strategies = graph._variable_creator_stack, graph._distribution_strategy_stack
        graph._variable_creator_stack, graph._distribution_strategy_stack = [], []
        try:
            yield
        finally:
            graph._variable_creator_stack = creators
            graph._distribution_strategy_stack = strategies


class GradientTape(tf.GradientTape):
    """A tape that leaves no graph behind: TensorFlow's loses references to some gradients.

    Where two sources have the very same tensor for their gradient, as a sum and one of its terms
    have, TensorFlow counts one reference to it too many. The tensor is then never freed, nor is its
    graph, long after model and optimizer are gone.

    Public alternatives tried: a call for each source, which makes the operations of the backward
    pass once for each; `tf.gradients`, which does not know what a tape was told to watch.
    """

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: Any = tf.UnconnectedGradients.NONE,
    ) -> Any:
        found = super().gradient(target, sources, output_gradients, unconnected_gradients)
        gradients = tf.nest.flatten(found)
        # Few calls have such gradients, and only they need to know what TensorFlow does.
        if len({id(g) for g in gradients}) < len(gradients) and _loses_shared_gradients():
            _release_shared(tf.nest.flatten(sources), gradients)
        return found


def _release_shared(sources: Sequence[Any], gradients: Sequence[Any]) -> None:
    """Gives back the reference to each gradient that was counted for a further source."""
    seen: dict[int, set[int]] = {}  # what a source given twice has is counted as it should be
    for source, gradient in zip(sources, gradients, strict=True):
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        if tf.is_tensor(values) and tf.is_symbolic_tensor(values):
            of_sources = seen.setdefault(id(gradient), set())
            key = id(getattr(source, "handle", source))
            if of_sources and key not in of_sources:
                ctypes.pythonapi.Py_DecRef(ctypes.py_object(gradient))
            of_sources.add(key)


@functools.cache
def _loses_shared_gradients() -> bool:
    """Whether this TensorFlow does: one that is mended must not be corrected."""
    with concurrent.futures.ThreadPoolExecutor(1) as other:  # tapes of this thread count, too
        return other.submit(_lost_references).result() == 1


def _lost_references() -> int:
    """How many references to one gradient of two sources are left when the gradients are gone."""
    with tf.Graph().as_default():
        seed, point = tf.zeros([2]), tf.zeros([2])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            term = tf.tanh(point)
            total = tf.identity(term)
        before = sys.getrefcount(seed)
        tape.gradient(total, [term, total], seed)
        lost = sys.getrefcount(seed) - before
        if lost == 1:
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(seed))
    return lost


@functools.cache
def raw_op_parameters(function: Callable[..., object]) -> list[str]:
    """Names of the arguments of a `tf.raw_ops` function, in order, without `name`.

    `tf.raw_ops` renames some arguments of the operation's definition (`reduction_indices`
    became `axis`); their order is kept.

    Public alternative tried: the operation definition's own names, which the renamed
    arguments do not accept.
    """
    signature = inspect.signature(getattr(function, "__wrapped__", function))
    return [name for name in signature.parameters if name != "name"]
