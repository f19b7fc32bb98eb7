"""What a QSVT backend is, and where the built-in ones are.

A backend is any object with the methods of `Backend`: whatever executes, or simulates,
the circuit. Quantum libraries are imported here only, and only when a circuit is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

NAMES = ("cirq", "tfq", "emulator")


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
    if config.get("module") in {f"{__name__}.{name}" for name in NAMES}:
        importlib.import_module(config["module"])


@functools.cache
def load(name: str) -> Backend:
    """The built-in backend called `name`, always the same; its library is imported now.

    Raises:
        ImportError: If the library is missing, with the command that installs it.
    """
    backend: Backend = importlib.import_module(f"{__name__}.{name}").Backend()
    return backend


def check_dtype(name: str, dtype: str) -> None:
    """Raises ValueError if the backend called `name` does not simulate in `dtype`."""
    if name == "tfq" and dtype != "complex64":
        raise ValueError(
            "Argument `dtype` must be 'complex64' for the backend 'tfq', the only precision of "
            f"its simulator. Received: dtype={dtype!r}"
        )


@tf.autograph.experimental.do_not_convert
def check_installed(name: str) -> None:
    """Raises ImportError if the backend called `name` needs a library that is not there."""
    if name == "tfq" and importlib.util.find_spec("tensorflow_quantum") is None:
        load(name)


def name_of(backend: Any) -> str:
    """The name of a built-in backend, the class's of another."""
    kind = type(backend)
    package, _, name = kind.__module__.rpartition(".")
    return name if package == __name__ else kind.__name__
