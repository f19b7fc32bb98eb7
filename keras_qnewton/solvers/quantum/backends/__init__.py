"""Backends: whatever executes, or simulates, QSVT's circuits; and the registry of them.

A backend is any object with the methods of `Backend`. One that is registered,

    @register("backend", "mine")
    class Mine: ...

goes by its name in ``QSVT(backend="mine")``. The built-in ones are registered as `LazyBackend`s:
quantum libraries are imported in their modules only, and only when a circuit is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import tensorflow as tf

from keras_qnewton.registry import register, registered
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.transforms import Transform

# A circuit in the backend's own library, such as a `cirq.Circuit`.
Circuit: TypeAlias = Any


class Outcome(NamedTuple):
    """The result of one run of a circuit.

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

    In all methods, `transform` is the function that is applied, `state` a real unit vector
    `[2^n]`.

    A registered backend may have a class attribute `dtypes`, the precisions that it simulates,
    if it does not have both.
    """

    def circuit(self, encoding: BlockEncoding, transform: Transform, state: np.ndarray) -> Circuit:
        """The circuit object."""
        ...

    def run(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, dtype: str
    ) -> Outcome:
        """Runs it in `dtype`, "complex64" or "complex128"; exact amplitudes."""
        ...


@runtime_checkable
class SamplingBackend(Protocol):
    """A backend that measures, for `readout.Shots`.

    A backend whose amplitudes are out of reach (hardware, noise) has ``exact = False`` too.
    """

    def sample(
        self,
        encoding: BlockEncoding,
        transform: Transform,
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


@dataclasses.dataclass(frozen=True)
class LazyBackend:
    """A registered backend whose module is imported when it is loaded.

    Attributes:
        module: Full name of the module; its class `Backend` is the backend.
        dtypes: Precisions that it simulates.
        requires: Library that may not be installed, and without which the import fails.
    """

    module: str
    dtypes: tuple[str, ...] = ("complex64", "complex128")
    requires: str | None = None

    def __call__(self) -> Backend:
        """The backend, with its defaults.

        Raises:
            ImportError: If a library is missing, with the command that installs it.
        """
        backend: Backend = importlib.import_module(self.module).Backend()
        return backend


register("backend", "cirq")(LazyBackend(f"{__name__}.cirq"))
register("backend", "tfq")(LazyBackend(f"{__name__}.tfq", ("complex64",), "tensorflow_quantum"))
register("backend", "emulator")(LazyBackend(f"{__name__}.emulator"))

# By name: the class or function that was registered, and the one backend that it made.
_loaded: dict[str, tuple[object, Backend]] = {}


def load(name: str) -> Backend:
    """The registered backend called `name`, always the same; its library is imported now.

    Raises:
        ImportError: If the library is missing, with the command that installs it.
        KeyError: If there is no such backend.
    """
    make = registered("backend")[name]
    if name not in _loaded or _loaded[name][0] is not make:
        _loaded[name] = make, make()
    return _loaded[name][1]


def import_saved(config: dict[str, Any]) -> None:
    """Imports the backend's module that a saved `config` names, so that Keras knows its class."""
    module = config.get("module")
    if any(module == getattr(make, "module", None) for make in registered("backend").values()):
        importlib.import_module(str(module))


def check_dtype(name: str, dtype: str) -> None:
    """Raises ValueError if the backend called `name` does not simulate in `dtype`."""
    dtypes = getattr(registered("backend").get(name), "dtypes", (dtype,))
    if dtype not in dtypes:
        raise ValueError(
            f"Argument `dtype` must be {' or '.join(map(repr, dtypes))} for the backend {name!r}, "
            f"the only precision of its simulator. Received: dtype={dtype!r}"
        )


@tf.autograph.experimental.do_not_convert
def check_installed(name: str) -> None:
    """Raises ImportError if the backend called `name` needs a library that is not there."""
    requires = getattr(registered("backend").get(name), "requires", None)
    if requires is not None and importlib.util.find_spec(requires) is None:
        load(name)


def name_of(backend: Backend) -> str:
    """The name that a backend's class is registered by; the class's own if it is not."""
    kind = type(backend)
    for name, make in registered("backend").items():
        if make is kind or getattr(make, "module", None) == kind.__module__:
            return name
    return kind.__name__
