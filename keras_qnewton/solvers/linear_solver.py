"""The shape that all solvers share: prepare the matrix once, then solve for right-hand sides."""

from __future__ import annotations

import abc
from typing import ClassVar, Generic, TypeVar

from keras_qnewton.registry import Policy
from keras_qnewton.solvers.arrays import TensorLike
from keras_qnewton.types import Solution

State = TypeVar("State")


class LinearSolver(Policy, abc.ABC, Generic[State]):
    """A solver in two stages, `init` and `compute`, so that a factorisation can be reused.

    A subclass names itself, says whether it leaves the graph, and writes the two stages;
    `solve` is their composition. A solver holds its settings only: what it learns about a
    matrix is in the state that `init` returns, never on the object.

    A factorisation that another step may want again is a `packing.Packable`, too.

    Attributes:
        name: Route name, as the scheduler and the registry know it.
        host: True when solving needs a host call (no export, no XLA).
        traces: True where `solve` makes that call by itself inside a `tf.function`. A solver that
            says only that it is `host` is called with arrays (`solvers.on_host`).
        definite: True when the matrix has to be positive definite.
        compiles: False when XLA has no kernel for one of its operations.
        direct: True when N alone says how much work a solve is: a time can be calibrated.
    """

    name: ClassVar[str]
    host: ClassVar[bool] = False
    traces: ClassVar[bool] = False
    definite: ClassVar[bool] = False
    direct: ClassVar[bool] = False
    compiles: ClassVar[bool] = True

    @abc.abstractmethod
    def init(self, matrix: TensorLike) -> State:
        """The state for `matrix` `[N, N]`: whatever solving for any right-hand side needs."""

    @abc.abstractmethod
    def compute(self, state: State, rhs: TensorLike) -> Solution:
        """Solves for `rhs` `[N]` with the state of its matrix."""

    def solve(self, matrix: TensorLike, rhs: TensorLike) -> Solution:
        """Solves ``matrix @ x = rhs``.

        Args:
            matrix: Tensor or array `[N, N]`, symmetric, float32 or float64.
            rhs: Tensor or array `[N]`, same dtype.

        Returns:
            `Solution` with `x` of `rhs`'s dtype and its float64 residual.

        Raises:
            ValueError: For input of the wrong shape or dtype; eagerly, also for values that
                are not finite or a matrix that is not symmetric.
        """
        return self.compute(self.init(matrix), rhs)
