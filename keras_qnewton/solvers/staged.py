"""The shape that all solvers share: prepare the matrix once, then solve for right-hand sides."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from keras_qnewton.registry import Policy
from keras_qnewton.types import Solution


class Packed(NamedTuple):
    """A factorisation as two arrays, to be kept where arrays are.

    Attributes:
        numbers: `[N]`: eigenvalues or pivots; NaN where the matrix has no such factorisation.
        factor: `[N, N]`.
    """

    numbers: Any
    factor: Any


class StagedSolver(Policy):
    """A solver in two stages, `init` and `compute`, so that a factorisation can be reused.

    A subclass names itself, says whether it leaves the graph, and writes the two stages;
    `solve` is their composition. A solver holds its settings only: what it learns about a
    matrix is in the state that `init` returns, never on the object.

    Attributes:
        name: Route name, as the scheduler and the registry know it.
        host: True when solving needs a host call (no export, no XLA).
        definite: True when the matrix has to be positive definite.
        direct: True when N alone says how much work a solve is: a time can be calibrated.
        packs: True when `packed` and `unpacked` are there.
    """

    name: ClassVar[str]
    host: ClassVar[bool] = False
    definite: ClassVar[bool] = False
    direct: ClassVar[bool] = False
    packs: ClassVar[bool] = False

    def init(self, matrix: Any) -> Any:
        """The state for `matrix` `[N, N]`: whatever solving for any right-hand side needs."""
        raise NotImplementedError

    def compute(self, state: Any, rhs: Any) -> Solution:
        """Solves for `rhs` `[N]` with the state of its matrix."""
        raise NotImplementedError

    def packed(self, state: Any) -> Packed:
        """What `init` learnt about its matrix."""
        raise NotImplementedError

    def unpacked(self, matrix: Any, packed: Packed) -> Any:
        """The state of `matrix` `[N, N]`, from `packed` in a dtype that is not narrower."""
        raise NotImplementedError

    def solve(self, matrix: Any, rhs: Any) -> Solution:
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
