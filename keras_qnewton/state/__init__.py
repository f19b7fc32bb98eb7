"""State: the optimizer's variables that one step leaves to the next."""

from keras_qnewton.state.either_state import Both, EitherState, load_earlier
from keras_qnewton.state.kept_block import FactorKind, KeptBlock
from keras_qnewton.state.newton_state import Foreseen, Memory, NewtonState, check_state
from keras_qnewton.state.quasi_newton_state import Here, QuasiNewtonState

__all__ = [
    "Both",
    "EitherState",
    "FactorKind",
    "Foreseen",
    "Here",
    "KeptBlock",
    "Memory",
    "NewtonState",
    "QuasiNewtonState",
    "check_state",
    "load_earlier",
]
