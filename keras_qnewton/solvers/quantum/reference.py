"""What the reference algorithms share: an inexact solve on the host, refined by its residual."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_residual
from keras_qnewton.solvers.quantum.encodings import padded_qubits
from keras_qnewton.solvers.quantum.host import host_solve
from keras_qnewton.solvers.staged import StagedSolver
from keras_qnewton.types import Solution

# A refinement that does not at least halve the residual is at its floor.
_WORTHWHILE = 0.5


class ReferenceState(NamedTuple):
    """A matrix made ready.

    Attributes:
        matrix: As given, a tensor `[N, N]`.
        prepared: What the algorithm made of its values.
    """

    matrix: Any
    prepared: Any


class ReferenceSolver(StagedSolver):
    """A solver that prepares a matrix and then runs for unit vectors, all in NumPy.

    A subclass writes `_prepare` and `_run`. Iterative refinement runs the algorithm again on the
    float64 residual until that is below `tolerance` or no longer halves. Inside a
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

    def __init__(self, tolerance: float, max_refinements: int):
        if tolerance < 0 or max_refinements < 0:
            raise ValueError(
                "Arguments `tolerance` and `max_refinements` must be 0 or more. Received: "
                f"tolerance={tolerance!r}, max_refinements={max_refinements!r}"
            )
        self.tolerance = float(tolerance)
        self.max_refinements = int(max_refinements)

    def _prepare(self, matrix: np.ndarray) -> tuple[Any, dict[str, Any]]:
        """What `_run` needs of A `[N, N]`, finite and not singular; and details."""
        raise NotImplementedError

    def _run(self, prepared: Any, state: np.ndarray) -> tuple[np.ndarray, float, int]:
        """For b = `state`, a unit vector `[2^n]`: x `[2^n]`, success probability, queries."""
        raise NotImplementedError

    def init(self, matrix: Any) -> ReferenceState:
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
        return ReferenceState(matrix, self._checked(np.asarray(matrix.numpy(), np.float64)))

    def compute(self, state: ReferenceState, rhs: Any) -> Solution:
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

    def solve(self, matrix: Any, rhs: Any) -> Solution:
        """Solves ``matrix @ x = rhs``; see `StagedSolver.solve`, and `init` for its errors."""
        if tf.executing_eagerly():
            return super().solve(matrix, rhs)
        matrix = check_matrix(matrix)
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        tolerance = self._tolerance(rhs.dtype)

        def on_host(matrix: np.ndarray, rhs: np.ndarray) -> np.ndarray:
            return self._refine(matrix, rhs, self._checked(matrix), tolerance)[0]

        x = host_solve(on_host, matrix, rhs, self.name)
        return Solution(x, relative_residual(matrix, x, rhs), self.name)

    def _checked(self, matrix: np.ndarray) -> tuple[Any, dict[str, Any]]:
        if not np.all(np.isfinite(matrix)):
            raise ValueError("Argument `matrix` must be finite. Received: a matrix with NaN or Inf")
        magnitudes = np.abs(np.linalg.eigvalsh(matrix))
        if not magnitudes.max() > 0:
            raise ValueError("Argument `matrix` must not be zero. Received: a matrix of zeros")
        with np.errstate(divide="ignore"):
            kappa = float(magnitudes.max() / magnitudes.min())
        if math.isinf(kappa):
            raise ValueError("Argument `matrix` must not be singular. Received: a singular matrix")
        if kappa > self.max_condition_number:
            raise ValueError(
                f"Argument `matrix` must have a condition number of at most "
                f"{self.max_condition_number:.3g}, the limit of {self!r}. "
                f"Received: condition number {kappa:.3g}. Damp the matrix"
            )
        return self._prepare(matrix)

    @property
    def max_condition_number(self) -> float:
        """Largest κ; a matrix beyond it is refused."""
        raise NotImplementedError

    def _refine(
        self,
        matrix: np.ndarray,
        rhs: np.ndarray,
        prepared: tuple[Any, dict[str, Any]],
        tolerance: float,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The solution in float64 and its details."""
        ready, known = prepared
        details = {"success_probability": None, "queries": 0, "refinements": 0, **known}
        x, scale = np.zeros_like(rhs), float(np.linalg.norm(rhs))
        if scale == 0:
            return x, details
        gap, residual = rhs, math.inf
        for run in range(1 + self.max_refinements):
            state = unit(gap)
            correction, probability, queries = self._run(ready, state)
            candidate = x + correction[: len(rhs)] * np.linalg.norm(gap)
            candidate_gap = rhs - matrix @ candidate
            reached = float(np.linalg.norm(candidate_gap) / scale)
            details["queries"] += queries
            details["refinements"] = run
            if run == 0:
                details["success_probability"] = probability
            # The first answer stands whatever it is worth: its residual tells.
            if run == 0 or reached < residual:
                x, gap = candidate, candidate_gap
            if not tolerance < reached <= _WORTHWHILE * residual:
                break
            residual = reached
        return x, details

    def _tolerance(self, dtype: Any) -> float:
        return max(self.tolerance, float(np.finfo(dtype.as_numpy_dtype).eps))

    def get_config(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "max_refinements": self.max_refinements}


def unit(vector: np.ndarray) -> np.ndarray:
    """`vector` `[N]` padded by zeros to a power of two, at least 2, and normalised."""
    padded = np.zeros(1 << padded_qubits(len(vector)))
    padded[: len(vector)] = vector
    norm = np.linalg.norm(padded)
    return padded / norm if norm > 0 else padded
