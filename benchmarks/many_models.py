"""Memory that stays of each model that was trained and dropped: QNewton() beside Adam.

A search over hyperparameters builds, trains and drops models in one process. Each optimizer has a
process of its own. A model has 39 weights and trains for three full batches of 32 examples. Then
Keras's session is cleared, and garbage is collected. The first models warm TensorFlow up. Megabytes
a model are the slope of the resident memory over the others, by least squares, for each number of
models asked for.

Resident memory is read from `/proc`: Linux only.

    python benchmarks/many_models.py [--models 10 20 40] [--limit 1200] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import common
import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import QNewton

OPTIMIZERS = {"Adam": keras.optimizers.Adam, "QNewton": QNewton}
# The first models bring about what TensorFlow keeps in any case.
WARM_UP = 4


def resident() -> float:
    """The process's resident memory in megabytes."""
    with open("/proc/self/statm") as numbers:
        pages = int(numbers.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def train_and_drop(label: str, x: np.ndarray, y: np.ndarray) -> int:
    """Trains a model, which nothing holds afterwards; returns its number of weights."""
    L = keras.layers
    layers = [L.Dense(4, activation="tanh"), L.Dense(3), L.Dense(1)]
    model = keras.Sequential([L.Input((4,)), *layers])
    model.compile(optimizer=OPTIMIZERS[label](), loss="mean_squared_error")
    model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    weights: int = model.count_params()
    del model
    keras.backend.clear_session()
    gc.collect()
    return weights


def operations_alive() -> int:
    """How many operations of graphs are not freed."""
    return sum(isinstance(o, tf.Operation) for o in gc.get_objects())


def rows_of(label: str, counts: list[int]) -> Iterator[dict[str, Any]]:
    """A row for each number of models, in increasing order."""
    tf.get_logger().setLevel("ERROR")  # it warns of functions that are traced in a loop
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = np.sin(x.sum(1, keepdims=True))
    for _ in range(WARM_UP):
        weights = train_and_drop(label, x, y)
    operations = operations_alive()
    megabytes = [resident()]
    for count in counts:
        while len(megabytes) <= count:
            train_and_drop(label, x, y)
            megabytes.append(resident())
        yield {
            "optimizer": label,
            "models": count,
            "weights": weights,
            "megabytes_a_model": float(np.polyfit(range(count + 1), megabytes, 1)[0]),
            "operations_a_model": (operations_alive() - operations) / count,
            "resident_megabytes": list(megabytes),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", type=int, default=[10, 20, 40])
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for an optimizer")
    common.add_output_options(parser, "many_models")
    options = parser.parse_args()
    print(f"{'optimizer':<11}{'models':>7}{'MB a model':>12}{'operations a model':>20}", flush=True)
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for label in OPTIMIZERS:
        until, late = time.perf_counter() + options.limit, f"not done within {options.limit:g} s"
        arguments = label, sorted(options.models)
        for row in common.rows_of_child(rows_of, arguments, until, late):
            if isinstance(row, str):
                print(f"{label:<11}{row}", flush=True)
                results.append({"optimizer": label, "skipped": row})
                if row.startswith(common.FAILED):
                    failed.append(label)
                continue
            results.append(row)
            print(
                f"{label:<11}{row['models']:>7}{row['megabytes_a_model']:>12.2f}"
                f"{row['operations_a_model']:>20,.0f}",
                flush=True,
            )
    common.save("many_models", results, options.json)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
