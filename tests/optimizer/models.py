"""Small models and data for the optimizer's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_qnewton import QNewton
from keras_qnewton.solvers.quantum.backends import load

L = keras.layers


def regression_data(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype("float32")
    return x, np.sin(x @ [1.0, -0.5, 0.3])[:, None].astype("float32")


def regression_model(seed: int = 0, extra: Sequence[keras.layers.Layer] = ()) -> keras.Sequential:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            L.Input((3,)),
            L.Dense(5, activation="tanh", name="hidden"),
            *extra,
            L.Dense(1, name="out"),
        ]
    )


def compiled(
    optimizer: QNewton,
    seed: int = 0,
    extra: Sequence[keras.layers.Layer] = (),
    **kwargs: Any,
) -> keras.Sequential:
    model = regression_model(seed, extra)
    model.compile(optimizer=optimizer, loss="mse", **kwargs)
    return model


def fit(model: keras.Model, steps: int = 4, **kwargs: Any) -> list[float]:
    """Full-batch steps; the loss before each."""
    x, y = regression_data()
    history = model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0, shuffle=False, **kwargs)
    losses: list[float] = history.history["loss"]
    return losses


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
class NoisyBackend:
    """A test double of a quantum backend: the emulator's amplitudes, plus noise."""

    def __init__(self, noise: float = 1.0) -> None:
        self.noise = noise
        self.runs = 0

    def circuit(self, *args: Any) -> Any:
        return load("emulator").circuit(*args)

    def run(self, *args: Any) -> Any:
        self.runs += 1
        outcome = load("emulator").run(*args)
        rng = np.random.default_rng(self.runs)
        noise = self.noise * rng.normal(size=outcome.amplitudes.shape)
        return outcome._replace(amplitudes=outcome.amplitudes + noise)

    def get_config(self) -> dict[str, float]:
        return {"noise": self.noise}


class BrokenBackend(NoisyBackend):
    def run(self, *args: Any) -> Any:
        self.runs += 1
        raise MemoryError("no room for the amplitudes")
