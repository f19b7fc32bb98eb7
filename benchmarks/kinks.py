"""Losses with kinks: QNewton() beside its exact Hessian, and Adam at equal seconds; one process.

Mean absolute errors, hinges and quantiles are piecewise linear in a model's output. QNewton() takes
the curvature of parabolas above them, `curvature="hessian"` the network's own. Both take `--epochs`
by stock `fit`, on the full batch and on batches of 64. Adam has the seconds that QNewton() took,
tracing included, at three learning rates; the best counts.

    python benchmarks/kinks.py [--tasks absolute hinge ...] [--batches 512 64] [--epochs 50]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import common
import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import QNewton

L = keras.layers
RATES = (1e-3, 3e-3, 1e-2)
EXAMPLES = 512


class Task(NamedTuple):
    """A model and its data.

    Attributes:
        model: Makes the model.
        loss: For `compile`.
        x: Inputs.
        y: Targets.
    """

    model: Callable[[], keras.Model]
    loss: Any
    x: np.ndarray
    y: np.ndarray


def quantile(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """The pinball loss at the quantile 0.9."""
    error = labels - predictions
    return tf.reduce_mean(tf.maximum(0.9 * error, -0.1 * error), -1)


def perceptron() -> keras.Model:
    hidden = [L.Dense(16, activation="tanh") for _ in range(2)]
    return keras.Sequential([L.Input((2,)), *hidden, L.Dense(1)])


def linear() -> keras.Model:
    return keras.Sequential([L.Input((10,)), L.Dense(1)])


def recurrent() -> keras.Model:
    return keras.Sequential([L.Input((10, 4)), L.LSTM(8), L.Dense(1)])


def tasks() -> dict[str, Task]:
    """By name."""
    rng = np.random.default_rng(0)
    plane = rng.uniform(-1, 1, size=(EXAMPLES, 2)).astype("float32")
    surface = np.sin(3 * plane[:, :1]) * plane[:, 1:]
    noisy = surface + 0.05 * rng.standard_t(1.5, size=surface.shape).astype("float32")
    points = rng.normal(size=(EXAMPLES, 10)).astype("float32")
    labels = np.sign(points @ rng.normal(size=(10, 1)) + rng.normal(size=(EXAMPLES, 1)))
    sequences = rng.normal(size=(EXAMPLES, 10, 4)).astype("float32")
    return {
        "absolute": Task(perceptron, "mae", plane, surface),
        "absolute, outliers": Task(perceptron, "mae", plane, noisy),
        "hinge": Task(perceptron, "hinge", plane, np.sign(surface)),
        "quantile": Task(perceptron, quantile, plane, noisy),
        "linear hinge": Task(linear, "hinge", points, labels),
        "recurrent": Task(recurrent, "mae", sequences, sequences.sum((1, 2))[:, None]),
    }


class UntilSeconds(keras.callbacks.Callback):
    """Ends `fit` after so many seconds."""

    def __init__(self, seconds: float):
        super().__init__()
        self._end = time.perf_counter() + seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the clock."""
        if time.perf_counter() > self._end:
            self.model.stop_training = True


def trained(
    task: Task, optimizer: Any, batch: int, epochs: int, seconds: float = np.inf
) -> tuple[float, float]:
    """The loss on all data after training, and the seconds that it took."""
    keras.utils.set_random_seed(0)
    model = task.model()
    model.compile(optimizer=optimizer, loss=task.loss)
    start = time.perf_counter()
    model.fit(
        task.x,
        task.y,
        batch_size=batch,
        epochs=epochs,
        verbose=0,
        callbacks=[UntilSeconds(seconds)],
    )
    took = time.perf_counter() - start
    loss = float(model.evaluate(task.x, task.y, batch_size=len(task.x), verbose=0))
    keras.backend.clear_session()
    return loss, took


def row_of(name: str, task: Task, batch: int, epochs: int) -> dict[str, Any]:
    """One task's losses."""
    ours, seconds = trained(task, QNewton(), batch, epochs)
    exact, _ = trained(task, QNewton(curvature="hessian"), batch, epochs)
    adam = min(
        trained(task, keras.optimizers.Adam(rate), batch, 10**9, seconds)[0] for rate in RATES
    )
    return {
        "task": name,
        "batch": batch,
        "epochs": epochs,
        "seconds": seconds,
        "qnewton": ours,
        "hessian": exact,
        "adam": adam,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = tasks()
    parser.add_argument("--tasks", nargs="+", choices=known, default=list(known))
    parser.add_argument("--batches", nargs="+", type=int, default=[EXAMPLES, 64])
    parser.add_argument("--epochs", type=int, default=50)
    common.add_output_options(parser, "kinks")
    options = parser.parse_args(arguments)
    common.limit_threads()
    rows = []
    print("loss after training    batch  seconds   QNewton()   exact Hessian   Adam, equal seconds")
    for name in options.tasks:
        for batch in options.batches:
            row = row_of(name, known[name], batch, options.epochs)
            rows.append(row)
            print(
                f"{name:22} {batch:5} {row['seconds']:8.1f} {row['qnewton']:11.2e} "
                f"{row['hessian']:15.2e} {row['adam']:21.2e}",
                flush=True,
            )
    common.save("kinks", rows, options.json)


if __name__ == "__main__":
    main()
