"""The interface of all directions: prepare a block once a step, then solve for any λ."""

from __future__ import annotations

import abc
from typing import Any, Generic, Protocol, TypeVar

import tensorflow as tf

from keras_qnewton.directions.block_step import BlockStep
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.settings import Settings


class DirectionState(Protocol):
    """A block as `Direction.init` prepared it: a nest of tensors.

    Attributes:
        scale: The largest |eigenvalue| of the block, float64 scalar.
        formation: How its matrix came about, a `Formation`, int32 scalar.
    """

    @property
    def scale(self) -> tf.Tensor: ...

    @property
    def formation(self) -> tf.Tensor: ...


State = TypeVar("State", bound=DirectionState)


class Direction(abc.ABC, Generic[State]):
    """A way from a block's curvature and gradient to its part x_k of the step.

    Nothing of a block is on the object: it is all in the state that `init` returns.

    Args:
        settings: The policies of the step.
    """

    def __init__(self, settings: Settings):
        self._settings = settings

    @abc.abstractmethod
    def init(self, problem: BlockProblem) -> State:
        """Prepares a block once a step, for any λ."""

    def product(self, problem: BlockProblem, state: State, vector: tf.Tensor) -> tf.Tensor | None:
        """H_k v `[N]` by the matrix that `init` formed, where it has all of its digits.

        None where there is no such matrix. It may be averaged, see `BlockProblem.form`.
        """
        del problem, state, vector
        return None

    def damped(self, problem: BlockProblem, state: State, vector: tf.Tensor) -> tf.Tensor:
        """D v `[N]`, where the shift by λ is λD²: v itself, if it is λI."""
        del problem, state
        return vector

    @abc.abstractmethod
    def solve(self, problem: BlockProblem, state: State, damping: tf.Tensor) -> BlockStep:
        """x_k at damping λ, a float64 scalar."""

    def noted(
        self, problem: BlockProblem, state: State, damping: tf.Tensor, step: BlockStep
    ) -> BlockStep:
        """The last attempt's `step`, at damping λ, with the numbers that no attempt waits for."""
        del problem, state, damping
        return step


AnyDirection = Direction[Any]
