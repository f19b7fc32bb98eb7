"""One block's system solved by a direction, without an optimizer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton import Adaptive, Scheduler
from keras_qnewton.curvature import ExactHessian
from keras_qnewton.directions import BlockProblem, BlockStep, Scheduled
from keras_qnewton.settings import Settings


def settings_of(**policies: Any) -> Settings:
    """Settings of a step, but for those given the optimizer's defaults."""
    defaults = {
        "curvature": ExactHessian(),
        "damping": Adaptive(),
        "scheduler": Scheduler(classical="cholesky", quantum=None),
    }
    return Settings(**{**defaults, **policies})


class ScheduledBlock:
    """`Scheduled` for a matrix `[N, N]` and a gradient `[N]`; `policies` as for `settings_of`."""

    def __init__(
        self,
        matrix: tf.Tensor,
        gradient: tf.Tensor,
        semidefinite: bool = False,
        **policies: Any,
    ):
        self.problem = BlockProblem.of_matrix(matrix, gradient, semidefinite)
        self._direction = Scheduled(settings_of(**policies))
        self.state = self._direction.init(self.problem)

    def solve(self, damping: tf.Tensor) -> BlockStep:
        step = self._direction.solve(self.problem, self.state, damping)
        return self._direction.noted(self.problem, self.state, damping, step)

    def estimate(self, damping: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._direction.estimate(self.problem, self.state, damping)


def variable(optimizer: Any, name: str) -> tf.Tensor:
    """The one variable of an optimizer's state that has the name."""
    (found,) = [v for v in optimizer.variables if v.name == name]
    return found
