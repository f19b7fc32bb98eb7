"""The few types that every stage of the Newton step shares.

A leaf: it imports nothing of this package but another leaf, `decision`, so that loss, curvature,
conditioning, scheduling and solvers can all speak the same language without importing each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import tensorflow as tf

from keras_qnewton.decision import Decision as Decision
from keras_qnewton.decision import is_known as is_known

# A number, or a tensor of one where it is known when a graph runs.
Scalar: TypeAlias = int | float | tf.Tensor
Array: TypeAlias = tf.Tensor | np.ndarray


class LinearSystem(NamedTuple):
    """A symmetric linear system ``matrix @ x = rhs``.

    Attributes:
        matrix: Tensor or array `[N, N]`, symmetric, real floating point.
        rhs: Tensor or array `[N]`, same dtype as `matrix`.
    """

    matrix: Array
    rhs: Array


@dataclasses.dataclass(frozen=True)
class Solution:
    """The solution of a linear system, and how good it is.

    Attributes:
        x: Tensor or array `[N]`, dtype of the right-hand side.
        residual: Scalar float64, ``||A x - b|| / ||b||``, evaluated in float64
            (0 when ``b`` is zero; NaN or Inf when the solve failed).
        solver: Name of the solver, as the scheduler's routes name it.
        details: What else the solver knows (for example a circuit's degree, qubits,
            success probability). Empty for solutions computed inside a graph.
    """

    x: Array
    residual: Scalar
    solver: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def summary(self, gate_time: float = 1e-9) -> str:
        """A plain text table of what the solver knows, circuits projected at `gate_time` seconds.

        Costs that were not needed for solving (depth, gates, T gates) are counted now.
        """
        rows: dict[str, Any] = {"solver": self.solver, "residual": self.residual}
        for name, value in self.details.items():
            if hasattr(value, "report"):
                rows.update(value.report(gate_time))
            elif value is not None:
                rows[name.replace("_", " ")] = value
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in rows.items())


def _shown(value: Any) -> str:
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, str | bool) or not hasattr(value, "__float__"):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.4g}"


@runtime_checkable
class Solver(Protocol):
    """One way of solving a symmetric linear system; see `keras_qnewton.solvers`.

    Attributes:
        name: Route name, unique in the registry.
        host: True when the solver leaves the TensorFlow graph (a host call): such a
            solver cannot be exported or compiled by XLA.
    """

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> bool: ...

    def solve(self, matrix: Array, rhs: Array) -> Solution:
        """Solves ``matrix @ x = rhs``; `matrix` `[N, N]` symmetric, `rhs` `[N]`."""
        ...


class QuantumSolver(Solver, Protocol):
    """A solver whose systems a quantum computer could be given."""

    def qubits(self, size: int) -> int:
        """Width of the circuit for N = `size`."""
        ...


@runtime_checkable
class SolverToTolerance(Protocol):
    """A solver that costs less where less is asked for."""

    def solve_to(self, matrix: Array, rhs: Array, tolerance: Scalar) -> Solution:
        """`Solver.solve` to a relative residual of `tolerance`, a scalar; in a graph, too."""
        ...


@runtime_checkable
class CarryingSolver(Protocol):
    """A solver that costs less where it is told how long solutions are.

    Attributes:
        carries: Whether training steps hand lengths on: the state has them then.
    """

    carries: bool

    def solve_from(
        self, matrix: Array, rhs: Array, lengths: Array, tolerance: Scalar | None
    ) -> tuple[Solution, Array]:
        """`SolverToTolerance.solve_to`; in a graph, too.

        Args:
            matrix: A `[N, N]`.
            rhs: b `[N]`.
            lengths: ‖x‖/‖b‖ as guessed for b, and for the residuals of refinement, float64 `[2]`.
                A guess from another b is negative: it says where to look. Zero is not known.
            tolerance: Relative residual that is enough, a scalar; None for the solver's own.

        Returns:
            The solution, and the lengths that were found, float64 `[2]`.
        """
        ...


class RowSystem(NamedTuple):
    """``(UᵀU + λI) x = g`` of a Jacobian's rows U.

    Attributes:
        rows: U `[r, N]`, real floating point.
        rhs: g `[N]`, same dtype.
        damping: λ, a positive scalar.
        coefficients: c `[r]` with g = Uᵀc, same dtype; zeros where none is known. It is not
            relied on: whoever uses it checks it.
    """

    rows: Array
    rhs: Array
    damping: Scalar
    coefficients: Array


@runtime_checkable
class RowSolver(Protocol):
    """A solver of Gauss-Newton systems by the Jacobian's rows, in the place of a matrix.

    As a scheduler's quantum solver it has `name`, `solve` and `qubits(size)`, too; an argument
    `rows` of `qubits` is handed r.

    Attributes:
        by_rows: True. Training steps hand rows to it, and systems without any go elsewhere.
        host: True: the step calls it on the host.
    """

    by_rows: bool
    host: bool

    def solve_rows(self, system: RowSystem, tolerance: Scalar) -> Solution:
        """Solves `system`, eagerly.

        Args:
            system: See `RowSystem`.
            tolerance: Relative residual ``||(UᵀU + λI) x - g|| / ||g||`` that is enough, a number.
        """
        ...

    def success(
        self, length: Scalar, damping: Scalar, root: Scalar, gradient: Scalar, residuals: Scalar
    ) -> Scalar:
        """p of the first run, a scalar, in TensorFlow operations.

        Args:
            length: ‖x‖/‖g‖.
            damping: λ.
            root: √λ/α.
            gradient: ‖g‖.
            residuals: ‖c‖; zero where no c is known.
        """
        ...


class AbsoluteSolver(Protocol):
    """A solver of saddle-free systems, too."""

    @property
    def name(self) -> str: ...

    def solve_absolute(self, matrix: Array, rhs: Array, damping: Scalar) -> Solution:
        """``(A² + λ²I)^(-1/2) b``; λ is `damping`, in units of A."""
        ...
