"""Properties of a block's system that are known while the graph is traced."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.settings import Settings

# N from which on a factorisation in float64 is what a step takes longest for.
LARGE = 512


def is_large(problem: BlockProblem) -> bool:
    """Whether the block's products and factorisations are worth making in single precision."""
    return problem.size >= LARGE


def is_semidefinite(problem: BlockProblem, settings: Settings) -> bool:
    """Whether the matrix that is solved is positive semidefinite, which pruning may change."""
    return problem.semidefinite and settings.pruning is None


def is_bounded(problem: BlockProblem, settings: Settings) -> bool:
    """Whether the shift is known to make H + s I positive definite."""
    policy = settings.damping
    return policy.adaptive or policy.definite or is_semidefinite(problem, settings)


def is_mixed(problem: BlockProblem, settings: Settings) -> bool:
    """Whether the block is factorised in float32, and its solution refined in float64."""
    return (
        is_semidefinite(problem, settings)
        and is_large(problem)
        and problem.gradient.dtype == tf.float32
        and settings.scheduler.possible(problem.size) == ("cholesky",)
    )
