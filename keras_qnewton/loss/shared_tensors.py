"""Tensors that all examples share, and that weights enter otherwise than linearly.

    s = s(w)             no axis of examples: a batch normalisation's scale and offset, of the
                         statistics of all examples; a kernel that is a function of its weight
    z_b = f(w, s, x_b)   an example's output depends on its own rows alone, while s is held

They are found by following examples through the recorded operations (`example_axes`). What is
found is a guess, which whoever builds on it has to verify.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_qnewton.loss import control_flow, custom_gradients, tensor_lists
from keras_qnewton.loss.example_axes import after
from keras_qnewton.loss.example_states import MIXED, OF_WEIGHTS, Rows, State
from keras_qnewton.loss.joined_rows import rows_joined
from keras_qnewton.loss.known_values import known_value, reduced_axes
from keras_qnewton.loss.moments import is_moments_stop
from keras_qnewton.loss.recorded import RecordedLoss
from keras_qnewton.loss.views import is_move

_REDUCTIONS = {"Mean", "Sum", "Max", "Min", "Prod"}
# Whose result has the shape that its inputs have together, and no axis more.
_BY_ELEMENT = {"AddV2", "Add", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow", "BiasAdd"}


def shared_tensors(loss: RecordedLoss, outputs: Sequence[str]) -> list[str]:
    """Names of these tensors; none where not all outputs can be followed.

    Args:
        loss: The recorded loss.
        outputs: Names of its tensors z.
    """
    operations = loss.needed_for(outputs)
    walk = _Walk(loss, operations)
    for op in operations:
        walk.through(op)
    if not walk.entering or any(walk.states.get(name) == MIXED for name in outputs):
        return []
    needed = loss.needed_for(outputs, walk.entering)
    inputs = {t.name: t for op in needed for t in op.inputs if t.name in walk.entering}
    if not all(t.dtype.is_floating and t.shape.is_fully_defined() for t in inputs.values()):
        return []
    return list(inputs)


class _Walk:
    """What is known of the tensors so far.

    Attributes:
        states: By name: where a tensor has its examples, `OF_WEIGHTS` if it has none.
        entering: Names of tensors that are shared, and enter what has examples.
    """

    def __init__(self, loss: RecordedLoss, operations: Sequence[tf.Operation]):
        self._handles, self._operations = loss.handles, operations
        self.states: dict[str, State] = dict.fromkeys(loss.handles, OF_WEIGHTS)
        self._made: set[str] = set()  # without examples, and not elements of a weight
        self.entering: set[str] = set()

    def through(self, op: tf.Operation) -> None:
        """Goes through one operation."""
        states = [self.states.get(t.name) for t in op.inputs]
        stops = op.type == "StopGradient" and not is_moments_stop(op, self._operations)
        if stops or all(state is None for state in states):
            return
        for tensor, state in zip(op.outputs, self._after(op, states), strict=True):
            self.states[tensor.name] = state

    def _after(self, op: tf.Operation, states: Sequence[State | None]) -> list[State]:
        if op.type in control_flow.TYPES or op.type in tensor_lists.TYPES:
            return _after_a_loop(op)
        if MIXED in states or custom_gradients.is_given(op):
            return [MIXED] * len(op.outputs)
        if op.type == "StopGradient":
            return self._without_examples(op, made=True)
        if not any(isinstance(state, Rows) for state in states):
            return self._of_weights(op, states)
        if _is_reduced(op, states):
            return self._without_examples(op, made=True)
        self._enter(op)
        return [after(op, op.inputs, states, out) for out in op.outputs]

    def _of_weights(self, op: tf.Operation, states: Sequence[State | None]) -> list[State]:
        """After an operation on tensors without examples, and on what depends on no weight."""
        ours = [t for t, state in zip(op.inputs, states, strict=True) if state is not None]
        others = [t for t, state in zip(op.inputs, states, strict=True) if state is None]
        data = [t for t in others if t.dtype.is_floating]  # others are shapes and axes
        if "Gather" in op.type and known_value(op.inputs[1]) is None:
            return [Rows(0, 1)]
        if op.inputs[0].name in self._handles:
            return self._without_examples(op, made=False)
        if is_move(op.type):
            made = any(t.name in self._made for t in ours)
            return self._without_examples(op, made)
        alone = not any(t.shape.rank for t in data)
        if alone or (op.type in _BY_ELEMENT and _has_shape_of(op.outputs[0], ours)):
            return self._without_examples(op, made=True)
        self._enter(op)
        return [Rows(0, rows_joined(op.inputs[0]))] * len(op.outputs)

    def _without_examples(self, op: tf.Operation, made: bool) -> list[State]:
        if made:
            self._made.update(t.name for t in op.outputs)
        return [OF_WEIGHTS] * len(op.outputs)

    def _enter(self, op: tf.Operation) -> None:
        self.entering.update(t.name for t in op.inputs if t.name in self._made)


def _after_a_loop(op: tf.Operation) -> list[State]:
    """A recurrent layer's states have examples first, and its sequences time before them."""
    axis = 1 if op.type == "TensorListStack" else 0
    return [Rows(axis, 1)] * len(op.outputs)


def _is_reduced(op: tf.Operation, states: Sequence[State | None]) -> bool:
    """Whether an operation sums, or the like, over examples."""
    if op.type not in _REDUCTIONS or not isinstance(states[0], Rows):
        return False
    return states[0].axis in (reduced_axes(*op.inputs[:2]) or ())


def _has_shape_of(out: tf.Tensor, inputs: Sequence[tf.Tensor]) -> bool:
    """Whether a result has no axis, and no longer one, than one of these inputs has."""
    known = [t.shape.as_list() for t in (out, *inputs) if t.shape.rank is not None]
    return len(known) == 1 + len(inputs) and known[0] in known[1:]
