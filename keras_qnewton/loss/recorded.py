"""The loss of a traced train step as a function of the weights.

Inside a `tf.function` the loss is a tensor of the graph being built. Of the operations that
produced it, those on a path from a weight to the loss are run again, one by one, through
`tf.raw_ops`, with the weights replaced by a caller's tensors. Everything off those paths
(the batch, dropout masks, moving statistics) stays the tensor it was, so

    loss(w)        w: one tensor a weight   ->   scalar

is *this* batch's loss at other weights. Since the operations are run afresh, gradient tapes
record them: derivatives of any order are TensorFlow's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private

# Their results depend on the shape of their input, never on its values: what is downstream
# of them only (a dropout mask's shape, a batch size) must stay the tensor it was, or masks
# would be drawn again.
_VALUE_INDEPENDENT = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}
_READS = {"ReadVariableOp", "ResourceGather"}


class LossNotReplayableError(ValueError):
    """The loss uses an operation that cannot be run again as a function of the weights."""


class RecordedLoss:
    """The traced loss as a Python function of the weights.

    Args:
        loss: Scalar tensor of the `tf.function` graph that is being built.
        variables: The `tf.Variable`s that are the function's arguments, in order.

    Attributes:
        value: The loss tensor itself, a scalar: the loss at the variables' present values.
        variables: As given.

    Raises:
        LossNotReplayableError: If `loss` is not a tensor of a graph, or if an operation
            between the weights and the loss cannot be run again.
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
        self._loss = loss
        self.value = tf.ensure_shape(loss, [])
        self.variables = list(variables)
        self._weight_of = _weight_handles(loss.graph, self.variables)
        self._operations = _operations_between(self._weight_of, loss)
        self.has_custom_gradient = any(
            _tf_private.has_gradient_override(op) for op in _walk(self._operations)
        )

    def __call__(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """The loss at `weights`, one tensor a variable, shapes and dtypes as theirs."""
        return self.evaluate(weights)[0]

    def evaluate(
        self,
        weights: Sequence[tf.Tensor],
        *,
        overrides: Mapping[str, tf.Tensor] | None = None,
        shifts: Mapping[str, tf.Tensor] | None = None,
        fetch: Sequence[str] = (),
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss, with a hand on the intermediate results.

        Args:
            weights: One tensor a variable.
            overrides: By name of a tensor of the recorded graph, the value to use instead.
            shifts: By name, what to add to it.
            fetch: Names of tensors whose values are wanted, too.

        Returns:
            The loss, a scalar, and the fetched values.
        """
        env: dict[str, Any] = {name: weights[k] for name, k in self._weight_of.items()}
        _run(self._operations, env, set(self._weight_of), overrides or {}, shifts or {})
        graph = self._loss.graph
        fetched = [env[n] if n in env else graph.get_tensor_by_name(n) for n in fetch]
        return tf.ensure_shape(env.get(self._loss.name, self._loss), []), fetched

    @property
    def operations(self) -> list[tf.Operation]:
        """Operations on a path from a weight to the loss, in the order in which they run."""
        return list(self._operations)

    def weight_read_by(self, tensor: tf.Tensor) -> int | None:
        """Which variable `tensor` is the plain value of, or None."""
        op = tensor.op
        while op.type in ("Identity", "Cast"):
            op = op.inputs[0].op
        if op.type == "ReadVariableOp":
            return self._weight_of.get(op.inputs[0].name)
        return None

    def at_variables(self) -> list[tf.Tensor]:
        """The variables' present values, as tensors that can be watched."""
        return [tf.convert_to_tensor(v) for v in self.variables]

    def bytes_per_evaluation(self) -> tf.Tensor:
        """Bytes of all intermediate results of one evaluation, a float64 scalar.

        Evaluated at run time where a batch's size is not known while tracing.
        """
        static, dynamic = 0.0, tf.constant(0.0, tf.float64)
        for op in self._operations:
            for tensor in op.outputs:
                if tensor.dtype in (tf.resource, tf.variant, tf.string):
                    continue
                if tensor.shape.is_fully_defined():
                    static += tensor.shape.num_elements() * tensor.dtype.size
                else:
                    count = tf.cast(tf.size(tensor, out_type=tf.int64), tf.float64)
                    dynamic += count * tensor.dtype.size
        return static + dynamic


def _weight_handles(graph: Any, variables: Sequence[tf.Variable]) -> dict[str, int]:
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
            if op in forward or op.type in _VALUE_INDEPENDENT:
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
        pending.extend(tensor.op for tensor in op.inputs)
    # Creation order is a topological order: a graph's operations take existing tensors.
    operations = [op for op in graph.get_operations() if op in needed]
    for op in _walk(operations):
        _check_replayable(op)
    return operations


def _walk(operations: Sequence[tf.Operation]) -> list[tf.Operation]:
    """The operations, and those inside the functions that they call."""
    out = []
    for op in operations:
        out.append(op)
        if op.type in _CALLS:
            body = _tf_private.function_body(op)
            out.extend(_walk(_needed(body, body.outputs)))
    return out


def _needed(graph: Any, outputs: Sequence[tf.Tensor]) -> list[tf.Operation]:
    needed: set[tf.Operation] = set()
    pending = [tensor.op for tensor in outputs]
    while pending:
        op = pending.pop()
        if op not in needed:
            needed.add(op)
            pending.extend(tensor.op for tensor in op.inputs)
    return [op for op in graph.get_operations() if op in needed]


def _check_replayable(op: tf.Operation) -> None:
    if op.type in _CALLS or op.type in _READS:
        return
    if op.type in _CONTROL_FLOW:
        raise LossNotReplayableError(
            f"The loss depends on the weights through a {op.type!r} operation ({op.name!r}): a "
            "loop or a condition of the graph, as recurrent layers make. Its second derivatives "
            "are not supported yet. For a recurrent layer pass `unroll=True`."
        )
    if op.op_def.is_stateful:
        raise LossNotReplayableError(
            f"The loss depends on the weights through {op.type!r} ({op.name!r}), which has a "
            "state or leaves the graph, so that it cannot be evaluated again at other weights. "
            "Use TensorFlow's stateless operations there (for random numbers, "
            "`tf.random.stateless_*` with a Keras `SeedGenerator`)."
        )


def _run(
    operations: Sequence[tf.Operation],
    env: dict[str, Any],
    resource_names: set[str],
    overrides: Mapping[str, Any] = MappingProxyType({}),
    shifts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Runs operations again; `env` maps tensor names to their new values, and grows."""
    for op in operations:
        inputs = [env.get(tensor.name, tensor) for tensor in op.inputs]
        if op.type == "ReadVariableOp" and op.inputs[0].name in resource_names:
            outputs = [inputs[0]]
        elif op.type == "ResourceGather" and op.inputs[0].name in resource_names:
            batch_dims = op.get_attr("batch_dims")
            outputs = [tf.gather(inputs[0], inputs[1], batch_dims=batch_dims)]
        elif op.type in _CALLS:
            outputs = _run_call(op, inputs, resource_names)
        elif _is_moments_stop(op):
            # tf.nn.moments stops the gradient of the mean inside the variance. The first
            # derivative is exact all the same, since the mean minimises the squared
            # difference; the second derivative is wrong without this.
            outputs = [inputs[0]]
        elif op.type == "Const":
            outputs = [tf.constant(tf.make_ndarray(op.get_attr("value")))]
        else:
            outputs = _raw_op(op)(inputs)
        for tensor, out in zip(op.outputs, outputs, strict=True):
            value = overrides.get(tensor.name, out)
            env[tensor.name] = value + shifts[tensor.name] if tensor.name in shifts else value


def _run_call(op: tf.Operation, inputs: list[Any], resource_names: set[str]) -> list[Any]:
    """Runs the body of a called function here, so that tapes see its operations."""
    body = _tf_private.function_body(op)
    inner = dict(zip((t.name for t in body.inputs), inputs, strict=True))
    weights = {
        tensor.name
        for tensor, outer in zip(body.inputs, op.inputs, strict=True)
        if outer.name in resource_names
    }
    operations = [o for o in _needed(body, body.outputs) if o.type != "Placeholder"]
    _run(operations, inner, weights)
    return [inner[tensor.name] for tensor in body.outputs]


def _is_moments_stop(op: tf.Operation) -> bool:
    return (
        op.type == "StopGradient"
        and op.inputs[0].op.type == "Mean"
        and any(user.type == "SquaredDifference" for user in op.outputs[0].consumers())
    )


def _raw_op(op: tf.Operation) -> Callable[[list[Any]], list[Any]]:
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
