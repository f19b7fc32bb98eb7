"""From a circuit's qubits to numbers: amplitudes as they are, or estimated from shots."""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple, cast

import keras
import numpy as np

from keras_qnewton.arguments import check_count
from keras_qnewton.registry import Policy, register
from keras_qnewton.solvers.quantum.backends import Backend, SamplingBackend
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.tomography import Reading, doubted, tomography
from keras_qnewton.solvers.quantum.transforms import Transform

# Errors of a run by which refinement gets on: nearly always, and in half of all cases.
SAFE_ERROR, MOST_ERROR = math.sqrt(1 / 40), 0.2
# Shots for probabilities of a few per cent.
_PROBE_SHOTS = 1000


class CircuitRun(NamedTuple):
    """A circuit that is to be read, and which one of a solution's it is.

    Attributes:
        backend: As `backends.Backend` has all attributes to `dtype`.
        encoding: Of the matrix.
        transform: The polynomial.
        state: The initial state, `[2^n]`.
        dtype: Of simulated amplitudes.
        number: Of the circuits of one solution, from 0.
        probe: Of the circuits that prepare that one, from 1; 0 for the circuit itself.
    """

    backend: Backend
    encoding: BlockEncoding
    transform: Transform
    state: np.ndarray
    dtype: str
    number: int
    probe: int = 0


class Readout(Policy, abc.ABC):
    """A way to read amplitudes."""

    @abc.abstractmethod
    def check(self, backend: Backend) -> None:
        """Raises ValueError if this readout cannot be had from `backend`."""

    @abc.abstractmethod
    def read(self, run: CircuitRun) -> Reading:
        """Runs the circuit, as often as it takes."""

    def probabilities(self, run: CircuitRun) -> tuple[np.ndarray, int]:
        """Of each index of the system register, together with |0⟩ on signal and ancilla qubits.

        Returns:
            Float64 `[2^n]`, and how often the circuit was measured; 0 for a simulator's.
        """
        reading = self.read(run)
        return np.square(reading.amplitudes), reading.shots


@register("readout", "exact")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Exact(Readout):
    """All amplitudes at once, as only a simulator knows them."""

    def check(self, backend: Backend) -> None:
        """Raises ValueError for a backend that can only be measured."""
        if not getattr(backend, "exact", True):
            raise ValueError(
                "Argument `readout` must be Shots(...) for a backend with noise or a sampler: "
                "it has counts, no amplitudes. Received: readout='exact'"
            )

    def read(self, run: CircuitRun) -> Reading:
        """One call of the backend's `run`."""
        outcome = run.backend.run(run.encoding, run.transform, run.state, run.dtype)
        return Reading(
            outcome.amplitudes, outcome.success_probability, outcome.operations, 0.0, True, 0
        )


@register("readout", "shots")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Shots(Readout):
    """Amplitudes estimated from measurements; see `tomography`.

    The global sign, which no measurement shows, is the one that makes ⟨b, A x⟩ positive (for an
    even polynomial, ⟨b, x⟩), a product with A on the classical side; see
    `BlockEncoding.orientation`.

    Entries that are zero cut the hypercube. Where they leave it in parts, the counts hold no
    relative sign of the parts; the reading is then marked as not `confident`.

    Args:
        shots: Runs of the circuit for one reading, failures included, divided among the n + 1
            settings.
        seed: Makes solutions repeatable; None for fresh randomness. A `cirq.Sampler` has its
            own.

    Raises:
        ValueError: For fewer than 1 shot.
    """

    def __init__(self, shots: int = 100_000, seed: int | None = None):
        self.shots = check_count("shots", shots)
        self.seed = None if seed is None else check_count("seed", seed, least=0, most=math.inf)

    def check(self, backend: Backend) -> None:
        """Raises ValueError for a backend that cannot be measured."""
        if not isinstance(backend, SamplingBackend):
            raise ValueError(
                "Argument `backend` must have a method `sample` to be read by Shots(...). "
                f"Received: backend={backend!r}"
            )

    def read(self, run: CircuitRun) -> Reading:
        """n + 1 calls of the backend's `sample`."""
        _, encoding, transform, state, *_ = run
        rng = self._rng(run.number)
        settings = [None, *range(encoding.system_qubits)]
        sampling = cast(SamplingBackend, run.backend)  # as `check` has found
        shots = np.full(len(settings), self.shots // len(settings))
        shots[: self.shots % len(settings)] += 1
        counts = np.array(
            [
                sampling.sample(encoding, transform, state, int(m), rotated, rng)
                for m, rotated in zip(shots, settings, strict=True)
            ]
        )
        reading = tomography(counts, shots)
        amplitudes = reading.amplitudes
        towards = encoding.orientation(state, transform.degree)
        if towards is None:
            return reading
        sign = transform.sign if towards @ amplitudes >= 0 else -transform.sign
        reading = reading._replace(amplitudes=sign * amplitudes)
        return doubted(reading, float(abs(towards @ amplitudes)), float(np.linalg.norm(towards)))

    def probabilities(self, run: CircuitRun) -> tuple[np.ndarray, int]:
        """Shares of a thousand shots, or of all if those are fewer: no phase, no second setting."""
        _, encoding, transform, state, *_ = run
        rng = self._rng(run.number, run.probe)
        shots = min(self.shots, _PROBE_SHOTS)
        sampling = cast(SamplingBackend, run.backend)  # as `check` has found
        counts = sampling.sample(encoding, transform, state, shots, None, rng)
        return counts / shots, shots

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng(None if self.seed is None else [self.seed, *numbers])

    def get_config(self) -> dict[str, Any]:
        return {"shots": self.shots, "seed": self.seed}


def refining_success(encoding: BlockEncoding, transform: Transform) -> float:
    """Success probability of a run of 1/x that solves for what a readout left of the solution.

    From A e, whatever b was, e the readout's noise: ``(s α ‖e‖ / ‖A e‖)²``, which is
    N (s α)² / ‖A‖_F² for noise without a direction.
    """
    scaled = encoding.matrix / encoding.alpha
    return len(scaled) * transform.scale**2 / float(np.sum(np.square(scaled)))


def refining_shots(amplitudes: int, success: float, error: float) -> float:
    """Shots, failures included, that read `amplitudes` numbers to the relative `error`."""
    return amplitudes / (4 * error**2 * success)
