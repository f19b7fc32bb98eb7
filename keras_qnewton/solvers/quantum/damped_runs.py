"""Runs of circuits that encode U, for one U and λ, and what they are checked against."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.circuit_runs import CircuitRuns, note_first
from keras_qnewton.solvers.quantum.damped_polynomial import damped_degree
from keras_qnewton.solvers.quantum.damped_success import relative_success
from keras_qnewton.solvers.quantum.encodings.rectangular import RECTANGULAR, Rectangular
from keras_qnewton.solvers.quantum.inexact import unit
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.transforms import Transform, damped, damped_from_residuals
from keras_qnewton.solvers.scaling import exponent_of


class DampedGram(NamedTuple):
    """UᵀU + λI as it multiplies: r N multiplications in place of N².

    Attributes:
        rows: U `[r, N]`, float64.
        damping: λ.
    """

    rows: np.ndarray
    damping: float

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.rows.T @ (self.rows @ other) + self.damping * other
        return out


class Scaled(NamedTuple):
    """A problem in ordinary units.

    Attributes:
        rows: U `[r, N]` with entries of at most 1.
        damping: λ.
        vector: g or r, with entries of at most 1.
        exponent: x is that power of two times this problem's.
        of_rows: The rows are that power of two times these.
    """

    rows: np.ndarray
    damping: float
    vector: np.ndarray
    exponent: int
    of_rows: int

    def like_residuals(self, coefficients: np.ndarray) -> np.ndarray:
        """c `[r]` of g = Uᵀc, in units of these rows and a `vector` that is this g."""
        scaled: np.ndarray = np.ldexp(coefficients, -(self.exponent + self.of_rows))
        return scaled


class Runs:
    """Runs for one U and λ.

    Args:
        solver: Whose accuracy, backend and readout they have.
        name: Of the encoding, a key of `RECTANGULAR`.
        problem: U and λ.
        details: Is updated.
    """

    def __init__(self, solver: CircuitRuns, name: str, problem: Scaled, details: dict[str, Any]):
        self._solver, self._problem, self._details = solver, problem, details
        self._kind = RECTANGULAR[name]
        self._encoding = encoding = self._kind(problem.rows)
        self._damping = math.sqrt(problem.damping) / encoding.alpha
        self._check_degree()
        plan = damped(self._damping, solver.epsilon)
        self._backend, details["backend_reason"] = solver._backend(encoding, plan)
        details["backend"] = backends.name_of(self._backend)
        solver._readout().check(self._backend)
        details.update({"alpha": encoding.alpha, "damping": self._damping})

    def are_likelier(self, residuals: np.ndarray, rhs: np.ndarray) -> bool:
        """Whether a first run from |c⟩ succeeds with a larger probability than one from |g⟩.

        Args:
            residuals: c `[r]`; zeros where none is known.
            rhs: g `[N]`. A c whose Uᵀc is further from it than a run's accuracy is not used.
        """
        norm, length = float(np.linalg.norm(residuals)), float(np.linalg.norm(rhs))
        if not 0 < norm < math.inf:
            return False
        off = np.linalg.norm(self._problem.rows.T @ residuals - rhs)
        if off > self._solver.epsilon * length:
            return False
        return bool(relative_success(self._problem.damping, self._damping, length, norm) > 1)

    def from_gradient(self, gap: np.ndarray, number: int) -> np.ndarray:
        """x for g = `gap`."""
        plan = damped(self._damping, self._solver.epsilon)
        found = self._run(self._encoding, plan, gap, number)
        return found[: len(gap)] / self._problem.damping

    def from_residuals(self, residuals: np.ndarray) -> np.ndarray:
        """x for g = Uᵀ `residuals`."""
        # Of Uᵀ the odd polynomial leads from rows to weights.
        encoding = self._kind(self._problem.rows.T)
        plan = damped_from_residuals(self._damping, self._solver.epsilon)
        found = self._run(encoding, plan, residuals, 0)
        weights = self._problem.rows.shape[1]
        return found[:weights] * encoding.alpha / self._problem.damping

    def _check_degree(self) -> None:
        degree, most = damped_degree(self._damping, self._solver.epsilon), self._solver.max_degree
        if degree > most:
            raise ValueError(
                f"Argument `damping` must be large enough for a polynomial of degree {most} "
                f"(`max_degree`). Received: √λ/α = {self._damping:.3g}, degree {degree}"
            )

    def _run(
        self, encoding: Rectangular, plan: Transform, vector: np.ndarray, number: int
    ) -> np.ndarray:
        """p of the encoding, times `vector`."""
        solver, details = self._solver, self._details
        state, norm = unit(vector, encoding.system_qubits)
        outcome = solver._read(self._backend, encoding, plan, state, number)
        details["queries"] += plan.degree * max(outcome.shots, 1)
        details["shots"] += outcome.shots
        if number == 0:
            p = outcome.success_probability
            note_first(details, outcome, Resources(encoding, plan, p, accuracy=solver.epsilon))
            details.update({"degree": plan.degree, "qubits": 1 + encoding.qubits})
        answer: np.ndarray = outcome.amplitudes * (plan.sign * norm / plan.scale)
        return answer


def scaled(rows: tf.Tensor, vector: tf.Tensor, damping: float, axis: int, name: str) -> Scaled:
    """Checked, and in ordinary units; `vector` belongs to that axis of the rows."""
    if rows.shape.rank != 2 or rows.dtype not in (tf.float32, tf.float64) or 0 in rows.shape:
        raise ValueError(
            "Argument `rows` must be a float32 or float64 matrix with rows and columns. "
            f"Received: rows of shape {tuple(rows.shape)} and dtype {rows.dtype.name}"
        )
    if tuple(vector.shape) != (rows.shape[axis],) or vector.dtype != rows.dtype:
        raise ValueError(
            f"Argument `{name}` must be a vector of length {rows.shape[axis]} and dtype "
            f"{rows.dtype.name}. Received: {name} of shape {tuple(vector.shape)} and dtype "
            f"{vector.dtype.name}"
        )
    if not 0 < damping < math.inf:
        raise ValueError(
            f"Argument `damping` must be positive and finite. Received: damping={damping!r}"
        )
    arrays = [np.asarray(value.numpy(), np.float64) for value in (rows, vector)]
    for array, what in zip(arrays, ("rows", name), strict=True):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"Argument `{what}` must be finite. Received: NaN or Inf in it")
    if not np.any(arrays[0]):
        raise ValueError("Argument `rows` must not be zero. Received: rows of zeros")
    of_rows, of_vector = (exponent_of(array) for array in arrays)
    # From residuals, g = Uᵀ r has a factor of the rows'.
    exponent = of_vector - (1 if axis == 0 else 2) * of_rows
    with np.errstate(over="ignore", under="ignore"):
        scaled_damping = float(np.ldexp(float(damping), -2 * of_rows))
    if not 0 < scaled_damping < math.inf:
        raise ValueError(
            "Argument `damping` must be within the range of double precision of the squares of "
            f"`rows`. Received: damping={damping!r}, rows of at most about 2**{of_rows}"
        )
    return Scaled(
        np.ldexp(arrays[0], -of_rows),
        scaled_damping,
        np.ldexp(arrays[1], -of_vector),
        exponent,
        of_rows,
    )
