"""A physics-informed network in stock Keras: Adam, then quasi-Newton, then Newton.

-Δu = f on the unit square with u = 0 on its boundary, f such that u = sin πx sin πy. A network of
257 weights in double precision learns u from the equation alone. Its `train_step` differentiates
the network in its inputs; `compile` with another optimizer goes on from where the last one stopped.
Each optimizer sees all points in every step, which is what quasi-Newton and Newton are made for.

The table says what each phase came to. The figure shows loss and error against seconds.

    python examples/pinn.py [--out pinn.png] [--quick] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from newton_table import make_console, verdict
from rich.console import Console
from rich.table import Table

from keras_qnewton import QNewton

INSIDE, EACH_SIDE, WIDTH = 900, 30, 64
# In single precision the error of this problem ends near 1e-4.
DTYPE = "float64"


# --- the equation -----------------------------------------------------------------------------


def solution(x: np.ndarray) -> np.ndarray:
    """Points `[n, 2]` to values `[n, 1]`."""
    return np.prod(np.sin(np.pi * x), 1, keepdims=True)


def training_points(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random points inside and on the four sides; f inside and u on the boundary."""
    rng = np.random.default_rng(seed)
    inside = rng.uniform(size=(INSIDE, 2))
    t = rng.uniform(size=EACH_SIDE)
    sides = [np.stack(side, 1) for side in ((t, 0 * t), (t, 0 * t + 1), (0 * t, t), (0 * t + 1, t))]
    boundary = np.concatenate(sides)
    x = {"inside": inside, "boundary": boundary}
    return x, {"inside": 2 * np.pi**2 * solution(inside), "boundary": solution(boundary)}


def test_points() -> tuple[np.ndarray, np.ndarray]:
    """A grid of 60 by 60 points, and u there."""
    side = np.linspace(0, 1, 60)
    x = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    return x, solution(x)


# --- the network ------------------------------------------------------------------------------


class RelativeError(keras.metrics.Metric):
    """‖û - u‖/‖u‖ over all examples, however they come in batches."""

    def __init__(self, name: str):
        super().__init__(name=name, dtype=DTYPE)
        self._difference = self.add_weight(name="difference", initializer="zeros")
        self._norm = self.add_weight(name="norm", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        del sample_weight
        self._difference.assign_add(tf.reduce_sum(tf.square(y_pred - y_true)))
        self._norm.assign_add(tf.reduce_sum(tf.square(y_true)))

    def result(self) -> Any:
        return tf.sqrt(self._difference / self._norm)


class PoissonNetwork(keras.Model):
    """û(x, y), whose Laplacian enters the loss.

    `fit` takes the points and values of `training_points`, `evaluate` those of `test_points`.
    """

    def __init__(self) -> None:
        super().__init__(dtype=DTYPE)
        self.network = keras.Sequential(
            [
                keras.layers.Input((2,), dtype=DTYPE),
                keras.layers.Dense(WIDTH, activation="tanh", dtype=DTYPE),
                keras.layers.Dense(1, dtype=DTYPE),
            ]
        )
        self.loss_metric = keras.metrics.Mean("loss", DTYPE)
        self.residual_metric = keras.metrics.Mean("residual", DTYPE)
        self.boundary_metric = keras.metrics.Mean("boundary", DTYPE)
        self.error_metric = RelativeError("l2")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_metric, self.residual_metric, self.boundary_metric, self.error_metric]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.network(x)

    def laplacian(self, x: tf.Tensor) -> tf.Tensor:
        """û_xx + û_yy at points `[n, 2]`, `[n, 1]`."""
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                u = self(x)
            slopes = inner.gradient(u, x)
            u_x, u_y = slopes[:, :1], slopes[:, 1:]
        return outer.gradient(u_x, x)[:, :1] + outer.gradient(u_y, x)[:, 1:]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y = data
        with tf.GradientTape() as tape:
            residual = tf.reduce_mean(tf.square(self.laplacian(x["inside"]) + y["inside"]))
            boundary = tf.reduce_mean(tf.square(self(x["boundary"]) - y["boundary"]))
            loss = residual + boundary
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        logged = ((self.loss_metric, loss), (self.residual_metric, residual))
        for metric, value in (*logged, (self.boundary_metric, boundary)):
            # A step sees all points, so that each is worth reading by itself. Keras would log the
            # mean over the epoch's steps, most of which are at worse weights.
            metric.reset_state()
            metric.update_state(value)
        return {m.name: m.result() for m in self.metrics[:3]}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y = data
        self.error_metric.update_state(y, self(x))
        return {"l2": self.error_metric.result()}


# --- the phases -------------------------------------------------------------------------------


class Curve(keras.callbacks.Callback):
    """Seconds, loss and error at the end of each epoch, over all phases."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: dict[str, list[tuple[float, float, float]]] = {}
        self._began = time.perf_counter()

    def begin(self, phase: str) -> None:
        self.phases[phase] = []

    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        entry = (self.seconds(), logs["loss"], logs["val_l2"])
        list(self.phases.values())[-1].append(entry)


# Name, optimizer, epochs, steps of each, and both for a quick run.
PHASES = (
    ("Adam", lambda: keras.optimizers.Adam(1e-2), (10, 100), (4, 50)),
    ("quasi-Newton", lambda: QNewton(curvature="quasi_newton"), (10, 100), (6, 50)),
    ("Newton", lambda: QNewton(), (40, 10), (6, 5)),
)


def train(seed: int, quick: bool, console: Console) -> Curve:
    """All phases, one after the other on one network; prints what each came to."""
    keras.utils.set_random_seed(seed)
    model, curve = PoissonNetwork(), Curve()
    # One batch of all points, over and over.
    batches = tf.data.Dataset.from_tensors(training_points(seed)).repeat()
    table = Table(title=f"-Δu = f, {WIDTH * 4 + 1} weights", header_style="bold")
    for name in (
        "phase",
        "steps",
        "first epoch, s",
        "ms a step",
        "loss",
        "residual",
        "boundary",
        "L2",
    ):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for name, make_optimizer, usual, few in PHASES:
        epochs, steps = few if quick else usual
        # Keras spends some milliseconds between steps, as much as a step of Adam or quasi-Newton
        # takes here: with `steps_per_execution` it hands over an epoch at once.
        model.compile(optimizer=make_optimizer(), steps_per_execution=steps)
        curve.begin(name)
        began = curve.seconds()
        history = model.fit(
            batches,
            epochs=epochs,
            steps_per_epoch=steps,
            validation_data=tf.data.Dataset.from_tensors(test_points()),
            callbacks=[curve],
            shuffle=False,
            verbose=0,
        ).history
        ends = [seconds for seconds, _, _ in curve.phases[name]]
        each = (ends[-1] - ends[0]) / (steps * (epochs - 1))
        last = {key: values[-1] for key, values in history.items()}
        table.add_row(
            name,
            f"{epochs * steps:,}",
            f"{ends[0] - began:.1f}",
            f"{1e3 * each:.1f}",
            *(f"{last[key]:.1e}" for key in ("loss", "residual", "boundary", "val_l2")),
        )
    console.print(table)
    return curve


def draw(curve: Curve, path: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    for panel, column, label in zip(axes, (1, 2), ("loss", "relative L2 error"), strict=True):
        before: list[tuple[float, float, float]] = []
        for name, entries in curve.phases.items():
            points = [*before, *entries]
            panel.semilogy([p[0] for p in points], [p[column] for p in points], label=name)
            before = entries[-1:]
        panel.set(xlabel="seconds, compilation among them", ylabel=label)
        panel.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("pinn.png"))
    parser.add_argument("--quick", action="store_true", help="fewer steps of each optimizer")
    parser.add_argument("--seed", type=int, default=0, help="of points and weights")
    arguments = parser.parse_args()
    console = make_console()

    curve = train(arguments.seed, arguments.quick, console)
    draw(curve, arguments.out)
    errors = {name: entries[-1][2] for name, entries in curve.phases.items()}
    adam, quasi_newton, newton = errors.values()
    goal = 1e-2 if arguments.quick else 1e-5
    verdict(
        console,
        newton < quasi_newton < adam and newton <= goal,
        "relative L2 error: "
        + ", ".join(f"{error:.1e} after {name}" for name, error in errors.items())
        + f"; figure: {arguments.out}",
    )


if __name__ == "__main__":
    main()
