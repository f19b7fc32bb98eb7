"""Solvers by inexact runs on the host, each for the residual of those before: see `refined`."""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_count, check_number
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_residual
from keras_qnewton.solvers.linear_solver import LinearSolver
from keras_qnewton.solvers.quantum.host import host_solve, host_solve_absolute
from keras_qnewton.solvers.quantum.refined import refine
from keras_qnewton.solvers.scaling import exponent_of, matrix_exponent
from keras_qnewton.types import Solution

Prepared = TypeVar("Prepared")


@dataclasses.dataclass(frozen=True)
class HostState(Generic[Prepared]):
    """A matrix made ready.

    Attributes:
        matrix: As given, a tensor `[N, N]`.
        prepared: The matrix in the form that the algorithm runs on.
    """

    matrix: tf.Tensor
    prepared: Prepared


class InexactSolver(LinearSolver[HostState[Prepared]]):
    """A solver that prepares a matrix in NumPy and then runs for one right-hand side at a time.

    A subclass writes `_prepare`, `_details` and `_runner`. Iterative refinement runs the algorithm
    again on the float64 residual until that is below `tolerance` or no longer halves, and takes
    the combination of all runs with the smallest residual (see `refined`). Eagerly,
    details["combined"] says of how many runs that was. Inside a
    `tf.function`, `solve` is one host call: `details` is empty, and an error is a NaN solution
    with a RuntimeWarning.

    Args:
        tolerance: Relative residual at which refinement stops (or at the round-off of b's
            dtype, if that is larger).
        max_refinements: Largest number of refinements; 0 for a single run.

    Raises:
        ValueError: If either is negative.
    """

    host = True
    traces = True

    def __init__(self, tolerance: float, max_refinements: int):
        self.tolerance = check_number(
            "tolerance", tolerance, "a number, 0 or more", most=math.inf, ends="[]"
        )
        self.max_refinements = check_count("max_refinements", max_refinements, least=0)

    @abc.abstractmethod
    def _prepare(self, matrix: np.ndarray) -> Prepared:
        """A `[N, N]`, float64, finite and of an ordinary scale, in the form that a run needs.

        Raises:
            ValueError: If the matrix is singular or too badly conditioned.
        """

    @abc.abstractmethod
    def _details(self, prepared: Prepared) -> dict[str, Any]:
        """`Solution.details` before a run."""

    @abc.abstractmethod
    def _runner(
        self, prepared: Prepared, details: dict[str, Any]
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        """The function from a right-hand side `[N]`, not zero, and a run's number to about
        ``A^-1`` times it; it updates `details`.
        """

    def init(self, matrix: TensorLike) -> HostState[Prepared]:
        """Makes `matrix` `[N, N]` ready. Needs values: inside a `tf.function`, call `solve`.

        Raises:
            ValueError: If the matrix is not fit, singular, or too badly conditioned.
        """
        matrix = check_matrix(matrix)
        if not hasattr(matrix, "numpy"):
            raise ValueError(
                "Argument `matrix` must have values: inside a tf.function, call `solve`. "
                f"Received: matrix={matrix!r}"
            )
        return HostState(matrix, self._ready(np.asarray(matrix.numpy(), np.float64)))

    def compute(self, state: HostState[Prepared], rhs: TensorLike) -> Solution:
        """Runs the algorithm for `rhs` `[N]`, and again for each residual."""
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        x, details = self._refine(
            np.asarray(state.matrix.numpy(), np.float64),
            np.asarray(rhs.numpy(), np.float64),
            state.prepared,
            self._tolerance(rhs.dtype),
        )
        x = tf.constant(x, rhs.dtype)
        return Solution(x, relative_residual(state.matrix, x, rhs), self.name, details)

    def solve(self, matrix: TensorLike, rhs: TensorLike) -> Solution:
        """Solves ``matrix @ x = rhs``; see `LinearSolver.solve`, and `init` for its errors."""
        if tf.executing_eagerly():
            return super().solve(matrix, rhs)
        matrix = check_matrix(matrix)
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        tolerance = self._tolerance(rhs.dtype)

        def on_host(matrix: np.ndarray, rhs: np.ndarray) -> np.ndarray:
            return self._refine(matrix, rhs, self._ready(matrix), tolerance)[0]

        x = host_solve(on_host, matrix, rhs, self.name)
        return Solution(x, relative_residual(matrix, x, rhs), self.name)

    def at(self, tolerance: float) -> InexactSolver[Prepared]:
        """This solver for solutions of that relative residual, if it is above its own."""
        other = copy.copy(self)
        other.tolerance = max(self.tolerance, float(tolerance))
        return other

    def solve_to(self, matrix: TensorLike, rhs: TensorLike, tolerance: Scalar) -> Solution:
        """`solve` by `at`: in a graph, the tolerance may be one of its tensors.

        Args:
            matrix: A `[N, N]`, symmetric.
            rhs: b `[N]`.
            tolerance: Largest relative residual, a number or a scalar tensor; from 1 on, 1.
        """
        if tf.executing_eagerly():
            return self.at(float(tolerance)).solve(matrix, rhs)
        matrix = check_matrix(matrix)
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        smallest = float(np.finfo(rhs.dtype.as_numpy_dtype).eps)

        def on_host(
            matrix: np.ndarray, rhs: np.ndarray, tolerance: float
        ) -> tuple[np.ndarray, float]:
            solver = self.at(max(tolerance, smallest))
            x, _ = solver._refine(matrix, rhs, solver._ready(matrix), solver.tolerance)
            return x, 0.0

        given = tf.convert_to_tensor(tolerance)
        x, _ = host_solve_absolute(on_host, matrix, rhs, given, self.name)
        return Solution(x, relative_residual(matrix, x, rhs), self.name)

    def _ready(self, matrix: np.ndarray) -> Prepared:
        check_finite(matrix)
        return self._prepare(np.ldexp(matrix, -matrix_exponent(matrix)))

    def _refine(
        self, matrix: np.ndarray, rhs: np.ndarray, prepared: Prepared, tolerance: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The solution in float64 and its details, from as many runs as it takes."""
        # In units of both sides, so that no norm overflows or vanishes.
        of_matrix, of_rhs = matrix_exponent(matrix), exponent_of(rhs)
        matrix, rhs = np.ldexp(matrix, -of_matrix), np.ldexp(rhs, -of_rhs)
        x, details = self._refine_scaled(matrix, rhs, prepared, tolerance)
        return np.ldexp(x, of_rhs - of_matrix), details

    def _refine_scaled(
        self, matrix: np.ndarray, rhs: np.ndarray, prepared: Prepared, tolerance: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        details = self._details(prepared)
        if not np.any(rhs):
            return np.zeros_like(rhs), details
        run = self._runner(prepared, details)
        found = refine(matrix, rhs, run, tolerance, self.max_refinements)
        details["refinements"], details["combined"] = found.refinements, found.combined
        return found.x, details

    def _tolerance(self, dtype: tf.DType) -> float:
        return max(self.tolerance, float(np.finfo(dtype.as_numpy_dtype).eps))

    def get_config(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "max_refinements": self.max_refinements}


def check_finite(matrix: np.ndarray) -> None:
    """Raises ValueError for a matrix with NaN or Inf."""
    if not np.all(np.isfinite(matrix)):
        raise ValueError("Argument `matrix` must be finite. Received: a matrix with NaN or Inf")


def unit(vector: np.ndarray, qubits: int) -> tuple[np.ndarray, float]:
    """`vector` `[N]` padded by zeros to `[2^qubits]` and normalised, and its norm."""
    padded, exponent = np.zeros(1 << qubits), exponent_of(vector)
    padded[: len(vector)] = np.ldexp(vector, -exponent)
    norm = float(np.linalg.norm(padded))
    return (padded / norm if norm > 0 else padded), float(np.ldexp(norm, exponent))
