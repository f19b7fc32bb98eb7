"""One step: `newton` and `quasi_newton` tell theirs on a screen each, of what the others hold."""

from keras_qnewton.step.batch import Batch, Update
from keras_qnewton.step.checks import none_is_empty
from keras_qnewton.step.earlier_assignments import hold_earlier_assignments
from keras_qnewton.step.gradient_check import verified
from keras_qnewton.step.method import (
    State,
    check_arguments,
    check_method,
    learned_policy,
    new_state,
    next_step,
    remember,
)
from keras_qnewton.step.newton import Step, newton_step

__all__ = [
    "Batch",
    "State",
    "Step",
    "Update",
    "check_arguments",
    "check_method",
    "hold_earlier_assignments",
    "learned_policy",
    "new_state",
    "newton_step",
    "next_step",
    "none_is_empty",
    "remember",
    "verified",
]
