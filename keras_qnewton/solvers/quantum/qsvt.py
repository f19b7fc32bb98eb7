"""Matrix inversion by the quantum singular value transformation, with refinement."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.registry import register, registered, resolve
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.checks import check_matrix, check_rhs
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.absolute import DTYPE, AbsoluteResult, apply_absolute
from keras_qnewton.solvers.quantum.backends.choice import choose
from keras_qnewton.solvers.quantum.circuit_depth import circuit_depth
from keras_qnewton.solvers.quantum.encodings import (
    ENCODINGS,
    BlockEncoding,
    pad,
    padded_qubits,
)
from keras_qnewton.solvers.quantum.host import host_solve_absolute
from keras_qnewton.solvers.quantum.inexact import InexactSolver, check_finite, unit
from keras_qnewton.solvers.quantum.measured import measured
from keras_qnewton.solvers.quantum.openqasm import as_text
from keras_qnewton.solvers.quantum.polynomial import inverse_degree
from keras_qnewton.solvers.quantum.readout import (
    MOST_ERROR,
    SAFE_ERROR,
    Readout,
    refining_shots,
)
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.smoothed import smallest_damping
from keras_qnewton.solvers.quantum.transforms import (
    Transform,
    bucket,
    inversion,
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
class QSVT(InexactSolver[Prepared]):
    """``A x = b`` by a circuit that applies a polynomial close to 1/x to A's eigenvalues.

    Quantum singular value transformation (Gilyén, Su, Low & Wiebe 2018, arXiv:1806.01838) with
    the optimal odd polynomial of `polynomial`, the phases of `phases` and a block encoding of
    `encodings`. A run of the circuit leaves ``sign · s · p(A/α) b/||b||`` in the
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

    def __init__(
        self,
        backend: str | backends.Backend = "auto",
        encoding: str | type[BlockEncoding] = "dilation",
        epsilon: float = 1e-3,
        dtype: str = "complex64",
        tolerance: float = 1e-12,
        max_refinements: int = 10,
        max_degree: int = 30_000,
        readout: str | Readout = "exact",
    ):
        names = ("auto", *registered("backend"))
        known = backend in names if isinstance(backend, str) else None
        if known is False or (known is None and not isinstance(backend, backends.Backend)):
            raise ValueError(
                f"Argument `backend` must be one of {', '.join(map(repr, names))}, or "
                f"an object with methods `circuit` and `run`. Received: backend={backend!r}"
            )
        if (isinstance(encoding, str) and encoding not in ENCODINGS) or not (
            isinstance(encoding, str)
            or (isinstance(encoding, type) and issubclass(encoding, BlockEncoding))
        ):
            raise ValueError(
                f"Argument `encoding` must be one of {', '.join(map(repr, ENCODINGS))}, or a "
                f"subclass of BlockEncoding. Received: encoding={encoding!r}"
            )
        if not 0 < epsilon < 1:
            raise ValueError(
                f"Argument `epsilon` must be between 0 and 1. Received: epsilon={epsilon!r}"
            )
        if dtype not in ("complex64", "complex128"):
            raise ValueError(
                f"Argument `dtype` must be 'complex64' or 'complex128'. Received: dtype={dtype!r}"
            )
        if isinstance(backend, str):
            backends.check_dtype(backend, dtype)
        super().__init__(tolerance, max_refinements)
        if max_degree < 1:
            raise ValueError(
                f"Argument `max_degree` must be at least 1. Received: max_degree={max_degree!r}"
            )
        self.backend = backend
        self.encoding = encoding
        self.epsilon = float(epsilon)
        self.dtype = dtype
        self.max_degree = int(max_degree)
        self.readout = readout
        reader = self._readout()
        if not isinstance(backend, str):
            reader.check(backend)

    def qubits(self, size: int) -> int:
        """Largest width of a circuit for N = `size` unknowns: signal, ancillas, system, work.

        Work qubits hold products of controls. A simulator has none: details["qubits"] is without.
        """
        system, kind = padded_qubits(size), self._encoding_class
        return 1 + kind.max_ancillas(system) + system + kind.max_work_qubits(system)

    @property
    def _encoding_class(self) -> type[BlockEncoding]:
        return ENCODINGS[self.encoding] if isinstance(self.encoding, str) else self.encoding

    @property
    def max_condition_number(self) -> float:
        """Largest κ that `max_degree` allows; a matrix beyond it is refused."""
        low, high = 1.0, 2.0
        while high < 1e12 and self._degree(high) <= self.max_degree:
            low, high = high, 2 * high
        while high > 1.001 * low:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self._degree(middle) <= self.max_degree else (low, middle)
        return low

    def _degree(self, condition_number: float) -> int:
        return inverse_degree(bucket(condition_number), self.epsilon)

    def circuit_depth(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        alpha: Scalar | None = None,
        layers: Scalar | None = None,
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

        Raises:
            ValueError: For an encoding whose depth is not known without its circuit.
        """
        name = self._encoding_class.name
        return circuit_depth(
            name, size, condition_number, sparsity, self.epsilon, alpha=alpha, layers=layers
        )

    @property
    def encoding_name(self) -> str:
        """Name of the block encoding."""
        return self._encoding_class.name

    def measured(
        self, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """What `circuit_depth` can be told of a matrix: "alpha" and "layers", where known.

        In TensorFlow operations, with nothing encoded; see `measured.measured` for the arguments.
        """
        found = measured(self.encoding_name, matrix, norm, condition_number)
        return {name: value for name, value in found._asdict().items() if value is not None}

    def solve(self, matrix: TensorLike, rhs: TensorLike) -> Solution:
        """Solves ``matrix @ x = rhs``; see `LinearSolver.solve`, and `init` for its errors."""
        if isinstance(self.backend, str) and not tf.executing_eagerly():
            # A missing library is an error while tracing, not of each step anew.
            backends.check_installed(self.backend)
        return super().solve(matrix, rhs)

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

    def circuit(self, matrix: TensorLike, rhs: TensorLike) -> backends.Circuit:
        """The very circuit of the first run, for `rhs` not zero: a `cirq.Circuit` for "cirq"."""
        state = self.init(matrix)
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        encoding, plan = state.prepared
        vector, norm = unit(np.asarray(rhs.numpy(), np.float64), encoding.system_qubits)
        if norm == 0:
            raise ValueError("Argument `rhs` must not be zero. Received: rhs of zeros")
        backend, _ = self._backend(encoding, plan)
        if self.backend == "auto" and backend is backends.load("emulator"):
            # A circuit too long to be simulated can be looked at.
            backend = backends.load("cirq")
        return backend.circuit(encoding, plan, vector)

    def qasm(self, matrix: TensorLike, rhs: TensorLike) -> str:
        """`circuit` as OpenQASM 3, angles to 15 digits: up to a phase of all amplitudes.

        Raises:
            ValueError: If the backend has no circuits, or others than Cirq's.
        """
        circuit = self.circuit(matrix, rhs)
        if not hasattr(circuit, "to_qasm"):
            raise ValueError(
                'Argument `backend` must be "cirq", "tfq" or "auto" for OpenQASM. '
                f"Received: backend={self.backend!r}"
            )
        return as_text(circuit)

    def draw(self, matrix: TensorLike, rhs: TensorLike, width: int = 100) -> str:
        """`circuit` as text, folded at `width` columns: readable for a small system and κ."""
        lines = str(self.circuit(matrix, rhs)).splitlines()
        length = max(map(len, lines))
        parts = [
            "\n".join(line[start : start + width].rstrip() for line in lines)
            for start in range(0, length, width)
        ]
        return "\n\n".join(parts)

    def _prepare(self, matrix: np.ndarray) -> Prepared:
        """Costs an eigendecomposition, for α, κ and the dilation; phases are kept for matrices of
        similar condition number.
        """
        encoding = self._encoding_class(pad(matrix))
        condition_number = encoding.effective_condition_number
        if math.isinf(condition_number):
            raise ValueError("Argument `matrix` must not be singular. Received: a singular matrix")
        degree = self._degree(condition_number)
        if degree > self.max_degree:
            raise ValueError(
                "Argument `matrix` must be conditioned well enough for a polynomial of degree "
                f"{self.max_degree} (`max_degree`). Received: condition number (α / σ_min) "
                f"{condition_number:.3g}, degree {degree}. Damp the matrix, or raise "
                "`max_degree`"
            )
        return Prepared(encoding, inversion(bucket(condition_number), self.epsilon))

    def _details(self, prepared: Prepared) -> dict[str, Any]:
        encoding, plan = prepared
        return {
            "degree": plan.degree,
            "qubits": 1 + encoding.qubits,
            "encoding": encoding.name,
            "alpha": encoding.alpha,
            "condition_number": encoding.condition_number,
            "success_probability": None,
            "queries": 0,
            "refinements": 0,
            "operations": 0,
            "backend": None,
            "backend_reason": "no circuit is needed for a right-hand side of zeros",
            "shots": 0,
            "readout_error": None,
            "confident": None,
            "resources": None,
        }

    def _runner(
        self, prepared: Prepared, details: dict[str, Any]
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        encoding, plan = prepared
        backend, details["backend_reason"] = self._backend(encoding, plan)
        details["backend"] = backends.name_of(backend)
        readout = self._readout()
        readout.check(backend)
        self._warn_of_few_shots(readout, encoding, plan)

        def run(rhs: np.ndarray, number: int) -> np.ndarray:
            vector, norm = unit(rhs, encoding.system_qubits)
            outcome = readout.read(backend, encoding, plan, vector, self.dtype, number)
            if np.shape(outcome.amplitudes) != vector.shape:
                # Another shape would broadcast, and read as a solution.
                raise ValueError(
                    f"The backend must return amplitudes of shape {vector.shape}. "
                    f"Received: amplitudes of shape {np.shape(outcome.amplitudes)}"
                )
            details["queries"] += plan.degree * max(outcome.shots, 1)
            details["shots"] += outcome.shots
            if number == 0:
                details["success_probability"] = outcome.success_probability
                details["operations"] = outcome.operations
                details["readout_error"] = outcome.error
                details["confident"] = outcome.confident
                details["resources"] = Resources(
                    encoding, plan, outcome.success_probability, accuracy=self.epsilon
                )
            factor = plan.sign * norm / (plan.scale * encoding.alpha)
            answer: np.ndarray = outcome.amplitudes[: len(rhs)] * factor
            return answer

        return run

    def _warn_of_few_shots(
        self, readout: Readout, encoding: BlockEncoding, plan: Transform
    ) -> None:
        shots = getattr(readout, "shots", None)
        if shots is None or not self.max_refinements:
            return
        if shots < refining_shots(encoding, plan, MOST_ERROR):
            enough = refining_shots(encoding, plan, SAFE_ERROR)
            warnings.warn(
                f"Argument `shots` is too small for this matrix: refinement will not reach the "
                f"tolerance {self.tolerance:g}. Received: shots={shots:,}. A run takes about "
                f"{enough:.1g} at condition number {encoding.condition_number:.2g}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _backend(
        self, encoding: BlockEncoding, transform: Transform, dtype: str | None = None
    ) -> tuple[backends.Backend, str]:
        """The backend that runs these, and why that one; `dtype` if not the solver's own."""
        if not isinstance(self.backend, str):
            return self.backend, "as given"
        if self.backend != "auto":
            return backends.load(self.backend), "as asked"
        name, reason = choose(encoding, transform, dtype or self.dtype)
        return backends.load(name), reason

    def _readout(self) -> Readout:
        reader: Readout = resolve("readout", self.readout, "readout", needs=("read", "check"))
        return reader

    def get_config(self) -> dict[str, Any]:
        backend = self.backend
        if not isinstance(backend, str):
            backend = keras.saving.serialize_keras_object(backend)
        encoding = self.encoding
        if not isinstance(encoding, str):
            encoding = keras.saving.serialize_keras_object(encoding)
        readout = self.readout
        if not isinstance(readout, str):
            readout = keras.saving.serialize_keras_object(readout)
        return {
            "backend": backend,
            "encoding": encoding,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "tolerance": self.tolerance,
            "max_refinements": self.max_refinements,
            "max_degree": self.max_degree,
            "readout": readout,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QSVT:
        config = dict(config)
        for name in ("backend", "encoding", "readout"):
            if isinstance(config.get(name), dict):
                backends.import_saved(config[name])
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
