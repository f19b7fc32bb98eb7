"""Operations of a recorded graph, run again one by one with other values of the weights.

Where an operation has an equal form with more derivatives (`FORMS`), that is run in its place.
Reads of a variable give the caller's tensor. Loops of few turns are run in line.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.loss import (
    control_flow,
    ctc,
    custom_gradients,
    graph_walk,
    magnitudes,
    tensor_lists,
    windows,
)
from keras_qnewton.loss.forms import FORMS
from keras_qnewton.loss.moments import is_moments_stop
from keras_qnewton.loss.raw import raw_op
from keras_qnewton.loss.replayable import IDENTITIES
from keras_qnewton.loss.tensor_lists import MAX_UNROLLED

# Elements of shapes, of lists of axes and of other constants, at most.
_FEW = 32


class Hands(NamedTuple):
    """What is done to the tensors of one graph while it is run again.

    Attributes:
        overrides: By name of a tensor, the value to use instead.
        shifts: By name, what to add to it.
        observer: Is shown each operation, in bodies of functions and loops, too.
        differences: By name of a squared difference of two tensors that both depend on weights, the
            difference, which is run again apart.
        unroll: Loops of at most so many turns are run in line.
        literal: Whether nothing stands in for an operation that has no second derivative.
    """

    overrides: Mapping[str, tf.Tensor] = MappingProxyType({})
    shifts: Mapping[str, tf.Tensor] = MappingProxyType({})
    observer: control_flow.Observer | None = None
    differences: Mapping[str, tf.Tensor] = MappingProxyType({})
    unroll: int = MAX_UNROLLED
    literal: bool = False

    def of_bodies(self) -> Hands:
        """Those in the body of a function or a loop, whose tensors have names of their own."""
        return Hands(observer=self.observer, unroll=self.unroll, literal=self.literal)


def run_again(
    operations: Sequence[tf.Operation], env: dict[str, Any], handles: set[str], names: set[str]
) -> None:
    """Runs recorded operations as they are, loops as loops; results are added to `env`.

    Nothing stands in for an operation that has no second derivative: who records what is made
    here sees to that.

    Args:
        operations: In an order in which they can run.
        env: By name of a tensor of the recorded graph, its new value; of a variable's handle,
            the variable's.
        handles: Names of the tensors that are handles of weights.
        names: Names of the tensors that are wanted.
    """
    run(operations, env, handles, names, Hands(unroll=0, literal=True))


def run(
    operations: Sequence[tf.Operation],
    env: dict[str, Any],
    resource_names: set[str],
    names: set[str],
    hands: Hands,
) -> None:
    """Runs operations again; `env` maps tensor names to their new values, and grows.

    `names` are those of the tensors that somebody wants.
    """
    wanted = names | graph_walk.wanted_names(operations, [])
    run_body = functools.partial(run, hands=hands.of_bodies())
    changed = {*hands.overrides, *hands.shifts}
    for op in operations:
        inputs = [env[t.name] if t.name in env else _seen_from_here(t, env) for t in op.inputs]
        if op.type == "ReadVariableOp" and op.inputs[0].name in resource_names:
            outputs = [inputs[0]]
        elif op.type == "ResourceGatherNd" and op.inputs[0].name in resource_names:
            outputs = [tf.gather_nd(inputs[0], inputs[1])]
        elif op.type == "ResourceGather" and op.inputs[0].name in resource_names:
            batch_dims = op.get_attr("batch_dims")
            outputs = [tf.gather(inputs[0], inputs[1], batch_dims=batch_dims)]
        elif op.type == "VariableShape" and op.inputs[0].name in resource_names:
            outputs = [tf.shape(inputs[0], out_type=op.outputs[0].dtype)]
        elif op.name in hands.differences:
            outputs = [tf.square(env[hands.differences[op.name].name])]
        elif op.type in control_flow.TYPES:
            outputs = control_flow.run(
                op,
                inputs,
                wanted,
                resource_names,
                run_body,
                unroll=hands.unroll,
                observer=hands.observer,
            )
        elif hands.unroll and tensor_lists.is_list_operation(op, inputs):
            outputs = tensor_lists.list_operation(op, inputs, hands.unroll)
        elif ctc.is_dense_loss(op):
            outputs = ctc.run(inputs)
        elif custom_gradients.is_given(op):
            outputs = custom_gradients.run(op, inputs, env, resource_names, run_body)
        elif not hands.literal and (smooth := magnitudes.run(op, inputs, env, changed)):
            outputs = smooth
        elif not hands.literal and (differentiable := _differentiable(op, inputs, operations)):
            outputs = differentiable
        elif op.type == "Const":
            outputs = [tf.constant(tf.make_ndarray(op.get_attr("value")))]
        else:
            outputs = raw_op(op)(inputs)
        _keep_shapes(op.outputs, outputs)
        if hands.observer is not None:
            others = hands.observer(op, inputs, outputs)
            outputs = outputs if others is None else list(others)
        for tensor, out in zip(op.outputs, outputs, strict=True):
            if out is None:  # an output of a loop or condition that nothing needs
                continue
            value = hands.overrides.get(tensor.name, out)
            shift = hands.shifts.get(tensor.name)
            env[tensor.name] = value if shift is None else value + shift


def _differentiable(
    op: tf.Operation, inputs: list[Any], operations: Sequence[tf.Operation]
) -> list[Any]:
    """The outputs of an equal form that has more derivatives; empty where `op` is run itself."""
    if op.type in IDENTITIES:
        return inputs[:1]
    if op.type == "StopGradient" and is_moments_stop(op, operations):
        # tf.nn.moments stops the gradient of the mean inside the variance. The first
        # derivative is exact all the same, since the mean minimises the squared
        # difference; the second derivative is wrong without this.
        return [inputs[0]]
    if op.type in FORMS:
        return list(FORMS[op.type](op, inputs))
    if windows.is_grouped(op):
        return [windows.grouped_convolution(op, *inputs)]
    return []


def _seen_from_here(tensor: tf.Tensor, env: dict[str, Any]) -> tf.Tensor:
    """A tensor that is not run again; a few known numbers as a constant of the present graph.

    What is captured from a graph around this one has no known value. Some operations need that of
    a shape or an axis, and TensorFlow's graph optimiser that of a number: x**2 is then a square.
    """
    count = tensor.shape.num_elements()
    few = (tensor.dtype.is_integer or tensor.dtype.is_floating) and count is not None
    few = few and count <= _FEW
    if not few or tensor.graph is tf.compat.v1.get_default_graph():
        return tensor
    value = tf.get_static_value(tensor)
    if value is not None:
        env[tensor.name] = tf.constant(value, tensor.dtype)
    return env.get(tensor.name, tensor)


def _keep_shapes(recorded: Sequence[tf.Tensor], outputs: Sequence[Any]) -> None:
    """Gives tensors the shapes that were known of the recorded ones.

    In a branch of a graph a constant of the graph around it is no longer known, and with it the
    shape of what is made to that shape.
    """
    for tensor, out in zip(recorded, outputs, strict=True):
        if tf.is_tensor(out) and tf.is_symbolic_tensor(out) and out.dtype != tf.variant:
            out.set_shape(tensor.shape)
