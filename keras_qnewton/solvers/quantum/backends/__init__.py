"""What a QSVT backend is, and where the built-in ones are.

A backend is any object with the methods of `Backend`: whatever executes, or simulates,
the circuit. Quantum libraries are imported here only, and only when a circuit is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

_MODULES = {name: f"keras_qnewton.solvers.quantum.backends.{name}" for name in ("cirq", "emulator")}
NAMES = tuple(_MODULES)


class Outcome(NamedTuple):
    """What one run of a circuit gives.

    Attributes:
        amplitudes: Real amplitudes of the system register, float64 `[2^n]`, on the outcome
            |0⟩ of signal and ancilla qubits; not normalised.
        success_probability: Of that outcome.
        qubits: Width of the circuit.
        operations: Number of its operations, as it was run.
    """

    amplitudes: np.ndarray
    success_probability: float
    qubits: int
    operations: int


@runtime_checkable
class Backend(Protocol):
    """Builds and runs ``Re Π e^(i φ_k Z) U`` on a state; see `phases.reflection_phases`.

    In all methods, `encoding` is a block encoding, `transform` a `transforms.Transform`, `state` a
    real unit vector `[2^n]`.
    """

    def circuit(self, encoding: Any, transform: Any, state: np.ndarray) -> Any:
        """The circuit object."""
        ...

    def run(self, encoding: Any, transform: Any, state: np.ndarray, dtype: str) -> Outcome:
        """Runs it in `dtype`, "complex64" or "complex128"; exact amplitudes."""
        ...


@runtime_checkable
class SamplingBackend(Protocol):
    """A backend that measures: what `readout.Shots` needs.

    A backend whose amplitudes are out of reach (hardware, noise) has ``exact = False`` too.
    """

    def sample(
        self,
        encoding: Any,
        transform: Any,
        state: np.ndarray,
        shots: int,
        rotated: int | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Runs the circuit `shots` times and measures, with H first on system qubit `rotated`.

        Returns:
            How often each index of the system register came with |0⟩ on signal and ancilla
            qubits, int64 `[2^n]`.
        """
        ...


def register(config: dict[str, Any]) -> None:
    """Imports the built-in backend that a saved `config` names, so that Keras knows its class."""
    if config.get("module") in _MODULES.values():
        importlib.import_module(config["module"])


def load(name: str) -> Backend:
    """The built-in backend called `name`; its library is imported now.

    Raises:
        ImportError: If the library is missing, with the command that installs it.
    """
    backend: Backend = importlib.import_module(_MODULES[name]).Backend()
    return backend
