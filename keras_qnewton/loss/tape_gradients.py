"""Whether gradients are a tape's own of a loss: told by their operations, before any of them runs.

A tape that is given the loss's operations again makes the operations that the train step's own tape
made, in a graph beside it. Where both compute the same of the same, the gradients are equal at all
weights, whatever the data: nobody changed them on the way, and nobody has to compare numbers. What
nobody takes of a graph is not computed.

A tensor's *expression* is what it is made of, down to what is only given:

    a weight                            its position
    few numbers that are known          their values: a shape, an axis, a constant
    a sum of many, or of sums           all the terms, in any order
    an operation without a state        its type, its attributes, and the expressions it takes
    anything else                       itself

Equal expressions have equal values, up to the rounding of sums. Where expressions differ nothing is
said of the values: bodies of loops, conditions and functions are not looked into.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.recorded import RecordedLoss
from keras_qnewton.loss.replayable import READS

# Constants that are longer are equal where they are one tensor.
_FEW = 32
# Operations whose outputs are their inputs.
_PASSING = {"Identity", "IdentityN"}


def are_the_tapes(gradients: Sequence[tf.Tensor | tf.IndexedSlices], loss: RecordedLoss) -> bool:
    """Whether the graph shows that `gradients` are those of `loss`; False if it does not tell.

    Args:
        gradients: What was handed over, one a variable of the loss.
        loss: As it was recorded, at the variables' present values.
    """
    graph = loss.recorded.graph
    if not all(tf.is_symbolic_tensor(g) and g.graph is graph for g in gradients):
        return False
    if _may_assign(loss):
        return False
    ours = loss.gradient_graph()
    expressions = _Expressions(loss, ours.arguments)
    return all(
        own is not None and expressions.number(own) == expressions.number(given)
        for own, given in zip(ours.gradients, gradients, strict=True)
    )


def _may_assign(loss: RecordedLoss) -> bool:
    """Whether anything in the loss's graph may assign a weight, as far as it is built."""
    handles = [loss.tensor(name) for name in loss.handles]
    return any(user.type not in READS for handle in handles for user in handle.consumers())


class _Expressions:
    """Numbers of expressions in the loss's graph and in one inside of it, equal where these are.

    Args:
        loss: It has the graph, and reads variables.
        arguments: Placeholders of the inner graph that stand for their values.
    """

    def __init__(self, loss: RecordedLoss, arguments: Sequence[tf.Tensor]):
        self._loss = loss
        self._weights = {_place(tensor): k for k, tensor in enumerate(arguments)}
        self._of_tensors: dict[Hashable, int] = {}
        self._of_expressions: dict[Hashable, int] = {}
        self._terms: dict[int, tuple[int, ...]] = {}  # of sums, by their numbers

    def number(self, tensor: tf.Tensor) -> int:
        """The number of what `tensor` is made of."""
        pending = [(tensor, *self._parts(tensor))]
        while pending:
            last, label, made_of = pending[-1]
            unknown = [t for t in made_of if _place(t) not in self._of_tensors]
            if unknown:
                pending.extend((t, *self._parts(t)) for t in unknown)
                continue
            pending.pop()
            parts = tuple(self._of_tensors[_place(t)] for t in made_of)
            self._of_tensors[_place(last)] = self._numbered(label, parts)
        return self._of_tensors[_place(tensor)]

    def _numbered(self, label: Hashable, parts: tuple[int, ...]) -> int:
        if label is None:
            return parts[0]
        if label == "AddN":
            parts = tuple(sorted(t for part in parts for t in self._terms.get(part, (part,))))
        number = self._of_expressions.setdefault((label, parts), len(self._of_expressions))
        if label == "AddN":
            self._terms[number] = parts
        return number

    def _parts(self, tensor: tf.Tensor) -> tuple[Hashable, Sequence[tf.Tensor]]:
        """What an expression is called, None if it is that of the one tensor that it takes."""
        op = tensor.op
        weight = self._weight(tensor)
        if weight is not None:
            return ("weight", weight), []
        known = _known_numbers(tensor)
        if known is not None:
            return known, []
        if op.type in _PASSING:
            return None, [op.inputs[tensor.value_index]]
        outer = None if self._is_outside(tensor) else _tf_private.captured_from(tensor)
        if outer is not None:
            return None, [outer]
        attributes = None if op.op_def.is_stateful or not op.inputs else _attributes(op)
        if attributes is None:
            return ("itself", _place(tensor)), []
        if op.type == "AddN":
            return "AddN", list(op.inputs)
        return (op.type, tensor.value_index, attributes), list(op.inputs)

    def _weight(self, tensor: tf.Tensor) -> int | None:
        if tensor.op.type == "ReadVariableOp" and self._is_outside(tensor):
            return self._loss.weight_read_by(tensor)
        return self._weights.get(_place(tensor))

    def _is_outside(self, tensor: tf.Tensor) -> bool:
        return tensor.graph is self._loss.recorded.graph


def _place(tensor: tf.Tensor) -> Hashable:
    return id(tensor.graph), tensor.name


def _known_numbers(tensor: tf.Tensor) -> Hashable:
    """The values of few numbers that are constants, or of integers made of some; None of others."""
    constant = tensor.op.type == "Const" and tensor.dtype != tf.string
    count = tensor.shape.num_elements()
    if not (constant or tensor.dtype.is_integer) or count is None or count > _FEW:
        return None
    value = tf.get_static_value(tensor)
    return None if value is None else (tensor.dtype, value.shape, value.tobytes())


def _attributes(op: tf.Operation) -> Hashable:
    """What an operation does beside its type; None if it runs functions."""
    found = []
    for name, value in sorted(op.node_def.attr.items()):
        if value.HasField("func") or value.list.func:
            return None
        if not name.startswith("_"):
            found.append((name, value.SerializeToString(deterministic=True)))
    return tuple(found)
