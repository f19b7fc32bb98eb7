"""The algorithm of Harrow, Hassidim and Lloyd, for reference and teaching."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from keras_qnewton.arguments import check_choice, check_count, refused
from keras_qnewton.registry import register
from keras_qnewton.solvers.arrays import TensorLike
from keras_qnewton.solvers.checks import check_rhs
from keras_qnewton.solvers.quantum.backends import Circuit
from keras_qnewton.solvers.quantum.encodings import pad, padded_qubits
from keras_qnewton.solvers.quantum.inexact import unit
from keras_qnewton.solvers.quantum.reference import Prepared, ReferenceSolver
from keras_qnewton.solvers.quantum.spectrum import spectrum_of

# Sine of the rotation at the smallest |eigenvalue|: its neighbours on the clock are smaller.
_HEADROOM = 0.999


class Evolution(NamedTuple):
    """A matrix made ready for phase estimation.

    Attributes:
        evolutions: ``e^(iAt 2^k)`` `[2^n, 2^n]`, one a clock qubit, the highest power first.
        rotations: Angle of the ancilla's rotation in radians, `[2^m]`, by the clock's number.
        scale: Factor from amplitudes to x.
    """

    evolutions: list[np.ndarray]
    rotations: np.ndarray
    scale: float


class _Module(Protocol):
    """The module `backends.cirq_hhl`, which imports Cirq."""

    def circuit(
        self, evolutions: list[np.ndarray], rotations: np.ndarray, state: np.ndarray
    ) -> Circuit: ...

    def run(
        self, evolutions: list[np.ndarray], rotations: np.ndarray, state: np.ndarray, dtype: str
    ) -> tuple[np.ndarray, float]: ...


@register("solver", "hhl")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class HHL(ReferenceSolver[Evolution]):
    """``A x = b`` by phase estimation: Harrow, Hassidim & Lloyd 2009, arXiv:0811.3171.

    Phase estimation with m clock qubits writes each eigenvalue's nearest multiple of
    2||A||/(2^m - 2), sign included, into the clock; a rotation by that number turns 1/λ
    into an amplitude; the estimation is undone. The circuit is Cirq's, with e^(iAt 2^k) as
    matrices, which an eigendecomposition gives.

    The clock's resolution is the error: to halve it takes twice the evolution time, where
    `QSVT`'s degree grows by a constant. A single run with 8 clock qubits, relative error of x on
    60 random systems of 2 to 8 unknowns, median and largest: κ=2: 0.9 % and 6.2 %; κ=10: 3.6 %
    and 4.4 %; κ=50: 22 % and 22 %. Refinement on float64 residuals makes up for that, in 5 to 8
    refinements at κ <= 10 and 18 at κ=50.

    Eagerly, `details` holds "qubits", "condition_number", "clock_qubits", "success_probability"
    (of the first run), "queries" (evolutions by the unit of time t ≈ π/||A||, of all runs) and
    "refinements". In a graph, see `inexact.InexactSolver`.

    Args:
        clock_qubits: m, at least 3. κ may be up to 2^(m-2), where the smallest eigenvalue is
            two steps of the clock.
        dtype: Of the simulated amplitudes: "complex64" or "complex128".
        tolerance: See `inexact.InexactSolver`.
        max_refinements: See `inexact.InexactSolver`.

    Raises:
        ValueError: For arguments out of range.
    """

    name = "hhl"

    def __init__(
        self,
        clock_qubits: int = 8,
        dtype: str = "complex64",
        tolerance: float = 1e-12,
        max_refinements: int = 20,
    ):
        super().__init__(tolerance, max_refinements)
        self.clock_qubits = check_count("clock_qubits", clock_qubits, least=3)
        if self.clock_qubits > 16:
            raise refused("clock_qubits", clock_qubits, "between 3 and 16")
        self.dtype = check_choice("dtype", dtype, ("complex64", "complex128"))

    def qubits(self, size: int) -> int:
        """Width of the circuit for N = `size` unknowns: ancilla, clock, system."""
        return 1 + self.clock_qubits + padded_qubits(size)

    @property
    def max_condition_number(self) -> float:
        """2^(m-2)."""
        return float(1 << (self.clock_qubits - 2))

    def circuit(self, matrix: TensorLike, rhs: TensorLike) -> Circuit:
        """The `cirq.Circuit` of the first run."""
        state = self.init(matrix)
        rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
        vector, norm = unit(np.asarray(rhs.numpy(), np.float64), padded_qubits(rhs.shape[0]))
        if norm == 0:
            raise ValueError("Argument `rhs` must not be zero. Received: rhs of zeros")
        evolutions, rotations, _ = state.prepared.data
        return _backend().circuit(evolutions, rotations, vector)

    def _encode(self, matrix: np.ndarray) -> Prepared[Evolution]:
        spectrum = spectrum_of(pad(matrix))
        values, vectors = spectrum.values, spectrum.matrix()
        magnitudes = np.abs(values)
        norm, kappa = magnitudes.max(), magnitudes.max() / magnitudes.min()
        count = 1 << self.clock_qubits
        # An eigenvalue ±||A|| takes the largest number whose sign the clock can tell.
        time = np.pi * (1 - 2 / count)
        evolutions = [
            (vectors * np.exp(1j * time * (1 << power) * values / norm)) @ vectors.T
            for power in range(self.clock_qubits - 1, -1, -1)
        ]
        number = np.arange(count)
        signed = np.where(number < count // 2, number, number - count)
        eigenvalue = signed * (2 * np.pi / (time * count))
        # Below half the smallest |eigenvalue| lies the estimation's leakage.
        sine = np.zeros(count)
        real = np.abs(eigenvalue) > 0.5 / kappa
        sine[real] = np.clip(_HEADROOM / (kappa * eigenvalue[real]), -1, 1)
        details = {
            "qubits": self.qubits(len(matrix)),
            "condition_number": float(kappa),
            "clock_qubits": self.clock_qubits,
        }
        scale = kappa / (_HEADROOM * norm)
        return Prepared(Evolution(evolutions, 2 * np.arcsin(sine), scale), details)

    def _apply(self, data: Evolution, state: np.ndarray) -> tuple[np.ndarray, float, int]:
        evolutions, rotations, scale = data
        amplitudes, probability = _backend().run(evolutions, rotations, state, self.dtype)
        return amplitudes.real * scale, probability, 2 * ((1 << self.clock_qubits) - 1)

    def get_config(self) -> dict[str, Any]:
        return {
            "clock_qubits": self.clock_qubits,
            "dtype": self.dtype,
            **super().get_config(),
        }


def _backend() -> _Module:
    module: Any = importlib.import_module("keras_qnewton.solvers.quantum.backends.cirq_hhl")
    found: _Module = module
    return found
