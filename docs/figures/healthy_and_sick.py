"""The figure of `is_it_working.md`: a healthy run beside one whose gradient has the wrong sign.

Both train one network, in twenty steps of the same full batch. The figure is kept beside this file:

    python docs/figures/healthy_and_sick.py [--out docs/figures/healthy_and_sick.svg]
"""

from __future__ import annotations

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_qnewton import Decision, QNewton

STEPS = 20
ROWS = (("loss", "loss"), ("damping", "damping λ"), ("trust_ratio", "trust ratio ρ"))
HERE = pathlib.Path(__file__).parent


@tf.custom_gradient
def of_wrong_sign(z: tf.Tensor) -> tuple[tf.Tensor, object]:
    """The identity, with minus its derivative."""
    return tf.identity(z), lambda upstream: -upstream


def run(sick: bool) -> list[Decision]:
    """Full-batch steps on points inside and outside of a circle."""
    keras.utils.set_random_seed(0)
    x = np.random.normal(size=(200, 2)).astype("float32")
    y = np.hypot(x[:, 0], x[:, 1]) < 1
    hidden = keras.layers.Dense(4, activation="tanh")
    between = [keras.layers.Lambda(of_wrong_sign)] if sick else []
    # The last layer's own gradient is right: it would hide what is wrong with the first's.
    last = keras.layers.Dense(1, trainable=not sick)
    model = keras.Sequential([keras.layers.Input((2,)), hidden, *between, last])
    model.compile(QNewton(), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=len(x), epochs=STEPS, verbose=0)
    return model.optimizer.decisions


def draw(runs: dict[str, list[Decision]], path: pathlib.Path) -> None:
    """A row for each number, a column for each run."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "keras_qnewton"}):
        figure = Figure(figsize=(7.2, 5.4), layout="constrained", facecolor="white")
        axes = figure.subplots(len(ROWS), len(runs), sharex=True, sharey="row")
        for column, (title, decisions) in enumerate(runs.items()):
            axes[0][column].set_title(title)
            axes[-1][column].set_xlabel("step")
            for row, (field, label) in enumerate(ROWS):
                each = axes[row][column]
                values = [getattr(d, field) for d in decisions]
                each.plot([d.step for d in decisions], values, "o-", markersize=3, color="#3f51b5")
                each.grid(True, alpha=0.3)
                if field == "trust_ratio":
                    each.set_ylim(-1.5, 1.5)
                    each.axhline(0.25, color="#c62828", linewidth=1)
                else:
                    each.set_yscale("log")
                if column == 0:
                    each.set_ylabel(label)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "healthy_and_sick.svg")
    options = parser.parse_args()
    draw({"healthy": run(sick=False), "sick: a wrong gradient": run(sick=True)}, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
