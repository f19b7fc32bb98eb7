"""Shots for backends that know amplitudes: exact probabilities, drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_qnewton.solvers.quantum.gates import hadamard


def sampled(
    amplitudes: np.ndarray, shots: int, rotated: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Counts of the successful outcomes of `shots` measurements, int64 `[2^n]`.

    Args:
        amplitudes: Real amplitudes on success `[2^n]`, not normalised: what is missing to
            norm 1 are failures.
        shots: Measurements, failures included.
        rotated: System qubit, 0 the most significant, that a Hadamard gate is put on before
            measuring; None for none.
        rng: Where randomness comes from.
    """
    turned = amplitudes if rotated is None else hadamard(amplitudes, rotated)
    # float64, in which the multinomial wants its sum
    probabilities = np.square(np.asarray(turned, np.float64))
    failure = max(0.0, 1.0 - float(probabilities.sum()))
    everything = np.append(probabilities, failure)
    return rng.multinomial(shots, everything / everything.sum())[:-1]


class AmplitudeSampling:
    """`sample` for a backend with an exact `run`: one simulation for all settings of a state."""

    _last: tuple[Any, Any, bytes, Any] | None = None

    def sample(
        self,
        encoding: Any,
        transform: Any,
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
            lambda: self.run(encoding, transform, state, "complex64").amplitudes,  # type: ignore[attr-defined]
        )
        return sampled(amplitudes, shots, rotated, rng)

    def _remembered(
        self, encoding: Any, transform: Any, state: np.ndarray, simulate: Callable[[], Any]
    ) -> Any:
        """What `simulate` gave for these arguments, if they are the last ones again."""
        last, key = self._last, state.tobytes()
        if last is None or not (last[0] is encoding and last[1] is transform and last[2] == key):
            last = self._last = (encoding, transform, key, simulate())
        return last[3]
