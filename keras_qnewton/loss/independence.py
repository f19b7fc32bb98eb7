"""Whether each example's output is a function of its own rows alone, proved by rules.

    u    result of an operation in which a weight is used       first axis: examples, or B·P rows
    z    an output                                              first axis: B examples

Row b of z depends on the rows of example b in every u, if each operation between the two keeps
examples apart: it works element by element, reduces other axes, multiplies from the other side. The
axis of examples is followed through all of them; an example's rows stay side by side, in order.
An operation without a rule (`example_axes`) proves nothing.

`Passage` is an observer of `RecordedLoss.fetch`, as `Uses` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.loss import control_flow, custom_gradients, tensor_lists
from keras_qnewton.loss.example_axes import after
from keras_qnewton.loss.example_states import MIXED, OF_WEIGHTS, Rows, State
from keras_qnewton.loss.joined_rows import rows_joined
from keras_qnewton.loss.uses import Use

_APART = Rows(0, 1)


class _Event(NamedTuple):
    """An operation that was run."""

    op: tf.Operation
    inputs: Sequence[Any]
    outputs: Sequence[Any]


class Passage:
    """Records how a loss is run; an observer of `RecordedLoss.fetch`.

    Args:
        weights: One tensor a variable, the very ones that the loss is run at.
    """

    def __init__(self, weights: Sequence[tf.Tensor]):
        self._weights, self._events = list(weights), list[_Event]()

    def __call__(self, op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self._events.append(_Event(op, inputs, outputs))

    def followed(
        self, uses: Sequence[Use], z: tf.Tensor, examples: int | None
    ) -> tuple[State, dict[str, int]]:
        """Where `z` has its examples, and the rows an example of each u, by its name.

        `Rows(0, T)`: an example is T rows of z, side by side, and is proved to depend on its own
        rows of all u alone.

        Args:
            uses: Of the weights; the u are their results.
            z: The output; a tensor that the loss was run to.
            examples: B, where it is known while tracing. Elsewhere the rows an example of a use of
                no other's results are guessed from reshapes before it. That all u have as many
                rows as is returned has to be checked then when the step runs.
        """
        each: dict[str, int] = {}
        states: dict[int, State] = {id(w): OF_WEIGHTS for w in self._weights}
        used = {id(use.outputs): use for use in uses}
        for event in self._events:
            found = _states_after(event, states)
            for tensor, state in zip(event.outputs, found, strict=True):
                if id(tensor) in used:
                    state = _of_use(used[id(tensor)], state, examples)
                    if isinstance(state, Rows):
                        each[tensor.name] = state.each
                if state is not None and id(tensor) not in states:
                    states[id(tensor)] = state
        return states.get(id(z), _APART), each


def _of_use(use: Use, state: State | None, examples: int | None) -> State:
    """The state of a use's result, whose other input had `state`."""
    u = use.outputs
    if state == MIXED or u.shape.rank in (None, 0) or use.dealt > 1:
        return MIXED
    rows, each = u.shape[0], None
    if examples is not None and rows is not None:
        each = None if not examples or rows % examples else rows // examples
    elif examples is None and rows is None:
        each = state.each if isinstance(state, Rows) else _rows_of_constants(use)
    if each is None or (isinstance(state, Rows) and state != Rows(0, each)):
        return MIXED
    return Rows(0, each)


def _rows_of_constants(use: Use) -> int:
    """Rows an example of what does not depend on the weights."""
    return 1 if use.inputs is None else rows_joined(use.inputs)


def _states_after(event: _Event, states: dict[int, State]) -> list[State | None]:
    """The states of an operation's results; None for one that depends on no weight."""
    op, inputs, outputs = event
    of_inputs = [_state_of(x, states) for x in inputs]
    nothing: list[State | None] = [None] * len(outputs)
    if all(s is None for s in of_inputs) or op.type == "StopGradient":
        return nothing
    if op.type in control_flow.TYPES:  # what is run in line was seen already
        return [MIXED] * len(outputs)
    if op.type in tensor_lists.TYPES or any(tensor_lists.items_of(x) is not None for x in inputs):
        return _of_lists(event, of_inputs[0], states)
    if MIXED in of_inputs or custom_gradients.is_given(op):
        return [MIXED] * len(outputs)
    if not any(isinstance(s, Rows) for s in of_inputs):
        return [OF_WEIGHTS] * len(outputs)
    return [after(op, inputs, of_inputs, out) for out in outputs]


def _state_of(x: Any, states: dict[int, State]) -> State | None:
    """Of a list, that of all its elements that have one."""
    items = tensor_lists.items_of(x)
    if items is None:
        return states.get(id(x))
    known = {states[id(item)] for item in items if id(item) in states}
    return (known.pop() if len(known) == 1 else MIXED) if known else None


def _of_lists(event: _Event, first: State | None, states: dict[int, State]) -> list[State | None]:
    """Elements of a list are the tensors that were put into it; others are not understood."""
    op, _, outputs = event
    if op.type == "TensorListFromTensor" and isinstance(first, Rows) and first.axis > 0:
        new: State = first._replace(axis=first.axis - 1)
    elif op.type == "TensorListStack" and isinstance(first, Rows):
        return [first._replace(axis=first.axis + 1)]
    else:
        new = MIXED
    found: list[State | None] = []
    for out in outputs:
        items = tensor_lists.items_of(out)
        for item in items or ():
            # An element without a state that was there before depends on no weight.
            if op.type == "TensorListFromTensor" and item is not None:
                states.setdefault(id(item), new)
        found.append(None if items is not None else states.get(id(out), MIXED))
    return found
