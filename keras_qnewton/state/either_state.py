"""The state of an optimizer whose steps are Newton's or learned, as the data have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_qnewton.state.newton_state import Memory, NewtonState
from keras_qnewton.state.quasi_newton_state import Here, QuasiNewtonState


class Both(NamedTuple):
    """What a step of either kind leaves to the next.

    Attributes:
        newton: For a Newton step; None leaves its variables as they are.
        learned: For a quasi-Newton step; None likewise.
    """

    newton: Memory | None
    learned: Here | None


@dataclasses.dataclass(frozen=True)
class EitherState:
    """The variables of both kinds of step; Newton's come first.

    Attributes:
        newton: Of a Newton step.
        learned: Of a quasi-Newton step.
        first_learned: Position of its first variable among the optimizer's.
    """

    newton: NewtonState
    learned: QuasiNewtonState
    first_learned: int

    def of_weights(self, positions: Sequence[int]) -> EitherState:
        """The state of a step about those weights, in that order."""
        newton, learned = self.newton.of_weights(positions), self.learned.of_weights(positions)
        return dataclasses.replace(self, newton=newton, learned=learned)

    def remember(self, memory: Both) -> None:
        """Assigns the values for the next step."""
        if memory.newton is not None:
            self.newton.remember(memory.newton)
        if memory.learned is not None:
            self.learned.remember(memory.learned)


def load_earlier(state: Any, variables: Sequence[keras.Variable], store: Mapping[str, Any]) -> bool:
    """Sets the variables from a saved file of an earlier version, if it is one.

    It has no variables of lengths of solutions, and an older one none of learned steps. They keep
    their values, and the training goes on from the others.

    Args:
        state: The optimizer's.
        variables: All of the optimizer's.
        store: What the file has, by position.

    Returns:
        Whether it is such a file.
    """
    newton = getattr(state, "newton", state)
    lengths = {id(variable) for variable in getattr(newton, "lengths", {}).values()}
    first = getattr(state, "first_learned", len(variables))
    for known in (variables, variables[:first]):
        earlier = [variable for variable in known if id(variable) not in lengths]
        if len(earlier) == len(store.keys()) < len(variables):
            for k, variable in enumerate(earlier):
                variable.assign(store[str(k)])
            return True
    return False
