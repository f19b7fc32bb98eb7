"""Shots for backends that know amplitudes: exact probabilities, drawn from."""

from __future__ import annotations

import abc
from collections.abc import Callable

import numpy as np

from keras_qnewton.solvers.quantum.backends import Outcome
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.gates import hadamard
from keras_qnewton.solvers.quantum.transforms import Transform


def sampled(
    amplitudes: np.ndarray, shots: int, rotated: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Counts of the successful outcomes of `shots` measurements, int64 `[2^n]`.

    Args:
        amplitudes: Real amplitudes on success `[2^n]`, not normalised: failures are the rest
            to norm 1.
        shots: Measurements, failures included.
        rotated: System qubit, 0 the most significant, that a Hadamard gate is put on before
            measuring; None for none.
        rng: Where randomness comes from.
    """
    turned = amplitudes if rotated is None else hadamard(amplitudes, rotated)
    # float64, in which the multinomial wants its sum
    probabilities = np.square(np.asarray(turned, np.float64))
    failure = max(0.0, 1.0 - float(probabilities.sum()))
    outcomes = np.append(probabilities, failure)
    return rng.multinomial(shots, outcomes / outcomes.sum())[:-1]


class AmplitudeSampling(abc.ABC):
    """`sample` for a backend with an exact `run`: one simulation for all settings of a state."""

    _last: tuple[BlockEncoding, Transform, bytes, np.ndarray] | None = None

    @abc.abstractmethod
    def run(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, dtype: str
    ) -> Outcome:
        """See `backends.Backend`."""

    def sample(
        self,
        encoding: BlockEncoding,
        transform: Transform,
        state: np.ndarray,
        shots: int,
        rotated: int | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """See `backends.SamplingBackend`."""
        # Single precision is far finer than any number of shots.
        amplitudes = self._remembered(
            encoding,
            transform,
            state,
            lambda: self.run(encoding, transform, state, "complex64").amplitudes,
        )
        return sampled(amplitudes, shots, rotated, rng)

    def _remembered(
        self,
        encoding: BlockEncoding,
        transform: Transform,
        state: np.ndarray,
        simulate: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """The result of `simulate`; the last one, if these are the last arguments again."""
        last, key = self._last, state.tobytes()
        if last is None or not (last[0] is encoding and last[1] is transform and last[2] == key):
            last = self._last = (encoding, transform, key, simulate())
        return last[3]
