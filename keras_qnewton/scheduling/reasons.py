"""Why a solver was chosen: the rules, as numbers for graphs and in words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_qnewton.scheduling.scheduler import Scheduler


class Rule(enum.IntEnum):
    """The reason of a choice: a number for graphs, of which `Scheduler.explain` makes words."""

    CLASSICAL_ONLY = 0
    ONE_UNKNOWN = 1
    TOO_MANY_QUBITS = 2
    CONDITION_UNKNOWN = 3
    CONDITION_TOO_LARGE = 4
    QUANTUM_FASTER = 5
    CLASSICAL_FASTER = 6
    NOT_KNOWN_DEFINITE = 7
    NO_ROWS = 8


def reason_of(
    rule: Rule, scheduler: Scheduler, size: int, condition_number: float, absolute: bool
) -> str:
    """The rule in words, for those that no price decides.

    Args:
        rule: What decided.
        scheduler: Whose settings are named.
        size: N.
        condition_number: κ.
        absolute: Whether the system was (A² + λ²I)^(1/2) x = b.
    """
    if rule is Rule.CLASSICAL_ONLY:
        return f"{scheduler.routes[0]} is the only solver: quantum=None"
    if rule is Rule.NOT_KNOWN_DEFINITE:
        only = scheduler.routes[scheduler.candidates(definite=False)[0]]
        return f"{only} is the only solver for a system not known to be positive definite"
    if rule is Rule.NO_ROWS:
        name = "the solver" if scheduler.quantum is None else scheduler.quantum.name
        return (
            f"{name} encodes the Jacobian's rows, and this block has none: they are too many, "
            "zero or not known, or its matrix is not made of them alone (another curvature than "
            "Gauss-Newton's or Fisher's, pruned, averaged over batches, or rescaled)"
        )
    if rule is Rule.ONE_UNKNOWN:
        return "N = 1 is a single division"
    if rule is Rule.TOO_MANY_QUBITS and scheduler.quantum is not None:
        return (
            f"{scheduler.quantum.name} needs {scheduler.quantum.qubits(size)} qubits for "
            f"N = {size}, more than max_qubits = {scheduler.max_qubits}"
        )
    if rule is Rule.CONDITION_UNKNOWN:
        return f"κ = {condition_number:.3g} is not a usable condition number"
    limit = scheduler.absolute_condition_limit if absolute else scheduler.condition_limit
    name = "max_absolute_condition_number" if absolute else "max_condition_number"
    if limit == scheduler.max_condition_number:
        whose = "max_condition_number"
    else:
        whose = f"the solver's own {name}"
    return f"κ = {condition_number:.3g} is above {whose} = {limit:.3g}"


def prices(seconds: Mapping[str, float]) -> str:
    """ "lu: 1 s predicted, cholesky: 2 s": the lowest first.

    Args:
        seconds: Predicted seconds by route, at least one.
    """
    order = sorted(seconds, key=seconds.__getitem__)
    (first, *others) = (f"{route}: {seconds[route]:.3g} s" for route in order)
    return ", ".join([f"{first} predicted", *others])
