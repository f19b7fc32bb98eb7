"""The outputs in which a loss is convex, by the table of functions and registered loss rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import tensorflow as tf

from keras_qnewton.curvature.outputs.base import ConvexOutput, LossRule
from keras_qnewton.curvature.outputs.kinks import Kinks, has_parabola
from keras_qnewton.curvature.outputs.rows import AllTogether, RowByRow
from keras_qnewton.curvature.outputs.separable import Separable
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.convexity import SQUARES, Coupling
from keras_qnewton.loss.cut import Cut, Term, cut
from keras_qnewton.registry import names, resolve

_OF_TABLE: dict[Coupling, LossRule] = {
    Coupling.NONE: Separable(),
    Coupling.ROWS: RowByRow(),
    Coupling.ALL: AllTogether(),
}
_KINKS = Kinks()


@dataclasses.dataclass(frozen=True)
class ConvexLoss:
    """A loss, cut where it is convex.

    Attributes:
        outputs: The tensors in which it is curved, or has the curvature of parabolas above it.
        held: Names of tensors; what depends on the weights while these are held is beside the
            terms: penalties and the rest.
        rest: Tensors in which nothing is known to be convex. Where there are none, what is beside
            the terms is positive semidefinite and diagonal.
        recognised: Whether there are terms at all.
        coupled: Whether one output is made of another, both curved, and the terms are not all
            squares: at a minimum they pull an output in opposite directions, and Jᵀ C J leaves out
            the curvature of the network between the two.
    """

    outputs: list[ConvexOutput]
    held: list[str]
    rest: list[tf.Tensor]
    recognised: bool
    coupled: bool


def convex_loss(loss: RecordedLoss, kinks: bool = False) -> ConvexLoss:
    """Cuts a loss where it is recognisably convex; without any outputs where it is not.

    Args:
        loss: The recorded loss.
        kinks: Whether piecewise linear terms have the curvature of parabolas above them
            (`outputs.kinks`), in tensors in which no term is curved. They have none otherwise.
    """
    rules = {name: resolve("loss_rule", name, "loss_rule") for name in names("loss_rule")}
    known = {
        terms.name: Term((z,), terms, Coupling.ROWS, curved=True, rule=name)
        for name, rule in rules.items()
        for z, terms in rule.candidates(loss)
    }
    found = cut(loss, known)
    values: dict[tuple[str, LossRule], list[str]] = {}
    for term in found.terms:
        rule = _OF_TABLE[term.coupling] if term.rule is None else rules[term.rule]
        for z in term.arguments if term.curved else ():
            values.setdefault((z.name, rule), []).append(term.value.name)
    curved = {z for z, _ in values}
    behind = _behind(loss, curved)
    for term in found.terms if kinks else ():
        bent = not term.curved and has_parabola(term.value)
        for z in term.arguments if bent else ():
            # A penalty on what a layer gives, beside a curved loss of the output, is better left.
            if z.name not in curved | behind:
                values.setdefault((z.name, _KINKS), []).append(term.value.name)
    outputs = [ConvexOutput(z, tuple(terms), rule) for (z, rule), terms in values.items()]
    squares = all(term.value.op.type in SQUARES for term in found.terms)
    return ConvexLoss(
        outputs,
        _held(found),
        found.rest,
        recognised=bool(found.terms),
        coupled=not squares and not curved.isdisjoint(behind),
    )


def _behind(loss: RecordedLoss, names_of_tensors: Collection[str]) -> set[str]:
    """Names of the tensors that any of these is made of."""
    behind: set[str] = set()
    for op in reversed(loss.operations):
        if any(t.name in behind or t.name in names_of_tensors for t in op.outputs):
            behind.update(t.name for t in op.inputs)
    return behind


def _held(found: Cut) -> list[str]:
    """The terms' values where the rest may depend on their arguments, too; else the arguments.

    And what the loss is linear in beside them, which has no curvature.
    """
    if found.rest:
        return [term.value.name for term in found.terms]
    arguments = [z.name for term in found.terms for z in term.arguments]
    return list(dict.fromkeys([*arguments, *(t.name for t in found.linear)]))
