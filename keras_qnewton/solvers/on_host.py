"""Anybody's solver in a graph: one that needs numbers is called on the host.

A solver of this package that leaves the graph knows how to (`LinearSolver.traces`). Of any other
with ``host = True``, in NumPy, Cirq, or on a remote machine, `solve` gets arrays, and what it
raises becomes a NaN solution and a warning: the step has other routes to take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import relative_residual
from keras_qnewton.solvers.quantum.host import host_call, host_solve, host_solve_absolute
from keras_qnewton.types import (
    AbsoluteSolver,
    CarryingSolver,
    RowSolver,
    RowSystem,
    Solution,
    Solver,
    SolverToTolerance,
)


def solve(
    solver: Solver, matrix: TensorLike, rhs: TensorLike, tolerance: tf.Tensor | None = None
) -> Solution:
    """``solver.solve(matrix, rhs)``, by a host call where a graph could not do it.

    Args:
        solver: Any.
        matrix: A `[N, N]`.
        rhs: b `[N]`.
        tolerance: Relative residual that is enough, float64 scalar, for a solver with `solve_to`;
            None, and for others, as exact as the solver's settings have it.

    Returns:
        A `Solution`; of a host call, with a residual that was computed here.
    """
    if not _needs_numbers(solver):
        if tolerance is not None and isinstance(solver, SolverToTolerance):
            return solver.solve_to(matrix, rhs, tolerance)
        return solver.solve(matrix, rhs)

    def on_host(matrix: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        # Copies: a solver may write into what it is given.
        return np.asarray(solver.solve(matrix.copy(), rhs.copy()).x, np.float64)

    x = host_solve(on_host, matrix, rhs, str(solver.name))
    return Solution(x, relative_residual(matrix, x, rhs), str(solver.name))


def solve_from(
    solver: CarryingSolver,
    matrix: TensorLike,
    rhs: TensorLike,
    lengths: tf.Tensor,
    tolerance: tf.Tensor | None,
) -> tuple[Solution, tf.Tensor]:
    """``solver.solve_from(...)``; such solvers make their host calls themselves."""
    solution, left = solver.solve_from(matrix, rhs, lengths, tolerance)
    return solution, tf.cast(left, tf.float64)


def solve_rows(solver: RowSolver, system: RowSystem, tolerance: Scalar) -> tf.Tensor:
    """x of ``solver.solve_rows(...)`` `[N]`, by a host call; NaN and a warning if it fails.

    Args:
        solver: Any.
        system: Tensors.
        tolerance: Relative residual that is enough.
    """

    def on_host(*numbers: np.ndarray) -> np.ndarray:
        *of_system, enough = (number.copy() for number in numbers)
        return np.asarray(solver.solve_rows(RowSystem(*of_system), float(enough)).x, np.float64)

    return host_call(
        on_host, [*system, tolerance], system.rhs, str(getattr(solver, "name", solver))
    )


def solve_absolute(
    solver: AbsoluteSolver, matrix: TensorLike, rhs: TensorLike, damping: Scalar
) -> Solution:
    """``solver.solve_absolute(matrix, rhs, damping)``, likewise; the residual is the solver's."""
    if not _needs_numbers(solver):
        return solver.solve_absolute(matrix, rhs, damping)

    def on_host(matrix: np.ndarray, rhs: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
        solution = solver.solve_absolute(matrix.copy(), rhs.copy(), damping)
        return np.asarray(solution.x, np.float64), float(solution.residual)

    name = str(solver.name)
    x, residual = host_solve_absolute(on_host, matrix, rhs, tf.convert_to_tensor(damping), name)
    return Solution(x, residual, name)


def _needs_numbers(solver: Any) -> bool:
    leaves = bool(getattr(solver, "host", False)) and not getattr(solver, "traces", False)
    return leaves and not tf.executing_eagerly()
