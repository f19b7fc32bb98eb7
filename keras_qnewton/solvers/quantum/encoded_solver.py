"""Base of the solvers whose circuit applies a polynomial to a block encoding."""

from __future__ import annotations

import abc
import math
import warnings
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.arrays import TensorLike
from keras_qnewton.solvers.checks import check_rhs
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.circuit_runs import CircuitRuns, deserialised, no_run
from keras_qnewton.solvers.quantum.encodings import ENCODINGS, BlockEncoding
from keras_qnewton.solvers.quantum.inexact import HostState, InexactSolver
from keras_qnewton.solvers.quantum.measured import measured
from keras_qnewton.solvers.quantum.openqasm import as_text
from keras_qnewton.solvers.quantum.readout import (
    MOST_ERROR,
    SAFE_ERROR,
    Readout,
    refining_shots,
)
from keras_qnewton.solvers.quantum.transforms import Transform
from keras_qnewton.types import Solution

Prepared = TypeVar("Prepared")


class EncodedSolver(CircuitRuns, InexactSolver[Prepared]):
    """What `QSVT` and `Shortcut` share: backend, encoding, readout, and the circuit to look at.

    A subclass writes `_degree` and `_first_circuit` beside what `InexactSolver` asks for.

    Arguments are `QSVT`'s; `epsilon` is the accuracy of one run, as a subclass defines it.

    Raises:
        ValueError: For arguments out of range.
    """

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
        if (isinstance(encoding, str) and encoding not in ENCODINGS) or not (
            isinstance(encoding, str)
            or (isinstance(encoding, type) and issubclass(encoding, BlockEncoding))
        ):
            raise ValueError(
                f"Argument `encoding` must be one of {', '.join(map(repr, ENCODINGS))}, or a "
                f"subclass of BlockEncoding. Received: encoding={encoding!r}"
            )
        super().__init__(tolerance, max_refinements)
        self.encoding = encoding
        self._set_runs(backend, epsilon, dtype, max_degree, readout)

    # Error of a run that is read by which refinement gets on, over that of 1/x.
    _reading_error = 1.0

    @abc.abstractmethod
    def _degree(self, condition_number: float) -> int:
        """Calls of the encoding in one run for α/σ_min = `condition_number`."""

    @abc.abstractmethod
    def _first_circuit(
        self, state: HostState[Prepared], rhs: np.ndarray
    ) -> tuple[BlockEncoding, Transform, np.ndarray]:
        """Encoding, function and initial state `[2^n]` of the first run for `rhs`, not zero."""

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

    def circuit(self, matrix: TensorLike, rhs: TensorLike) -> backends.Circuit:
        """The very circuit of the first run, for `rhs` not zero: a `cirq.Circuit` for "cirq"."""
        backend, of = self._first_run(matrix, rhs)
        return backend.circuit(*of)

    def _first_run(
        self, matrix: TensorLike, rhs: TensorLike
    ) -> tuple[backends.Backend, tuple[BlockEncoding, Transform, np.ndarray]]:
        state = self.init(matrix)
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        values = np.asarray(rhs.numpy(), np.float64)
        if not np.any(values):
            raise ValueError("Argument `rhs` must not be zero. Received: rhs of zeros")
        encoding, plan, vector = self._first_circuit(state, values)
        backend, _ = self._backend(encoding, plan)
        if self.backend == "auto" and backend is backends.load("emulator"):
            # A circuit too long to be simulated can be looked at.
            backend = backends.load("cirq")
        return backend, (encoding, plan, vector)

    def qasm(self, matrix: TensorLike, rhs: TensorLike) -> str:
        """`circuit` in gates as OpenQASM 3, angles to 15 digits: up to a phase of all amplitudes.

        Raises:
            ValueError: If the backend has no circuits, or others than Cirq's.
        """
        backend, of = self._first_run(matrix, rhs)
        circuit = getattr(backend, "in_gates", backend.circuit)(*of)
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

    def _check_degree(self, encoding: BlockEncoding) -> float:
        """α/σ_min.

        Raises:
            ValueError: If the matrix is singular, or needs a degree above `max_degree`.
        """
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
        return condition_number

    def _no_run(self, degree: int, qubits: int, encoding: BlockEncoding) -> dict[str, Any]:
        """`Solution.details` before a run."""
        return {
            "degree": degree,
            "qubits": qubits,
            "encoding": self.encoding_name,
            "alpha": encoding.alpha,
            "condition_number": encoding.condition_number,
            **no_run(),
        }

    def _warn_of_few_shots(
        self, readout: Readout, amplitudes: int, success: float, condition_number: float
    ) -> None:
        shots = getattr(readout, "shots", None)
        if shots is None or not self.max_refinements:
            return
        if shots < refining_shots(amplitudes, success, self._reading_error * MOST_ERROR):
            enough = refining_shots(amplitudes, success, self._reading_error * SAFE_ERROR)
            warnings.warn(
                f"Argument `shots` is too small for this matrix: refinement will not reach the "
                f"tolerance {self.tolerance:g}. Received: shots={shots:,}. A run takes about "
                f"{enough:.1g} at condition number {condition_number:.2g}",
                RuntimeWarning,
                stacklevel=2,
            )

    def get_config(self) -> dict[str, Any]:
        encoding = self.encoding
        if not isinstance(encoding, str):
            encoding = keras.saving.serialize_keras_object(encoding)
        return {**super().get_config(), **self._runs_config(), "encoding": encoding}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncodedSolver[Prepared]:
        return cls(**deserialised(config))
