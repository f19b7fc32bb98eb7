"""Matrix inversion by the quantum singular value transformation, with refinement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.absolute import DTYPE, AbsoluteResult, apply_absolute
from keras_qnewton.solvers.quantum.circuit_depth import circuit_depth
from keras_qnewton.solvers.quantum.circuit_depth import coarsened as coarsened_in_graph
from keras_qnewton.solvers.quantum.circuit_runs import note_first
from keras_qnewton.solvers.quantum.encoded_solver import EncodedSolver
from keras_qnewton.solvers.quantum.encodings import BlockEncoding, pad, padded_qubits
from keras_qnewton.solvers.quantum.host import host_solve_absolute
from keras_qnewton.solvers.quantum.inexact import HostState, check_finite, unit
from keras_qnewton.solvers.quantum.inverse_polynomial import inverse_degree
from keras_qnewton.solvers.quantum.kernel_polynomial import kernel_degree
from keras_qnewton.solvers.quantum.readout import refining_success
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.smoothed import smallest_damping
from keras_qnewton.solvers.quantum.transforms import (
    COARSEST,
    Transform,
    bucket,
    coarsened,
    inversion,
    inversion_by_residual,
    smoothed_inverse_magnitude,
)
from keras_qnewton.solvers.scaling import matrix_exponent
from keras_qnewton.types import Solution


class Prepared(NamedTuple):
    """A matrix made ready for circuits.

    Attributes:
        encoding: Block encoding of the padded matrix.
        transform: 1/x for its condition number.
    """

    encoding: BlockEncoding
    transform: Transform


@register("solver", "qsvt")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class QSVT(EncodedSolver[Prepared]):
    """``A x = b`` by a circuit that applies a polynomial close to 1/x to A's eigenvalues.

    Quantum singular value transformation (Gilyén, Su, Low & Wiebe 2018, arXiv:1806.01838) with
    the optimal odd polynomial of `inverse_polynomial`, the phases of `phases` and a block encoding
    of `encodings`. A run of the circuit leaves ``sign · s · p(A/α) b/||b||`` in the
    amplitudes, so norm and sign of the solution are both known; it is accurate to `epsilon`
    and to `dtype`. Iterative refinement then runs the same circuit on the residual, evaluated
    in float64, until the residual is below `tolerance` or no longer halves.

    It is no speed-up on this machine. The circuit is simulated, with
    ``readout="exact"`` all 2^n amplitudes are read at once from the simulator, where hardware
    would sample them (``readout=Shots(...)``), and κ costs an eigendecomposition of A.

    Eagerly, `details` holds "degree", "qubits", "backend", "backend_reason", "encoding", "alpha",
    "condition_number" (of A), "success_probability" (of the first run), "queries" (calls of the
    block encoding, all runs and shots), "refinements", "operations" (of one circuit), "shots"
    (all of them), "readout_error" and "confident" (of the first run; see `readout.Reading`), and
    "resources" (`resources.Resources`, computed when asked for). Inside a `tf.function`, `solve` is
    one host call: `details` is empty, and an error is a NaN solution with a RuntimeWarning.

    Args:
        backend: "cirq"; "tfq" (TensorFlow Quantum, complex64 only); "emulator", which applies the
            polynomial without a circuit; "auto", the fastest simulator for each matrix, or the
            emulator if that took long (`backends.choice`); the name that another is registered
            by; or an object with the methods of `backends.Backend`.
        encoding: Name of a block encoding (`encodings.ENCODINGS`), or a subclass of
            `encodings.BlockEncoding`.
        epsilon: Largest error of the polynomial against 1/x, on A/α; with A's norm scaled to 1
            this is a relative error of x. The degree grows like ``κ log(κ/epsilon)``.
        dtype: Of the simulated amplitudes: "complex64" or "complex128".
        tolerance: Relative residual at which refinement stops (or at the round-off of b's
            dtype, if that is larger).
        max_refinements: Largest number of refinements; 0 for a single run.
        max_degree: Degree above which a matrix is refused rather than simulated for minutes.
        readout: "exact", "shots", or an object such as ``Shots(shots=100_000)``. Refinement works
            with shots, too: each run has the same relative error, of an ever smaller residual. Of
            fewer shots than that takes a `RuntimeWarning` says how many would do.

    Raises:
        ValueError: For arguments out of range.
    """

    name = "qsvt"
    # Whether ε is of the residual of a run, rather than of 1/x.
    _by_residual = False

    def qubits(self, size: int) -> int:
        """Largest width of a circuit for N = `size` unknowns: signal, ancillas, system, work.

        Work qubits hold products of controls. A simulator has none: details["qubits"] is without.
        """
        system, kind = padded_qubits(size), self._encoding_class
        return 1 + kind.max_ancillas(system) + system + kind.max_work_qubits(system)

    def at(self, tolerance: float) -> QSVT:
        """See `InexactSolver.at`; by the polynomial with the smallest residual."""
        other = cast(QSVT, super().at(tolerance))
        other.epsilon = max(self.epsilon, min(coarsened(tolerance), COARSEST))
        other._by_residual = True
        return other

    def _degree(self, condition_number: float) -> int:
        if self._by_residual:
            return kernel_degree(bucket(condition_number), self.epsilon) - 1
        return inverse_degree(bucket(condition_number), self.epsilon)

    def circuit_depth(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        alpha: Scalar | None = None,
        layers: Scalar | None = None,
        tolerance: Scalar | None = None,
    ) -> tf.Tensor:
        """Layers of gates of one run, but for the preparation of b; scalar float64.

        By the formulas of `circuit_depth`, in TensorFlow operations: nothing is built. For a
        matrix at hand, details["resources"] counts the circuit itself.

        Args:
            size: N, an int or a scalar tensor.
            condition_number: κ₂ of the matrix, at least 1; a number or a scalar tensor.
            sparsity: d, largest number of non-zeros in a row; a number or a scalar tensor.
            alpha: α/‖A‖₂ of the encoding, at least 1; None for the largest that N and d allow.
            layers: Of one call of the encoding, as `measured` counts them; None for a formula.
            tolerance: For the circuit of `at(tolerance)`; None for this solver's own.

        Raises:
            ValueError: For an encoding whose depth is not known without its circuit.
        """
        name = self._encoding_class.name
        residual: Scalar | None = self.epsilon if self._by_residual else None
        if tolerance is not None:
            residual = coarsened_in_graph(tolerance, self.epsilon, COARSEST)
        given = name, size, condition_number, sparsity, self.epsilon
        return circuit_depth(*given, alpha=alpha, layers=layers, residual=residual)

    @property
    def max_absolute_condition_number(self) -> float:
        """Largest ``√(||A||² + λ²) / λ`` for which `max_degree` allows `solve_absolute`."""
        return math.hypot(1, 1 / smallest_damping(self.max_degree, self.epsilon))

    def solve_absolute(self, matrix: TensorLike, rhs: TensorLike, damping: Scalar) -> Solution:
        """``(A² + λ²I)^(-1/2) b``, the saddle-free Newton step, without a decomposition.

        An even polynomial close to ``1/√(x² + (λ/α)²)``, of degree about ``log(1/epsilon) α/λ``
        and relative error `epsilon`, applied by the circuit of `solve`; refined to `tolerance`
        by a series in the same circuit, and checked by applying it twice: see `absolute`, and
        `Eigen.compute_absolute` for the residual. A may be indefinite, or singular.

        The amplitudes are simulated in complex128 whatever `dtype` is: unlike `solve`'s,
        this refinement cannot remove their rounding, which the residual would show.

        Eagerly, `details` holds what `solve`'s does, with "condition_number" that of
        ``(A² + λ²I)^(1/2)``, "damping" and "queries" with those of the check. Inside a
        `tf.function`, it is one host call, and an error is a NaN solution with a RuntimeWarning.

        Args:
            matrix: A `[N, N]`, symmetric, float32 or float64.
            rhs: b `[N]`, same dtype.
            damping: λ, a positive scalar (number or tensor), in units of A.

        Raises:
            ValueError: If an argument is not fit, or λ so small that the degree exceeds
                `max_degree`.
        """
        matrix = check_matrix(matrix)
        rhs = check_rhs(rhs, matrix.shape[0], matrix.dtype)
        # `tf.cast` alone would take a Python number through float32.
        damping = tf.cast(tf.convert_to_tensor(damping, dtype_hint=tf.float64), tf.float64)
        tolerance = self._tolerance(rhs.dtype)

        def on_host(
            matrix: np.ndarray, rhs: np.ndarray, damping: float
        ) -> tuple[AbsoluteResult, dict[str, Any]]:
            check_finite(matrix)
            exponent = matrix_exponent(matrix)
            matrix, relative = np.ldexp(matrix, -exponent), math.ldexp(damping, -exponent)
            encoding, plan = self._prepare_absolute(matrix, relative)
            backend, reason = self._backend(encoding, plan, DTYPE)
            settings = backend, tolerance, self.max_refinements
            result = apply_absolute(matrix, rhs, relative, encoding, plan, *settings)
            result = result._replace(x=np.ldexp(result.x, -exponent))
            smallest, largest = (math.hypot(s, relative) for s in encoding.singular_values)
            return result, {
                "degree": plan.degree,
                "qubits": 1 + encoding.qubits,
                "backend": backends.name_of(backend),
                "backend_reason": reason,
                "encoding": encoding.name,
                "alpha": encoding.alpha,
                "condition_number": largest / smallest,
                "damping": damping,
                "success_probability": result.success_probability,
                "queries": result.runs * plan.degree,
                "refinements": result.refinements,
                "operations": result.operations,
                "resources": Resources(encoding, plan, result.success_probability),
            }

        if not tf.executing_eagerly():
            x, residual = host_solve_absolute(
                lambda *given: on_host(*given)[0][:2], matrix, rhs, damping, self.name
            )
            return Solution(x, residual, self.name)
        values = [np.asarray(value.numpy(), np.float64) for value in (matrix, rhs)]
        result, details = on_host(values[0], values[1], float(damping))
        x = tf.constant(result.x, rhs.dtype)
        return Solution(x, tf.constant(result.residual, tf.float64), self.name, details)

    def _prepare_absolute(
        self, matrix: np.ndarray, damping: float
    ) -> tuple[BlockEncoding, Transform]:
        if not 0 < damping < math.inf:
            raise ValueError(
                f"Argument `damping` must be positive and finite. Received: damping={damping!r}"
            )
        encoding = self._encoding_class(pad(matrix))
        relative = damping / encoding.alpha
        if relative < smallest_damping(self.max_degree, self.epsilon):
            raise ValueError(
                "Argument `damping` must be large enough for a polynomial of degree "
                f"{self.max_degree} (`max_degree`). Received: damping={damping:.3g}, "
                f"{relative:.3g} of α"
            )
        return encoding, smoothed_inverse_magnitude(relative, self.epsilon)

    def _prepare(self, matrix: np.ndarray) -> Prepared:
        """Costs an eigendecomposition, for α, κ and the dilation; phases are kept for matrices of
        similar condition number.
        """
        encoding = self._encoding_class(pad(matrix))
        condition_number = self._check_degree(encoding)
        plan = inversion_by_residual if self._by_residual else inversion
        return Prepared(encoding, plan(bucket(condition_number), self.epsilon))

    def _first_circuit(
        self, state: HostState[Prepared], rhs: np.ndarray
    ) -> tuple[BlockEncoding, Transform, np.ndarray]:
        encoding, plan = state.prepared
        return encoding, plan, unit(rhs, encoding.system_qubits)[0]

    def _details(self, prepared: Prepared) -> dict[str, Any]:
        encoding, plan = prepared
        return self._no_run(plan.degree, 1 + encoding.qubits, encoding)

    def _runner(
        self, prepared: Prepared, details: dict[str, Any]
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        encoding, plan = prepared
        backend, details["backend_reason"] = self._backend(encoding, plan)
        details["backend"] = backends.name_of(backend)
        readout = self._readout()
        readout.check(backend)
        success = refining_success(encoding, plan)
        rows = 1 << encoding.system_qubits
        self._warn_of_few_shots(readout, rows, success, encoding.condition_number)

        def run(rhs: np.ndarray, number: int) -> np.ndarray:
            vector, norm = unit(rhs, encoding.system_qubits)
            outcome = self._read(backend, encoding, plan, vector, number)
            details["queries"] += plan.degree * max(outcome.shots, 1)
            details["shots"] += outcome.shots
            if number == 0:
                note_first(
                    details,
                    outcome,
                    Resources(encoding, plan, outcome.success_probability, accuracy=self.epsilon),
                )
            factor = plan.sign * norm / (plan.scale * encoding.alpha)
            answer: np.ndarray = outcome.amplitudes[: len(rhs)] * factor
            return answer

        return run
