"""Where a loss is convex: a cut of its operations, by disciplined convex programming.

    L(w) = Σ_t ω_t φ_t(z_t(w)) + ℓ(w)       φ convex, ω ≥ 0, z and ℓ any functions of the weights

The rules of `loss.convexity` walk back from the loss. An operation that is linear passes its sign
on. One that is convex where a positive sign has arrived, or concave where a negative one has, is a
term φ of its argument z, and so is what a loss rule knows. What is left, ℓ, is linear in tensors in
which no rule knows anything: it is the rest, unless those tensors make up some z as well.

z is the narrowest tensor of which φ is known to be a function: the squares of u_xx + u_yy are a
function of the sum. Only where a concatenation puts z together does the cut go behind that.

References:
    Grant, Boyd & Ye 2006, Disciplined Convex Programming.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.loss.convexity import Coupling, atom, linear_inputs, moving_tensors
from keras_qnewton.loss.recorded import RecordedLoss

_RESHAPES = ("Reshape", "Squeeze", "ExpandDims", "Identity")
_JOINS = ("ConcatV2", "Pack")
_SHIFTS = ("Sub", "AddV2", "Add", "Neg", "Mul", "RealDiv", "Div", "DivNoNan")


class Term(NamedTuple):
    """A convex function that the loss is a sum of.

    Attributes:
        arguments: The tensors z; several only if none of their elements meet.
        value: φ(z), a tensor of the recorded graph.
        coupling: Which elements of z meet.
        curved: False if φ is known to be piecewise linear.
        rule: Name of the loss rule that knows its curvature; None for a rule of the table.
    """

    arguments: tuple[tf.Tensor, ...]
    value: tf.Tensor
    coupling: Coupling
    curved: bool
    rule: str | None = None


class Cut(NamedTuple):
    """A loss as terms that are convex, and what is left.

    Attributes:
        terms: Of tensors that the network computes. Those of the weights themselves, element by
            element, such as an L2 penalty, are not among them.
        rest: Tensors beside which nothing is known to be convex.
        linear: Tensors in which the loss is linear, by a way that does not lead through a z.
    """

    terms: list[Term]
    rest: list[tf.Tensor]
    linear: list[tf.Tensor]


def cut(loss: RecordedLoss, known: Mapping[str, Term]) -> Cut:
    """The convex terms of a loss.

    Args:
        loss: The recorded loss.
        known: Terms that loss rules know, by the name of their value.
    """
    return _Walk(loss, known).cut()


class _Walk:
    """One walk from the loss to its terms."""

    def __init__(self, loss: RecordedLoss, known: Mapping[str, Term]):
        self._loss, self._known = loss, known
        self._moving = moving_tensors(loss)
        self._seen: set[tuple[str, int]] = set()
        self._terms: dict[str, Term] = {}
        self._leaves: dict[str, tf.Tensor] = {}

    def cut(self) -> Cut:
        self._visit(self._loss.recorded, 1)
        terms: list[Term] = []
        for name in self._terms.keys() & self._leaves.keys():  # with either sign
            del self._terms[name]
        inside = {
            name for term in self._terms.values() for z in term.arguments for name in self._ends(z)
        }
        for term in self._terms.values():
            if term.value.name in inside:
                continue  # another term is cut at its value
            of_weights = all(self._weight_of(z) is not None for z in term.arguments)
            elementwise = term.coupling is Coupling.NONE
            if not (of_weights and elementwise):
                terms.append(term)
        rest = [t for name, t in self._leaves.items() if name not in inside]
        return Cut(terms, rest, self._linear_beside(terms))

    def _linear_beside(self, terms: Sequence[Term]) -> list[tf.Tensor]:
        """What ℓ is linear in, where a z does not say all of it: another slice of an output."""
        stops = {*self._terms, *(z.name for term in terms for z in term.arguments)}
        ends = map(self._loss.tensor, self._ends(self._loss.recorded, stops))
        return [tensor for tensor in ends if self._weight_of(tensor) is None]

    def _visit(self, start: tf.Tensor, sign: int) -> None:
        """Follows a tensor that enters the loss linearly, with a factor of that sign."""
        pending = [(start, sign)]
        while pending:
            tensor, sign = pending.pop()
            if tensor.name not in self._moving or (tensor.name, sign) in self._seen:
                continue
            self._seen.add((tensor.name, sign))
            if self._weight_of(tensor) is not None:
                continue  # linear in a weight
            term = self._term(tensor, sign)
            if term is not None:
                self._terms[tensor.name] = term
                continue
            inputs = linear_inputs(tensor, self._moving)
            if inputs is None:
                self._leaves[tensor.name] = tensor
            else:
                pending.extend((t, sign * factor) for t, factor in reversed(inputs))

    def _term(self, value: tf.Tensor, sign: int) -> Term | None:
        """The term that ends in `value`, if that is convex, seen with this sign."""
        if value.name in self._known:
            return self._known[value.name] if sign > 0 else None
        if value.op.type == "SquaredDifference" and sign > 0 and self._both_move(value.op):
            difference = self._loss.difference(value.op)
            self._moving.add(difference.name)
            return Term((difference,), value, Coupling.NONE, curved=True)
        found = atom(value.op, self._moving)
        if found is None or (found[0].sign and found[0].sign * sign <= 0):
            return None
        (_, curved, coupling), arguments = found
        elementwise = coupling is Coupling.NONE
        behind = self._narrowest if elementwise else self._of_same_shape
        zs = {z.name: z for argument in arguments for z in behind(argument)}
        return Term(tuple(zs.values()), value, coupling, curved)

    def _both_move(self, op: tf.Operation) -> bool:
        return all(t.name in self._moving for t in op.inputs)

    def _narrowest(self, argument: tf.Tensor) -> list[tf.Tensor]:
        """The tensors that the argument of an elementwise function is made of, one to one."""
        found: list[tf.Tensor] = []
        pending = [argument]
        while pending:
            tensor = pending.pop()
            behind = self._one_to_one(tensor)
            if behind is None:
                found.append(tensor)
            else:
                pending.extend(reversed(behind))
        once = len({t.name for t in found}) == len(found)
        return found if once else [argument]

    def _of_same_shape(self, argument: tf.Tensor) -> list[tf.Tensor]:
        """The tensor that an argument differs from by shifts and factors alone."""
        found, shape = argument, argument.shape
        while True:
            behind = self._one_to_one(found) or []
            same = len(behind) == 1 and behind[0].shape.rank is not None
            if not same or behind[0].shape.as_list() != shape.as_list():
                return [found]
            (found,) = behind

    def _one_to_one(self, tensor: tf.Tensor) -> list[tf.Tensor] | None:
        """What `tensor` is an affine function of, element by element; None if there is no more."""
        if self._weight_of(tensor) is not None:
            return None
        op = tensor.op
        moving = [t for t in op.inputs if t.name in self._moving]
        if op.type in _JOINS:
            return moving
        if op.type in _RESHAPES:  # axes say what an example is
            return self._one_to_one(moving[0]) if moving[0].op.type in _JOINS else None
        linear = linear_inputs(tensor, self._moving) if op.type in _SHIFTS else None
        return moving if linear is not None and len(linear) == 1 else None

    def _ends(self, start: tf.Tensor, stops: Collection[str] = ()) -> list[str]:
        """Names of the tensors in which `start` is affine, and which are not so themselves.

        Args:
            start: A tensor.
            stops: Names of tensors behind which nothing is looked for.
        """
        ends: list[str] = []
        seen, pending = set(stops), [start]
        while pending:
            tensor = pending.pop()
            if tensor.name in seen or tensor.name not in self._moving:
                continue
            seen.add(tensor.name)
            inputs = (
                None if self._weight_of(tensor) is not None else linear_inputs(tensor, self._moving)
            )
            if inputs is None:
                ends.append(tensor.name)
            else:
                pending.extend(t for t, _ in inputs)
        return ends

    def _weight_of(self, tensor: tf.Tensor) -> int | None:
        return self._loss.weight_read_by(tensor)


def ends_of_rules(rest: Sequence[tf.Tensor]) -> str:
    """The operations at which the rules ended, for a message."""
    return ", ".join(f"{t.op.type!r} ({t.op.name!r})" for t in rest[:3])
