"""Factorisations as arrays, to be stored in variables from one step to the next."""

from __future__ import annotations

import abc
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.solvers.linear_solver import LinearSolver, State


class Packed(NamedTuple):
    """A factorisation as two arrays.

    Attributes:
        numbers: `[N]`: eigenvalues or pivots; NaN where the matrix has no such factorisation.
        factor: `[N, N]`.
    """

    numbers: tf.Tensor
    factor: tf.Tensor


class Packable(LinearSolver[State]):
    """A solver whose state fits into arrays."""

    @abc.abstractmethod
    def pack(self, state: State) -> Packed:
        """The factorisation in `state`, in the dtypes that it has there."""

    @abc.abstractmethod
    def unpack(self, matrix: tf.Tensor, packed: Packed) -> State:
        """The state of `matrix` `[N, N]`, from `packed` in a dtype that is not narrower."""
