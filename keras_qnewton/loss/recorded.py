"""The loss of a traced train step as a function of the weights.

Inside a `tf.function` the loss is a tensor of the graph being built. The operations on a path from
a weight to it are run again, one by one, through `tf.raw_ops`, with the weights replaced by a
caller's tensors. Everything off those paths (the batch, dropout masks, moving statistics) stays the
tensor it was, so

    loss(w)        w: one tensor a weight   ->   scalar

is *this* batch's loss at other weights. Since the operations are run afresh, gradient tapes
record them: derivatives of any order are TensorFlow's own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import control_flow, ctc, custom_gradients, graph_walk
from keras_qnewton.loss.called import Called
from keras_qnewton.loss.derivatives import check_first, check_second
from keras_qnewton.loss.known_values import known_lengths
from keras_qnewton.loss.raw import LossNotReplayableError
from keras_qnewton.loss.replayable import (
    READS,
    VALUE_INDEPENDENT,
    check_replayable,
)
from keras_qnewton.loss.running_again import Hands, run, run_again
from keras_qnewton.loss.stretches import stretches
from keras_qnewton.loss.tensor_lists import MAX_UNROLLED


class CudnnError(LossNotReplayableError):
    """The loss depends on the weights through recurrent layers that cuDNN runs.

    Attributes:
        weights: Positions, among the loss's variables, of those layers' weights, as far as the
            graph tells.
    """

    def __init__(self, operations: Sequence[tf.Operation], weights: set[int]):
        names = ", ".join(repr(op.name) for op in operations)
        super().__init__(
            f"The loss depends on the weights through {operations[0].type!r} ({names}): cuDNN's "
            "recurrent layers have no second derivatives. Pass `use_cudnn=False` to the layer."
        )
        self.weights = weights


class GradientGraph(NamedTuple):
    """Gradients of a loss in a graph of their own.

    Attributes:
        arguments: That graph's placeholders, one a weight.
        gradients: One a weight; None where the loss does not depend on it.
    """

    arguments: Sequence[tf.Tensor]
    gradients: Sequence[tf.Tensor | None]


class RecordedLoss:
    """The traced loss as a Python function of the weights.

    Args:
        loss: Scalar tensor of the `tf.function` graph that is being built.
        variables: The `tf.Variable`s that are the function's arguments, in order.

    Attributes:
        recorded: The loss tensor itself.
        value: It as a scalar: the loss at the variables' present values.
        variables: As given.
        called: Functions of this loss that branches of its graph call.
        factor: S where what was recorded is S times the loss of interest; None if it is that one.
        vectorizable: Whether `tf.vectorized_map` can differentiate it: not if it has a loop
            with an unknown number of turns, or a condition that is decided at run time.

    Raises:
        LossNotReplayableError: If `loss` is not a tensor of a graph, not a scalar or not real, or
            if an operation between the weights and the loss cannot be run again.
    """

    def __init__(self, loss: tf.Tensor, variables: Sequence[tf.Variable]):
        if not tf.is_symbolic_tensor(loss):
            raise LossNotReplayableError(
                "A loss can be recorded only while a `tf.function` is being traced. "
                f"Received: loss={loss!r}"
            )
        if loss.shape.rank not in (0, None):
            raise LossNotReplayableError(
                "Argument `loss` must be a scalar; reduce it, for example with "
                f"`tf.reduce_mean`. Received: loss of shape {loss.shape}"
            )
        if loss.dtype.is_complex:
            raise LossNotReplayableError(
                "Argument `loss` must be real; take `tf.math.real` of it, or `tf.abs`. "
                f"Received: loss of dtype {loss.dtype.name}"
            )
        self.recorded = loss
        self.value = tf.ensure_shape(loss, [])
        self.variables = list(variables)
        self.factor: tf.Tensor | None = None
        self._weight_of = weight_handles(loss.graph, self.variables)
        self._operations = _operations_between(self._weight_of, loss)
        self._known = set(self._operations)
        self._differences: dict[str, tf.Tensor] = {}
        self.called = Called(loss.graph)
        self._unroll_up_to(MAX_UNROLLED)

    def _unroll_up_to(self, turns: int) -> None:
        self._unroll = turns
        self.vectorizable = not _has_dynamic_control_flow(self._operations, [self.recorded], turns)

    def keeping_loops(self, longer_than: int) -> RecordedLoss:
        """The same loss, whose loops of more turns than that stay loops."""
        other = copy.copy(self)
        other._unroll_up_to(min(longer_than, self._unroll))
        return other

    def __call__(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """The loss at `weights`, one tensor a variable, shapes and dtypes as theirs."""
        return self.evaluate(weights)[0]

    def in_line(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """The loss at `weights`, its loops run as loops: quick to trace, and not for pfor."""
        (loss,) = self.fetch([self.recorded.name], weights, unroll=0)
        return tf.ensure_shape(loss, [])

    def value_at(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """`in_line`, by the call of a function that is traced once; not to be differentiated."""

        def value(*points: tf.Tensor) -> tf.Tensor:
            return self.in_line(points)

        found: tf.Tensor = self.called("value", value, weights)
        return found

    def value_and_gradients(
        self, weights: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """`value_at`, and its gradient by one tape: a tensor a weight, None where there is none."""

        def both(*points: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
            with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                value = self.in_line(points)
            gradients = tape.gradient(value, points)
            return value, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

        value, gradients = self.called("value and gradients", both, weights)
        return value, list(gradients)

    def evaluate(
        self,
        weights: Sequence[tf.Tensor],
        *,
        overrides: Mapping[str, tf.Tensor] | None = None,
        shifts: Mapping[str, tf.Tensor] | None = None,
        fetch: Sequence[str] = (),
        unroll: int | None = None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss, a scalar, and the values of other tensors; see `fetch` for the arguments."""
        names = [self.recorded.name, *fetch]
        loss, *others = self.fetch(
            names, weights, overrides=overrides, shifts=shifts, unroll=unroll
        )
        return tf.ensure_shape(loss, []), others

    def gradient_graph(self) -> GradientGraph:
        """The loss's operations, as they are, and their gradients by one tape; run by nobody."""
        graph = self.recorded.graph

        def gradients(*points: tf.Tensor) -> list[tf.Tensor | None]:
            env: dict[str, Any] = {name: points[k] for name, k in self._weight_of.items()}
            with _tf_private.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                run_again(self._operations, env, set(self._weight_of), {self.recorded.name})
            found = tape.gradient(env[self.recorded.name], points)
            return [None if g is None else tf.convert_to_tensor(g) for g in found]

        with graph.as_default():
            specs = [tf.TensorSpec(v.shape, v.dtype) for v in self.variables]
            traced = tf.function(gradients, autograph=False).get_concrete_function(*specs)
        found = traced.graph
        return GradientGraph(found.inputs[: len(specs)], found.structured_outputs)

    def fetch(
        self,
        names: Sequence[str],
        weights: Sequence[tf.Tensor],
        *,
        overrides: Mapping[str, tf.Tensor] | None = None,
        shifts: Mapping[str, tf.Tensor] | None = None,
        observer: control_flow.Observer | None = None,
        unroll: int | None = None,
    ) -> list[tf.Tensor]:
        """Values of tensors of the recorded graph, with a hand on the intermediate results.

        Args:
            names: Names of the tensors. Only what they need is run again.
            weights: One tensor a variable.
            overrides: By name of a tensor of the recorded graph, the value to use instead.
            shifts: By name, what to add to it.
            observer: Is shown each operation, in bodies of functions and loops, too. A
                `LoopObserver` is shown loops that stay loops before they are made.
            unroll: Loops of at most so many turns are run in line, as pfor wants it; those that
                are at present, if None.
        """
        env: dict[str, Any] = {name: weights[k] for name, k in self._weight_of.items()}
        hands = Hands(
            dict(overrides or {}),
            dict(shifts or {}),
            observer,
            self._differences,
            self._unroll if unroll is None else unroll,
        )
        env.update(hands.overrides)
        operations = self.needed_for(names, hands.overrides)
        run(operations, env, set(self._weight_of), set(names), hands)
        return [env[n] if n in env else self.tensor(n) for n in names]

    def needed_for(self, names: Sequence[str], given: Collection[str] = ()) -> list[tf.Operation]:
        """The recorded operations that the named tensors need, in their order.

        Args:
            names: Names of tensors of the recorded graph.
            given: Names of tensors that are held meanwhile.
        """
        needed: set[tf.Operation] = set()
        pending = [self.tensor(name) for name in names]
        while pending:
            tensor = pending.pop()
            if tensor.name not in given and tensor.op not in needed and tensor.op in self._known:
                needed.add(tensor.op)
                difference = self._differences.get(tensor.op.name)
                made_of = ctc.inputs_of(tensor.op) if difference is None else [difference]
                pending.extend(made_of)
        return [op for op in self._operations if op in needed]

    def require_second_derivatives(self, names: Sequence[str], given: Collection[str] = ()) -> None:
        """Refuses operations between the weights and these tensors that have none.

        Args:
            names: Names of tensors of the recorded graph.
            given: Names of tensors that are held meanwhile.

        Raises:
            LossNotReplayableError: If there is one; it names the operation and its layer.
        """
        operations = self.needed_for(names, given)
        for part in stretches(operations, self._weight_of, [self.tensor(n) for n in names]):
            if part.given:
                check_first(part)
            check_second(part)

    def difference(self, op: tf.Operation) -> tf.Tensor:
        """x - y of a recorded (x - y)², as a tensor that is between the two."""
        if op.name not in self._differences:
            with in_graph_of(op):
                found = tf.subtract(*op.inputs)
            self._differences[op.name] = found
            self._operations.insert(self._operations.index(op), found.op)
            self._known.add(found.op)
        return self._differences[op.name]

    def tensor(self, name: str) -> tf.Tensor:
        """The recorded tensor of that name: its value at the variables' present values."""
        return self.recorded.graph.get_tensor_by_name(name)

    def shape(self, name: str) -> tf.TensorShape:
        """The static shape of a recorded tensor, as far as it follows from others'."""
        tensor = self.tensor(name)
        known = known_lengths(tensor.op.inputs[1]) if tensor.op.type == "Reshape" else None
        return tensor.shape if known is None else tensor.shape.merge_with(known)

    @property
    def operations(self) -> list[tf.Operation]:
        """Operations on a path from a weight to the loss, in the order in which they run."""
        return list(self._operations)

    @property
    def handles(self) -> set[str]:
        """Names of the tensors of the recorded graph that are handles of weights."""
        return set(self._weight_of)

    def weight_read_by(self, tensor: tf.Tensor) -> int | None:
        """Which variable `tensor` is the plain value of, or None."""
        op = tensor.op
        while op.type in ("Identity", "Cast"):
            op = op.inputs[0].op
        if op.type == "ReadVariableOp":
            return self._weight_of.get(op.inputs[0].name)
        return None

    def at_variables(self) -> list[tf.Tensor]:
        """The variables' present values, as tensors that can be watched.

        Where the loss has read a variable and nothing assigns it, they are the tensors that it
        read: what is run again at them has run before, and TensorFlow's graph optimiser merges it.
        """
        reads: dict[int, tf.Tensor] = {}
        for op in self._operations:
            k = self._weight_of.get(op.inputs[0].name) if op.type == "ReadVariableOp" else None
            if k is not None and all(user.type in READS for user in op.inputs[0].consumers()):
                reads.setdefault(k, op.outputs[0])
        return [
            reads[k] if k in reads else tf.convert_to_tensor(v)
            for k, v in enumerate(self.variables)
        ]

    def bytes_per_evaluation(self) -> tf.Tensor:
        """Bytes of all intermediate results of one evaluation, a float64 scalar.

        Evaluated at run time where a batch's size is not known while tracing.
        """
        static, dynamic = 0.0, tf.constant(0.0, tf.float64)
        wanted = graph_walk.wanted_names(self._operations, [self.recorded])
        for op in self._operations:
            if op.type in control_flow.TYPES:
                inside, per_batch = control_flow.bytes_inside(op, wanted)
                static += inside
                dynamic += 0.0 if per_batch is None else per_batch
            for tensor in op.outputs:
                if tensor.dtype in (tf.resource, tf.variant, tf.string):
                    continue
                if tensor.shape.is_fully_defined():
                    static += tensor.shape.num_elements() * tensor.dtype.size
                else:
                    count = tf.cast(tf.size(tensor, out_type=tf.int64), tf.float64)
                    dynamic += count * tensor.dtype.size
        return static + dynamic


def in_graph_of(recorded: tf.Operation | tf.Tensor) -> contextlib.AbstractContextManager[object]:
    """Where operations are made beside the recorded one; names are those of one graph.

    An optimizer may be called in a branch of it, a graph of its own.
    """
    graph = recorded.graph
    here = graph is tf.compat.v1.get_default_graph()
    return contextlib.nullcontext() if here else graph.as_default()


def weight_handles(graph: tf.Graph, variables: Sequence[tf.Variable]) -> dict[str, int]:
    """Name of the graph's placeholder for each variable's handle -> the variable's index."""
    index = {id(v.handle): k for k, v in enumerate(variables)}
    out = {}
    for placeholder in _tf_private.captured_placeholders(graph):
        if placeholder.dtype == tf.resource:
            k = index.get(id(_tf_private.resolve_capture(placeholder)))
            if k is not None:
                out[placeholder.name] = k
    return out


def _operations_between(weight_of: dict[str, int], loss: tf.Tensor) -> list[tf.Operation]:
    """Operations on a path from a weight to the loss, in an order in which they can run."""
    graph = loss.graph
    forward: set[tf.Operation] = set()
    stack = [graph.get_tensor_by_name(name) for name in weight_of]
    while stack:
        for op in stack.pop().consumers():
            if op in forward or op.type in VALUE_INDEPENDENT:
                continue
            forward.add(op)
            stack.extend(op.outputs)
    needed: set[tf.Operation] = set()
    pending = [loss.op]
    while pending:
        op = pending.pop()
        if op in needed or op not in forward:
            continue
        needed.add(op)
        pending.extend(tensor.op for tensor in ctc.inputs_of(op))
    # Creation order is a topological order: a graph's operations take existing tensors.
    operations = [op for op in graph.get_operations() if op in needed]
    parts = stretches(operations, weight_of, [loss])
    walked = [op for part in parts for op in part.operations]
    by_cudnn = [op for op in walked if op.type.startswith("CudnnRNN")]
    if by_cudnn:
        raise CudnnError(by_cudnn, _weights_behind([op.inputs[3] for op in by_cudnn], weight_of))
    for op in walked:
        check_replayable(op)
    for part in parts:
        if not part.given:
            check_first(part)
    return operations


def _weights_behind(tensors: Sequence[tf.Tensor], weight_of: dict[str, int]) -> set[int]:
    """Positions of the variables that the tensors are made of."""
    found: set[int] = set()
    seen: set[str] = set()
    pending = list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor.name in weight_of:
            found.add(weight_of[tensor.name])
        elif tensor.name not in seen:
            seen.add(tensor.name)
            pending.extend(tensor.op.inputs)
    return found


def _has_dynamic_control_flow(
    operations: Sequence[tf.Operation], outputs: Sequence[tf.Tensor], unroll: int
) -> bool:
    wanted = graph_walk.wanted_names(operations, outputs)
    return any(
        control_flow.is_dynamic(op, wanted, unroll)
        or any(
            _has_dynamic_control_flow(body.operations, body.outputs, unroll)
            for body in control_flow.bodies(op, wanted)
        )
        for op in operations
        if op.type in control_flow.TYPES
    ) or any(
        _has_dynamic_control_flow(body.operations, body.outputs, unroll)
        for op in operations
        if op.type not in control_flow.TYPES
        for body in custom_gradients.bodies(op)
    )
