"""A formed block that another worker solves, in the place of a direction of its own."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.directions.block_step import BlockStep, unknown
from keras_qnewton.directions.direction import Direction
from keras_qnewton.directions.problem import BlockProblem


class ElsewhereState(NamedTuple):
    """How the block was formed; see `DirectionState`. Its scale is another worker's to know."""

    formation: tf.Tensor
    scale: tf.Tensor


class Elsewhere(Direction[ElsewhereState]):
    """Has its part in the sum that the matrix is, and no more: nothing is factorised.

    What it returns is not looked at: see `Replicas.agreed`.
    """

    def init(self, problem: BlockProblem) -> ElsewhereState:
        """Forms the block, for the other workers too."""
        formed = problem.form()
        with tf.control_dependencies([formed.matrix]):
            return ElsewhereState(tf.identity(formed.how), tf.constant(0.0, tf.float64))

    def solve(self, problem: BlockProblem, state: ElsewhereState, damping: tf.Tensor) -> BlockStep:
        """Zeros."""
        del state, damping
        return unknown(problem.size, problem.gradient.dtype, self._settings.scheduler)
