"""Scikit-learn's handwritten digits: stock compile and fit, QNewton against Adam.

1,797 images of 8x8 pixels scaled to [0, 1]; a 64-16-16-10 tanh network of 1,482 weights, one
block. Full batch and batches of 256, each against Adam for as many epochs. On the full batch Adam
also trains for as many seconds; the figure shows the loss against those, tracing included.

    python examples/digits_mlp.py [--quick] [--seed 0] [--out digits_mlp.png]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from newton_table import NewtonTable, make_console, verdict
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_qnewton import QNewton

# The best of 3e-3, 1e-2 and 3e-2 after five epochs of batches of 256.
ADAM_LEARNING_RATE = 3e-2


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels `[1797, 64]` in [0, 1], classes `[1797]`."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y.astype("int32")


def network(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(16, activation="tanh"),
            keras.layers.Dense(16, activation="tanh"),
            keras.layers.Dense(10),
        ]
    )


class Losses(keras.callbacks.Callback):
    """Seconds since training began and the loss at the end of each epoch; stops when time is up.

    Args:
        seconds: When it stops; None for never.
    """

    def __init__(self, seconds: float | None = None):
        super().__init__()
        self.seconds, self.entries, self._start = seconds, [], 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.entries.append((time.perf_counter() - self._start, logs["loss"]))
        if self.seconds is not None and self.entries[-1][0] >= self.seconds:
            self.model.stop_training = True


def train(
    optimizer: keras.optimizers.Optimizer,
    seed: int,
    x: np.ndarray,
    y: np.ndarray,
    **fit_arguments,
) -> tuple[dict[str, list[float]], float]:
    """Stock compile and fit; Keras's history and the seconds it took."""
    model = network(seed)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    history = model.fit(x, y, verbose=0, **fit_arguments).history
    seconds = time.perf_counter() - start
    loss, accuracy = model.evaluate(x, y, batch_size=len(x), verbose=0)
    history["final"] = [loss, accuracy]
    return history, seconds


def full_batch(
    seed: int, steps: int, console: Console, figure: pathlib.Path
) -> tuple[float, float]:
    """Final loss and accuracy of QNewton; prints the steps and Adam beside them, and draws both."""
    x, y = digits()
    newton, adam = Losses(), Losses()
    rows = []
    with NewtonTable(f"digits, full batch, {steps} steps", console) as table:
        history, seconds = train(
            QNewton(), seed, x, y, batch_size=len(x), epochs=steps, callbacks=[table.log, newton]
        )
    rows.append((f"QNewton, {steps} steps", *history["final"], seconds))
    for label, epochs, losses in (
        ("as many steps", steps, Losses()),
        ("as many seconds", 10**6, adam),
    ):
        if losses is adam:
            losses.seconds = seconds
        optimizer = keras.optimizers.Adam(ADAM_LEARNING_RATE)
        other, took = train(
            optimizer, seed, x, y, batch_size=len(x), epochs=epochs, callbacks=[losses]
        )
        count = len(losses.entries)
        rows.append((f"Adam, {label} ({count})", *other["final"], took))
    _compare(console, "full batch: training set", rows)
    draw({"QNewton": newton.entries, "Adam": adam.entries}, figure)
    console.print(f"Loss against seconds: {figure}")
    return history["final"][0], history["final"][1]


def draw(losses: dict[str, list[tuple[float, float]]], path: pathlib.Path) -> None:
    """Loss against seconds, a line an optimizer."""
    figure, panel = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    styles = {"QNewton": {"color": "#000000", "lw": 2}, "Adam": {"color": "#D55E00", "ls": "--"}}
    for name, entries in losses.items():
        panel.semilogy(*zip(*entries, strict=True), label=name, **styles[name])
    panel.set(xlabel="seconds, tracing among them", ylabel="training loss, full batch")
    panel.grid(alpha=0.3)
    panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def mini_batches(seed: int, epochs: int, console: Console) -> float:
    """Test accuracy of QNewton with batches of 256 on an 80/20 split, Adam beside it."""
    x, y = digits()
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    rows = []
    for name, optimizer in (
        ("QNewton", QNewton()),
        ("Adam", keras.optimizers.Adam(ADAM_LEARNING_RATE)),
    ):
        history, seconds = train(
            optimizer, seed, x, y, batch_size=256, epochs=epochs, validation_data=(x_test, y_test)
        )
        rows.append((name, history["val_loss"][-1], history["val_accuracy"][-1], seconds))
    _compare(console, f"batches of 256, {epochs} epochs: test set", rows)
    return rows[0][2]


def _compare(console: Console, title: str, rows: list[tuple[str, float, float, float]]) -> None:
    table = Table(title=title, header_style="bold")
    for name in ("optimizer", "loss", "accuracy", "seconds"):
        table.add_column(name, justify="left" if name == "optimizer" else "right")
    for name, loss, accuracy, seconds in rows:
        table.add_row(name, f"{loss:.2e}", f"{accuracy:.4f}", f"{seconds:.1f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="15 full-batch steps instead of 25")
    parser.add_argument("--seed", type=int, default=0, help="of the network's weights")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("digits_mlp.png"))
    arguments = parser.parse_args()
    console = make_console()

    steps, goal = (15, 2e-2) if arguments.quick else (25, 1e-5)
    loss, accuracy = full_batch(arguments.seed, steps, console, arguments.out)
    test_accuracy = mini_batches(arguments.seed, 5, console)
    verdict(
        console,
        loss <= goal and accuracy == 1.0 and test_accuracy >= 0.92,
        f"digits: loss {loss:.1e} and {accuracy:.0%} accuracy after {steps} full-batch steps; "
        f"test accuracy {test_accuracy:.3f} after 5 epochs of batches of 256",
    )


if __name__ == "__main__":
    main()
