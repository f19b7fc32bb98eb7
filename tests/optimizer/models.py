"""Small models and data for the optimizer's tests."""

import keras
import numpy as np

from keras_qnewton.solvers.quantum.backends import load

L = keras.layers


def regression_data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype("float32")
    return x, np.sin(x @ [1.0, -0.5, 0.3])[:, None].astype("float32")


def regression_model(seed=0, extra=()):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            L.Input((3,)),
            L.Dense(5, activation="tanh", name="hidden"),
            *extra,
            L.Dense(1, name="out"),
        ]
    )


def compiled(optimizer, seed=0, extra=(), **kwargs):
    model = regression_model(seed, extra)
    model.compile(optimizer=optimizer, loss="mse", **kwargs)
    return model


def fit(model, steps=4, **kwargs):
    """Full-batch steps; the loss before each."""
    x, y = regression_data()
    history = model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0, shuffle=False, **kwargs)
    return history.history["loss"]


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
class NoisyBackend:
    """A test double of a quantum backend: the simulator's amplitudes, plus noise."""

    def __init__(self, noise=1.0):
        self.noise = noise
        self.runs = 0

    def circuit(self, *args):
        return load("cirq").circuit(*args)

    def run(self, *args):
        self.runs += 1
        outcome = load("cirq").run(*args)
        rng = np.random.default_rng(self.runs)
        noise = self.noise * rng.normal(size=outcome.amplitudes.shape)
        return outcome._replace(amplitudes=outcome.amplitudes + noise)

    def get_config(self):
        return {"noise": self.noise}


class BrokenBackend(NoisyBackend):
    def run(self, *args):
        self.runs += 1
        raise MemoryError("no room for the amplitudes")
