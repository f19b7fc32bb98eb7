"""What two replicas of one machine add up in a step, and how long a step takes.

A perceptron of 8 inputs and one hidden layer, squared error, two logical CPUs on the cores of one
machine: what is seen is what summing costs, not what more hardware brings. Each time is the median
over steps of one training each, by turns.

    python benchmarks/replicas.py [--steps 30] [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import common
import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.replicas import Replicas

INPUTS = 8
# Units of the hidden layer, examples of a batch.
SIZES = ((8, 1024), (32, 1024), (32, 4096), (100, 1024), (100, 4096))


@contextlib.contextmanager
def sums_seen() -> Iterator[list[list[int]]]:
    """Bytes of the tensors of each sum over replicas that is traced meanwhile."""
    seen: list[list[int]] = []
    total = Replicas.total

    def noting(self: Replicas, by_replica: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
        sums = total(self, by_replica)
        seen.append([t.dtype.size * (t.shape.num_elements() or 0) for t in sums])
        return sums

    Replicas.total = noting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Replicas.total = total  # type: ignore[method-assign]


def trained(
    units: int, examples: int, strategy: tf.distribute.Strategy | None, optimizer: Callable
) -> Callable[[], None]:
    """A train step, traced."""
    keras.utils.set_random_seed(0)
    count = 1 if strategy is None else strategy.num_replicas_in_sync
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        layers = [keras.layers.Dense(units, activation="tanh"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.layers.Input((INPUTS,)), *layers])
        made = optimizer()
        made.build(model.trainable_variables)
    x = np.random.default_rng(0).normal(size=(examples, INPUTS)).astype("float32")
    y = np.sin(x.sum(1, keepdims=True))
    part = examples // count
    split = [(tf.constant(a[: count * part]), part) for a in (x, y)]

    def by_replica(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        def loss() -> tf.Tensor:
            return tf.reduce_mean(tf.square(model(x) - y)) / count

        if isinstance(made, QNewton):
            return made.minimize(loss, model.trainable_variables)
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, model.trainable_variables)
        made.apply(gradients, model.trainable_variables)
        return value

    if strategy is None:
        data = [t for t, _ in split]
        run = tf.function(by_replica)

        def step() -> None:
            run(*data).numpy()

    else:

        def of_replica(t: tf.Tensor) -> tf.distribute.DistributedValues:
            return strategy.experimental_distribute_values_from_function(
                lambda c: t[c.replica_id_in_sync_group * part :][:part]
            )

        data = [of_replica(t) for t, _ in split]
        run = tf.function(lambda x, y: strategy.run(by_replica, args=(x, y)))

        def step() -> None:
            for loss in strategy.experimental_local_results(run(*data)):
                loss.numpy()

    step()
    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    common.add_output_options(parser, "replicas")
    arguments = parser.parse_args()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print("N  examples  matrix, kB  gradient, kB  Newton ms: one, two  Adam ms: one, two")
    rows = []
    for units, examples in SIZES:
        size = units * (INPUTS + 2) + 1

        def newton() -> keras.optimizers.Optimizer:
            return QNewton()

        with sums_seen() as seen:
            two = trained(units, examples, strategy, newton)
        matrix = max(max(of) for of in seen if of)
        gradient = max(sum(of[1:]) for of in seen)
        steps = {
            ("newton", 1): trained(units, examples, None, newton),
            ("newton", 2): two,
            ("adam", 1): trained(units, examples, None, keras.optimizers.Adam),
            ("adam", 2): trained(units, examples, strategy, keras.optimizers.Adam),
        }
        found: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
        for _ in range(arguments.rounds):
            for key, step in steps.items():
                found[key].append(seconds(step, arguments.steps))
        ms = {key: 1e3 * statistics.median(times) for key, times in found.items()}
        print(
            f"{size:4d} {examples:6d} {matrix / 1e3:9.1f} {gradient / 1e3:9.1f}   "
            f"{ms['newton', 1]:7.2f} {ms['newton', 2]:7.2f}   "
            f"{ms['adam', 1]:6.2f} {ms['adam', 2]:6.2f}",
            flush=True,
        )
        times = {f"{name}_{count}_ms": value for (name, count), value in ms.items()}
        sums = {"matrix_bytes": matrix, "gradient_bytes": gradient}
        rows.append({"size": size, "examples": examples, **sums, **times})
    common.save("replicas", rows, arguments.json)


if __name__ == "__main__":
    main()
