"""(UᵀU + λI)⁻¹ g by circuits that encode U: Gauss-Newton's step from the Jacobian's rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_choice, check_count, check_number
from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.circuit_depth import coarsened as coarsened_in_graph
from keras_qnewton.solvers.quantum.circuit_depth import float64
from keras_qnewton.solvers.quantum.circuit_runs import CircuitRuns, deserialised, no_run
from keras_qnewton.solvers.quantum.damped_depth import Shape, damped_depth
from keras_qnewton.solvers.quantum.damped_depth import damped_degree as degree_in_graph
from keras_qnewton.solvers.quantum.damped_runs import DampedGram, Runs, Scaled, scaled
from keras_qnewton.solvers.quantum.damped_success import success_probability
from keras_qnewton.solvers.quantum.encodings import padded_qubits
from keras_qnewton.solvers.quantum.encodings.rectangular import RECTANGULAR
from keras_qnewton.solvers.quantum.readout import Readout
from keras_qnewton.solvers.quantum.refined import refine
from keras_qnewton.solvers.quantum.transforms import COARSEST, coarsened
from keras_qnewton.types import RowSystem, Solution


@register("solver", "damped_least_squares")
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

    As a scheduler's quantum solver it is handed the rows of each block (`solve_rows`): of
    Gauss-Newton and Fisher matrices that are neither pruned, averaged over batches, nor rescaled.
    The price has √κ in the place of κ, and the success probability by a few products with the
    matrix (`conditioning.quadrature`). Other systems go to the scheduler's classical solvers.

    Refinement, simulation and what is said of them are `QSVT`'s, and so are `details`, without
    "condition_number" and with "damping", √λ/α, and "start", of which the first run was,
    "gradient" or "residuals".

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
    # Of `types.RowSolver`: in a graph the step makes a host call.
    host = True
    by_rows = True

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

    def qubits(self, size: int, rows: int | None = None) -> int:
        """Largest width for U `[rows, size]`: signal, ancillas, system, work.

        Args:
            size: N.
            rows: r; None for no more than N.
        """
        system, kind = padded_qubits(max(rows or 1, size)), RECTANGULAR[self.encoding]
        return 1 + kind.max_ancillas(system) + system + kind.max_work_qubits(system)

    @property
    def encoding_name(self) -> str:
        """Name of the block encoding."""
        return self.encoding

    @property
    def max_condition_number(self) -> float:
        """Largest κ of UᵀU + λI that `max_degree` allows at α = ‖U‖₂."""
        # The largest degree is even, and its polynomial has zeros of T of two degrees more.
        degree = self.max_degree // 2 * 2 + 2
        return 1 + 1 / math.sinh(math.acosh(1 / self.epsilon) / degree) ** 2

    def circuit_depth(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        alpha: Scalar | None = None,
        rows: Scalar | None = None,
        tolerance: Scalar | None = None,
    ) -> tf.Tensor:
        """Layers of gates of one run from |g⟩, but for its preparation; scalar float64.

        Exact, by the formulas of `damped_depth`: nothing is built. From |c⟩ one call more is made.

        Args:
            size: N, an int or a scalar tensor.
            condition_number: √κ of UᵀU + λI, at least 1: of what is encoded. A number or a scalar
                tensor.
            sparsity: Not used: encodings hold all of U's numbers.
            alpha: α/‖U‖₂, at least 1; None for the largest that U's shape allows.
            rows: r; None for N.
            tolerance: Relative residual that is enough, for the circuit of `at(tolerance)`; None
                for this solver's own.

        Returns:
            Inf where the degree would be above `max_degree`.
        """
        del sparsity
        rows = size if rows is None else rows
        if alpha is None:
            smaller = tf.minimum(float64(rows), float64(size))
            alpha = 1.0 if self.encoding == "dilation" else tf.sqrt(smaller)
        epsilon: Scalar = self.epsilon
        if tolerance is not None:
            epsilon = coarsened_in_graph(tolerance, self.epsilon, COARSEST)
        # λ/‖U‖₂² = 1/(κ - 1); a matrix of zeros has none, and takes the lowest degree.
        root = tf.math.rsqrt(tf.maximum(tf.square(float64(condition_number)) - 1, 1e-12))
        root /= tf.maximum(float64(alpha), 1.0)
        depth = damped_depth(self.encoding, Shape(rows, size), root, epsilon)
        possible = degree_in_graph(root, epsilon) <= self.max_degree
        return tf.where(possible, depth, tf.constant(math.inf, tf.float64))

    def success(
        self, length: Scalar, damping: Scalar, root: Scalar, gradient: Scalar, residuals: Scalar
    ) -> tf.Tensor:
        """See `types.RowSolver`: of the likelier start."""
        return success_probability(length, damping, root, gradient, residuals)

    def at(self, tolerance: float) -> DampedLeastSquares:
        """This solver for solutions of that relative residual, if it is above its own."""
        other = copy.copy(self)
        other.tolerance = max(self.tolerance, float(tolerance))
        other.epsilon = max(self.epsilon, min(coarsened(tolerance), COARSEST))
        return other

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
        rows, rhs = tf.convert_to_tensor(rows), tf.convert_to_tensor(rhs)
        problem = scaled(rows, rhs, damping, 1, "rhs")
        return self._solved(problem, problem.vector, rows.dtype, lambda _: None)

    def solve_residuals(self, rows: TensorLike, residuals: TensorLike, damping: float) -> Solution:
        """``(UᵀU + λI)⁻¹ Uᵀ r``, the first run from |r⟩.

        Args:
            rows: U `[r, N]`, float32 or float64.
            residuals: r `[r]`, same dtype.
            damping: λ, a positive number.

        Raises:
            ValueError: As `solve` does.
        """
        rows, residuals = tf.convert_to_tensor(rows), tf.convert_to_tensor(residuals)
        problem = scaled(rows, residuals, damping, 0, "residuals")
        rhs = problem.rows.T @ problem.vector
        return self._solved(problem, rhs, rows.dtype, lambda _: problem.vector)

    def solve_rows(self, system: RowSystem, tolerance: Scalar) -> Solution:
        """See `types.RowSolver`: from |c⟩ where that is likelier to succeed, else from |g⟩.

        Raises:
            ValueError: As `solve` does.
        """
        rows, rhs = tf.convert_to_tensor(system.rows), tf.convert_to_tensor(system.rhs)
        problem = scaled(rows, rhs, float(system.damping), 1, "rhs")
        c = problem.like_residuals(np.asarray(system.coefficients, np.float64))

        def start(runs: Runs) -> np.ndarray | None:
            return c if runs.are_likelier(c, problem.vector) else None

        return self.at(float(tolerance))._solved(problem, problem.vector, rows.dtype, start)

    def _solved(
        self,
        problem: Scaled,
        rhs: np.ndarray,
        dtype: tf.DType,
        start: Callable[[Runs], np.ndarray | None],
    ) -> Solution:
        """x for g = `rhs`; `start` gives the residuals that the first run is from, if it is."""
        gram = DampedGram(problem.rows, problem.damping)
        details = {"encoding": self.encoding, "start": "gradient", **no_run()}
        if not np.any(rhs):
            x = tf.zeros([problem.rows.shape[1]], dtype)
            return Solution(x, tf.constant(0.0, tf.float64), self.name, details)
        runs = Runs(self, self.encoding, problem, details)
        residuals = start(runs)
        details["start"] = "gradient" if residuals is None else "residuals"

        def run(gap: np.ndarray, number: int) -> np.ndarray:
            if residuals is not None and number == 0:
                return runs.from_residuals(residuals)
            return runs.from_gradient(gap, number)

        tolerance = max(self.tolerance, float(np.finfo(dtype.as_numpy_dtype).eps))
        found = refine(gram, rhs, run, tolerance, self.max_refinements)
        details["refinements"], details["combined"] = found.refinements, found.combined
        left = np.linalg.norm(gram @ found.x - rhs) / np.linalg.norm(rhs)
        x = tf.constant(np.ldexp(found.x, problem.exponent), dtype)
        return Solution(x, tf.constant(left, tf.float64), self.name, details)

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
