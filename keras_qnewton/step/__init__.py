"""One Newton step: `newton` tells it on one screen, the other modules hold what it is made of."""

from keras_qnewton.step.batch import Batch, Update
from keras_qnewton.step.gradient_check import verified
from keras_qnewton.step.newton import Step, newton_step

__all__ = ["Batch", "Step", "Update", "newton_step", "verified"]
