"""What whoever runs circuits has: a backend, a readout, and an accuracy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_qnewton.arguments import check_choice, check_count, check_number
from keras_qnewton.registry import registered, resolve
from keras_qnewton.solvers.quantum import backends
from keras_qnewton.solvers.quantum.backends.choice import choose
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.readout import CircuitRun, Readout
from keras_qnewton.solvers.quantum.resources import Resources
from keras_qnewton.solvers.quantum.tomography import Reading
from keras_qnewton.solvers.quantum.transforms import Transform


class CircuitRuns:
    """Runs circuits that apply a polynomial to a block encoding; arguments are `QSVT`'s.

    Raises:
        ValueError: For arguments out of range.
    """

    backend: str | backends.Backend
    epsilon: float
    dtype: str
    max_degree: int
    readout: str | Readout

    def _set_runs(
        self,
        backend: str | backends.Backend,
        epsilon: float,
        dtype: str,
        max_degree: int,
        readout: str | Readout,
    ) -> None:
        names = ("auto", *registered("backend"))
        known = backend in names if isinstance(backend, str) else None
        if known is False or (known is None and not isinstance(backend, backends.Backend)):
            raise ValueError(
                f"Argument `backend` must be one of {', '.join(map(repr, names))}, or "
                f"an object with methods `circuit` and `run`. Received: backend={backend!r}"
            )
        self.epsilon = check_number("epsilon", epsilon, "between 0 and 1", most=1.0, ends="()")
        self.dtype = check_choice("dtype", dtype, ("complex64", "complex128"))
        if isinstance(backend, str):
            backends.check_dtype(backend, dtype)
        self.max_degree = check_count("max_degree", max_degree)
        self.backend = backend
        self.readout = readout
        reader = self._readout()
        if not isinstance(backend, str):
            reader.check(backend)

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

    def _read(
        self,
        backend: backends.Backend,
        encoding: BlockEncoding,
        plan: Transform,
        vector: np.ndarray,
        number: int,
    ) -> Reading:
        """A run, its amplitudes checked for their shape."""
        run = CircuitRun(backend, encoding, plan, vector, self.dtype, number)
        outcome = self._readout().read(run)
        if np.shape(outcome.amplitudes) != vector.shape:
            # Another shape would broadcast, and read as a solution.
            raise ValueError(
                f"The backend must return amplitudes of shape {vector.shape}. "
                f"Received: amplitudes of shape {np.shape(outcome.amplitudes)}"
            )
        return outcome

    def _readout(self) -> Readout:
        reader: Readout = resolve("readout", self.readout, "readout", needs=("read", "check"))
        return reader

    def _runs_config(self) -> dict[str, Any]:
        backend, readout = self.backend, self.readout
        if not isinstance(backend, str):
            backend = keras.saving.serialize_keras_object(backend)
        if not isinstance(readout, str):
            readout = keras.saving.serialize_keras_object(readout)
        return {
            "backend": backend,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "max_degree": self.max_degree,
            "readout": readout,
        }


def no_run() -> dict[str, Any]:
    """The part of `Solution.details` that runs fill in."""
    return {
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


def note_first(details: dict[str, Any], outcome: Reading, resources: Resources) -> None:
    """Puts into `details` what the first run came to."""
    details["success_probability"] = outcome.success_probability
    details["operations"] = outcome.operations
    details["readout_error"] = outcome.error
    details["confident"] = outcome.confident
    details["resources"] = resources


def deserialised(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with the objects that its saved backend, encoding and readout stand for."""
    config = dict(config)
    for name in ("backend", "encoding", "readout"):
        if isinstance(config.get(name), dict):
            backends.import_saved(config[name])
            config[name] = keras.saving.deserialize_keras_object(config[name])
    return config
