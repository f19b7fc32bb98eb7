"""Test accuracy on digits in small batches: curvature averaged over steps or not, beside Adam.

A 64-16-16-10 tanh network, cross-entropy, five epochs by stock `fit`. Each seed keeps 360 images of
its own for the test. Columns: mean accuracy after the last epoch, and the largest fall from one
epoch to the next. Adam has five learning rates, of which the best counts. Nothing is timed.

    python benchmarks/small_batches.py [--batches 32 64] [--seeds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import keras
import numpy as np

from keras_qnewton import Adaptive, QNewton

L = keras.layers
RATES = (1e-3, 3e-3, 1e-2, 2e-2, 3e-2)
METHODS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "QNewton()": QNewton,
    "memory=1": lambda: QNewton(damping=Adaptive(memory=1)),
    **{f"Adam({rate:g})": lambda rate=rate: keras.optimizers.Adam(rate) for rate in RATES},
}


def accuracies(optimizer: keras.optimizers.Optimizer, seed: int, batch: int) -> np.ndarray:
    """Test accuracy after each of five epochs, `[5]`."""
    x, y = common.digits(1797)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[360:], order[:360]
    keras.utils.set_random_seed(seed)
    hidden = [L.Dense(16, activation="tanh") for _ in range(2)]
    model = keras.Sequential([L.Input((64,)), *hidden, L.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    history = model.fit(
        x[train],
        y[train],
        batch_size=batch,
        epochs=5,
        verbose=0,
        validation_data=(x[test], y[test]),
    ).history
    return np.array(history["val_accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    common.add_output_options(parser, "small_batches")
    options = parser.parse_args()
    common.limit_threads()
    rows: list[dict[str, Any]] = []
    for batch in options.batches:
        for name in options.methods:
            found = np.array(
                [accuracies(METHODS[name](), seed, batch) for seed in range(options.seeds)]
            )
            fall = max(0.0, float((found[:, :-1] - found[:, 1:]).max()))
            row = {"batch": batch, "method": name, "seeds": options.seeds}
            rows.append({**row, "accuracy": float(found[:, -1].mean()), "largest_fall": fall})
            print(f"{batch:5} {name:12} {rows[-1]['accuracy']:.4f}  {fall:.4f}", flush=True)
    common.save("small_batches", rows, options.json)


if __name__ == "__main__":
    main()
