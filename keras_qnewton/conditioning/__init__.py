"""Conditioning: how hard a block is to solve, and what makes it easier."""

from keras_qnewton.conditioning.condition_number import (
    Estimator,
    condition_number,
    estimator_compiles,
    log_condition_number,
)
from keras_qnewton.conditioning.damping import Adaptive, Constant, Damping
from keras_qnewton.conditioning.lanczos import Spectrum, extremal_eigenvalues
from keras_qnewton.conditioning.linear_loss import DampingScale
from keras_qnewton.conditioning.noise import data_changed
from keras_qnewton.conditioning.pruning import Pruned, Pruning, prune, pruning_policy
from keras_qnewton.conditioning.regularization import regularize

__all__ = [
    "Adaptive",
    "Constant",
    "Damping",
    "DampingScale",
    "Estimator",
    "Pruned",
    "Pruning",
    "Spectrum",
    "condition_number",
    "data_changed",
    "estimator_compiles",
    "extremal_eigenvalues",
    "log_condition_number",
    "prune",
    "pruning_policy",
    "regularize",
]
