"""Training loss against seconds: QNewton, Adam at three learning rates, L-BFGS-B; one process.

Full batch, stock `compile`/`fit` for Keras optimizers, SciPy's L-BFGS-B through a flat wrapper
around a compiled value-and-gradient. Compilation is left out for everyone. Tasks: a curve
(256 points of sin 8x + cos(23x²)/2, 1-24-24-1 tanh), diabetes (10-16-16-1 tanh), logistic
regression with an L2 penalty on breast cancer data, digits (64-16-16-10 tanh).

    python benchmarks/race.py [--seconds 25] [--tasks curve diabetes logistic digits]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.optimize
import sklearn.datasets
import tensorflow as tf
from common import digits, save

from keras_qnewton import QNewton

L = keras.layers
MARKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def tanh_network(*sizes: int) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        hidden = [L.Dense(n, activation="tanh") for n in sizes[1:-1]]
        return keras.Sequential([L.Input((sizes[0],)), *hidden, L.Dense(sizes[-1])])

    return build


def logistic() -> keras.Model:
    keras.utils.set_random_seed(0)
    decay = keras.regularizers.L2(1e-3)
    return keras.Sequential([L.Input((30,)), L.Dense(1, kernel_regularizer=decay)])


def task(name: str) -> tuple[np.ndarray, np.ndarray, Callable[[], keras.Model], Any]:
    """Inputs, labels, a function that builds the network, and the loss."""
    if name == "curve":
        x = np.linspace(-1, 1, 256)[:, None]
        y = np.sin(8 * x) + 0.5 * np.cos(23 * x * x)
        network, loss = tanh_network(1, 24, 24, 1), keras.losses.MeanSquaredError()
    elif name == "diabetes":
        data = sklearn.datasets.load_diabetes()
        x = data.data / data.data.std(0)
        y = ((data.target - data.target.mean()) / data.target.std())[:, None]
        network, loss = tanh_network(10, 16, 16, 1), keras.losses.MeanSquaredError()
    elif name == "logistic":
        data = sklearn.datasets.load_breast_cancer()
        x, y = (data.data - data.data.mean(0)) / data.data.std(0), data.target[:, None]
        network, loss = logistic, keras.losses.BinaryCrossentropy(from_logits=True)
    else:
        x, y = digits(1797)
        network = tanh_network(64, 16, 16, 10)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return x.astype("float32"), y.astype("int32" if name == "digits" else "float32"), network, loss


class Clock(keras.callbacks.Callback):
    """(seconds, loss) after each epoch but the first, which compiles; stops when time is up."""

    def __init__(self, budget: float):
        super().__init__()
        self.budget, self.history, self.start = budget, [], 0.0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0:
            self.start = time.perf_counter()
        seconds = time.perf_counter() - self.start
        self.history.append((seconds, float(logs["loss"])))
        self.model.stop_training = seconds > self.budget


def keras_run(optimizer: Any, name: str, budget: float) -> list[tuple[float, float]]:
    x, y, network, loss = task(name)
    model, clock = network(), Clock(budget)
    model.compile(optimizer=optimizer, loss=loss)
    model.fit(x, y, batch_size=len(x), epochs=10**9, verbose=0, shuffle=False, callbacks=[clock])
    return clock.history


def lbfgs_run(name: str, budget: float) -> list[tuple[float, float]]:
    x, y, network, loss = task(name)
    model = network()
    variables = [v.value for v in model.trainable_variables]
    sizes = [int(np.prod(v.shape)) for v in variables]
    inputs, labels = tf.constant(x), tf.constant(y)

    @tf.function
    def value_and_gradient(flat):
        for v, piece in zip(variables, tf.split(flat, sizes), strict=True):
            v.assign(tf.reshape(piece, v.shape))
        with tf.GradientTape() as tape:
            value = loss(labels, model(inputs)) + sum(model.losses)
        gradients = tape.gradient(value, variables)
        return value, tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    flat = np.concatenate([v.numpy().ravel() for v in variables])
    value_and_gradient(tf.constant(flat))
    history: list[tuple[float, float]] = []
    start = time.perf_counter()

    def evaluate(weights):
        value, gradient = value_and_gradient(tf.constant(weights, tf.float32))
        history.append((time.perf_counter() - start, float(value)))
        if history[-1][0] > budget:
            raise StopIteration
        return float(value), gradient.numpy().astype("float64")

    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            evaluate,
            flat.astype("float64"),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 10**6, "maxfun": 10**6, "maxcor": 20, "ftol": 0, "gtol": 0},
        )
    return history


def best_by(history: list[tuple[float, float]], seconds: float) -> float:
    """Lowest loss seen by then."""
    return min((loss for t, loss in history if t <= seconds), default=float("nan"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=25.0, help="for each run")
    parser.add_argument(
        "--tasks", nargs="+", default=["curve", "diabetes", "logistic", "digits"], help="which"
    )
    options = parser.parse_args()
    results = []
    for name in options.tasks:
        print(f"\n{name}: lowest loss by", *(f"{m * options.seconds:9.1f} s" for m in MARKS))
        runs = {"QNewton()": lambda name=name: keras_run(QNewton(), name, options.seconds)}
        for rate in (1e-3, 3e-3, 1e-2):
            runs[f"Adam({rate:g})"] = lambda name=name, rate=rate: keras_run(
                keras.optimizers.Adam(rate), name, options.seconds
            )
        runs["L-BFGS-B"] = lambda name=name: lbfgs_run(name, options.seconds)
        for label, run in runs.items():
            history = run()
            losses = [best_by(history, mark * options.seconds) for mark in MARKS]
            print(
                f"  {label:<16}", *(f"{loss:11.2e}" for loss in losses), f"  {len(history)} steps"
            )
            results.append({"task": name, "optimizer": label, "history": history})
    save("race", results)


if __name__ == "__main__":
    main()
