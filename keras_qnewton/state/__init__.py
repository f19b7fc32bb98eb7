"""State: the optimizer's variables that one Newton step leaves to the next."""

from keras_qnewton.state.kept_block import FactorKind, KeptBlock
from keras_qnewton.state.newton_state import Memory, NewtonState, check_state

__all__ = ["FactorKind", "KeptBlock", "Memory", "NewtonState", "check_state"]
