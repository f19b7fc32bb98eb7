"""What the first step of `fit` costs: QNewton() beside Adam, by kind of model.

Tracing, the first run and later runs are timed apart. The first run holds the graph's optimisation,
the preparation of its functions, and one step. Graph optimisation is what it takes longer than in
another process in which TensorFlow's graph optimisers are off. Each optimizer and model has a
process of its own, and times are medians over processes.

    python benchmarks/first_step.py [--models perceptron ...] [--jit] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from typing import Any

import common
import keras
import tensorflow as tf
from problems.first_steps import NEWCOMERS, batches, operations, train_function

from keras_qnewton import QNewton

OPTIMIZERS = {"Adam": keras.optimizers.Adam, "QNewton": QNewton}
LATER = 10


def measured(model: str, optimizer: str, jit: bool, optimised: bool) -> dict[str, Any]:
    """One model's first steps, in seconds."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not optimised})
    keras.utils.set_random_seed(0)
    newcomer = NEWCOMERS[model]()
    step = train_function(newcomer, OPTIMIZERS[optimizer](), jit)
    data = batches(newcomer)
    seconds = [time.perf_counter()]
    graph = step.get_concrete_function(data).graph
    seconds.append(time.perf_counter())
    for _ in range(1 + LATER):
        step(data)
        seconds.append(time.perf_counter())
    tracing, first, *later = (b - a for a, b in itertools.pairwise(seconds))
    return {
        "tracing": tracing,
        "first_run": first,
        "later": statistics.median(later),
        "operations": operations(graph),
    }


def row_of(model: str, optimizer: str, jit: bool, repeats: int) -> dict[str, Any]:
    """Medians over processes."""
    runs = {
        optimised: [
            common.in_fresh_process(measured, model, optimizer, jit, optimised)
            for _ in range(repeats)
        ]
        for optimised in (True, False)
    }
    row = {key: statistics.median(run[key] for run in runs[True]) for key in runs[True][0]}
    without = statistics.median(run["first_run"] for run in runs[False])
    row["graph_optimisation"] = row["first_run"] - without
    row["first_step"] = row["tracing"] + row["first_run"]
    return {"model": model, "optimizer": optimizer, "jit": jit, **row}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=NEWCOMERS, default=list(NEWCOMERS))
    parser.add_argument("--jit", action="store_true", help="have XLA compile the step")
    parser.add_argument("--repeats", type=int, default=3, help="processes; the median counts")
    common.add_output_options(parser, "first_step")
    options = parser.parse_args()
    common.limit_threads()
    rows = []
    for model in options.models:
        pair = [row_of(model, name, options.jit, options.repeats) for name in OPTIMIZERS]
        rows += pair
        for row in pair:
            times = "  ".join(
                f"{key} {row[key]:.2f} s" for key in ("tracing", "graph_optimisation", "first_run")
            )
            print(
                f"{model:12} {row['optimizer']:8} {times}  later {1e3 * row['later']:.1f} ms  "
                f"{row['operations']:,} operations",
                flush=True,
            )
        print(
            f"{model:12} first step: {pair[1]['first_step'] / pair[0]['first_step']:.1f} x Adam's"
        )
    common.save("first_step", rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
