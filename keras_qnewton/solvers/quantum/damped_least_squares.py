"""(UᵀU + λI)⁻¹ g by circuits that encode U: Gauss-Newton's step from the Jacobian's rows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_choice, check_count, check_number
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.circuit_runs import (
    CircuitRuns,
    deserialised,
    no_run,
    note_first,
)
from keras_qnewton.solvers.quantum.damped_depth import Shape, damped_depth
from keras_qnewton.solvers.quantum.damped_polynomial import damped_degree
from keras_qnewton.solvers.quantum.encodings import padded_qubits
from keras_qnewton.solvers.quantum.encodings.rectangular import RECTANGULAR, Rectangular
from keras_qnewton.solvers.quantum.inexact import unit
from keras_qnewton.solvers.quantum.readout import Readout
from keras_qnewton.solvers.quantum.refined import refine
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.transforms import Transform, damped, damped_from_residuals
from keras_qnewton.solvers.scaling import exponent_of
from keras_qnewton.types import Solution


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


class _Scaled(NamedTuple):
    """A problem in ordinary units.

    Attributes:
        rows: U `[r, N]` with entries of at most 1.
        damping: λ.
        vector: g or r, with entries of at most 1.
        exponent: x is that power of two times this problem's.
    """

    rows: np.ndarray
    damping: float
    vector: np.ndarray
    exponent: int


@keras.saving.register_keras_serializable(package="keras_qnewton")
class DampedLeastSquares(CircuitRuns):
    """``(UᵀU + λI) x = g``, for rows U that are neither square nor symmetric.

    A circuit encodes U/α and applies an even polynomial close to λ/(σ² + λ) to its singular values,
    which turns |g⟩ into λ x/‖g‖. Its degree is about ``ln(2/epsilon)/asinh(√λ/α)``, of the order
    of √κ where UᵀU + λI itself takes κ; each run leaves a residual of `epsilon` at most, whatever g
    is. It succeeds with probability ``(λ‖x‖/‖g‖)²``, which is large where g leans to weights that
    the rows hardly know, and small where it lies among their large singular values.

    `solve_residuals` starts from |r⟩ with g = Uᵀr, by an odd polynomial close to σ/(σ² + λ). Its
    success probability falls with ``‖Uᵀr‖/‖r‖``, which vanishes as a fit of noisy data ends. It
    cannot be refined from |r⟩: later residuals are refined from |g⟩.

    Refinement, simulation and what is said of them are `QSVT`'s, and so are `details`, without
    "condition_number" and with "damping", √λ/α. Eagerly only.

    Source: Gilyén, Su, Low & Wiebe 2018, arXiv:1806.01838 (singular values); Chakraborty, Morolia &
    Peduri 2023, arXiv:2206.13143 (regularised least squares by circuits).

    Args:
        backend: See `QSVT`.
        encoding: "dilation", of α = ‖U‖₂, or "frobenius", of α = ‖U‖_F.
        epsilon: Largest relative residual of one run from |g⟩.
        dtype: See `QSVT`.
        tolerance: See `QSVT`.
        max_refinements: See `QSVT`.
        max_degree: See `QSVT`.
        readout: See `QSVT`.

    Raises:
        ValueError: For arguments out of range.
    """

    name = "damped_least_squares"

    def __init__(
        self,
        backend: str | backends.Backend = "auto",
        encoding: str = "dilation",
        epsilon: float = 1e-3,
        dtype: str = "complex64",
        tolerance: float = 1e-12,
        max_refinements: int = 10,
        max_degree: int = 30_000,
        readout: str | Readout = "exact",
    ):
        self.encoding = check_choice("encoding", encoding, tuple(RECTANGULAR))
        self.tolerance = check_number(
            "tolerance", tolerance, "a number, 0 or more", most=math.inf, ends="[]"
        )
        self.max_refinements = check_count("max_refinements", max_refinements, least=0)
        self._set_runs(backend, epsilon, dtype, max_degree, readout)

    def qubits(self, rows: int, size: int) -> int:
        """Largest width for U `[rows, size]`: signal, ancillas, system, work."""
        system, kind = padded_qubits(max(rows, size)), RECTANGULAR[self.encoding]
        return 1 + kind.max_ancillas(system) + system + kind.max_work_qubits(system)

    def circuit_depth(
        self, rows: Scalar, size: Scalar, damping: Scalar, from_residuals: bool = False
    ) -> tf.Tensor:
        """Layers of gates of one run, but for the preparation of g or r; scalar float64.

        That over the success probability is the price of a state; see details["resources"] for one
        that ran.

        Args:
            rows: r, an int or a scalar tensor.
            size: N, an int or a scalar tensor.
            damping: √λ/α, a number or a scalar tensor.
            from_residuals: Whether the run starts from |r⟩.
        """
        return damped_depth(self.encoding, Shape(rows, size), damping, self.epsilon, from_residuals)

    def solve(self, rows: TensorLike, rhs: TensorLike, damping: float) -> Solution:
        """``(UᵀU + λI)⁻¹ g``.

        Args:
            rows: U `[r, N]`, float32 or float64.
            rhs: g `[N]`, same dtype.
            damping: λ, a positive number.

        Raises:
            ValueError: If an argument is not fit, or λ so small that the degree exceeds
                `max_degree`.
        """
        return self._solve(rows, rhs, damping, from_residuals=False)

    def solve_residuals(self, rows: TensorLike, residuals: TensorLike, damping: float) -> Solution:
        """``(UᵀU + λI)⁻¹ Uᵀ r``, the first run from |r⟩.

        Args:
            rows: U `[r, N]`, float32 or float64.
            residuals: r `[r]`, same dtype.
            damping: λ, a positive number.

        Raises:
            ValueError: As `solve` does.
        """
        return self._solve(rows, residuals, damping, from_residuals=True)

    def _solve(
        self, rows: TensorLike, vector: TensorLike, damping: float, from_residuals: bool
    ) -> Solution:
        rows, vector = tf.convert_to_tensor(rows), tf.convert_to_tensor(vector)
        name = "residuals" if from_residuals else "rhs"
        problem = _scaled(rows, vector, damping, 0 if from_residuals else 1, name)
        gram = DampedGram(problem.rows, problem.damping)
        rhs = problem.rows.T @ problem.vector if from_residuals else problem.vector
        details = {"encoding": self.encoding, **no_run()}
        if not np.any(rhs):
            x = tf.zeros([rows.shape[1]], rows.dtype)
            return Solution(x, tf.constant(0.0, tf.float64), self.name, details)
        runs = _Runs(self, problem, details)

        def run(gap: np.ndarray, number: int) -> np.ndarray:
            if from_residuals and number == 0:
                return runs.from_residuals(problem.vector)
            return runs.from_gradient(gap, number)

        tolerance = max(self.tolerance, float(np.finfo(rows.dtype.as_numpy_dtype).eps))
        found = refine(gram, rhs, run, tolerance, self.max_refinements)
        details["refinements"], details["combined"] = found.refinements, found.combined
        left = np.linalg.norm(gram @ found.x - rhs) / np.linalg.norm(rhs)
        x = tf.constant(np.ldexp(found.x, problem.exponent), rows.dtype)
        return Solution(x, tf.constant(left, tf.float64), self.name, details)

    def _check_degree(self, damping: float) -> None:
        degree = damped_degree(damping, self.epsilon)
        if degree > self.max_degree:
            raise ValueError(
                "Argument `damping` must be large enough for a polynomial of degree "
                f"{self.max_degree} (`max_degree`). Received: √λ/α = {damping:.3g}, degree {degree}"
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **self._runs_config(),
            "encoding": self.encoding,
            "tolerance": self.tolerance,
            "max_refinements": self.max_refinements,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DampedLeastSquares:
        return cls(**deserialised(config))


class _Runs:
    """Runs for one U and λ.

    Args:
        solver: Whose accuracy, backend and readout they have.
        problem: U and λ.
        details: Is updated.
    """

    def __init__(self, solver: DampedLeastSquares, problem: _Scaled, details: dict[str, Any]):
        self._solver, self._problem, self._details = solver, problem, details
        self._kind = RECTANGULAR[solver.encoding]
        encoding = self._kind(problem.rows)
        self._damping = math.sqrt(problem.damping) / encoding.alpha
        solver._check_degree(self._damping)
        self._encoding = encoding
        plan = damped(self._damping, solver.epsilon)
        self._backend, details["backend_reason"] = solver._backend(encoding, plan)
        details["backend"] = backends.name_of(self._backend)
        solver._readout().check(self._backend)
        details.update({"alpha": encoding.alpha, "damping": self._damping})

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


def _scaled(rows: tf.Tensor, vector: tf.Tensor, damping: float, axis: int, name: str) -> _Scaled:
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
    return _Scaled(
        np.ldexp(arrays[0], -of_rows),
        scaled_damping,
        np.ldexp(arrays[1], -of_vector),
        exponent,
    )
