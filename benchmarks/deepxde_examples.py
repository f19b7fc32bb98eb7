"""DeepXDE's examples at equal seconds: QNewton() against its "adam" and its "L-BFGS".

DeepXDE is unmodified, its backend is TensorFlow, and `model.compile(QNewton())` is all that is done
for ours. Problems, networks, points and Adam's learning rates are the examples', see
`benchmarks/deepxde_problems.py`; points and weights at the start are the same for all. The peers:

    quasi-Newton     `model.compile(QNewton(curvature="quasi_newton"))`
    adam             `model.compile("adam", lr=...)`
    L-BFGS           `model.compile("L-BFGS")`, TensorFlow Probability's, of 100 pairs. A step is
                     an evaluation. The weights of the lowest loss count. It ends by itself where
                     its line search fails.
    adam, L-BFGS     half of the seconds each, as some of the examples have it

Each run has a process of its own and `--seconds`, which begin before the first step: tracing is
included. No clock runs while losses and errors are looked at, at times that grow by a fifth each.
With `--processor` the seconds are those of the processor, of all threads of the run: what else the
machine does takes nothing from them, so that `--jobs` may run at once.
The error is the relative L2 error of the solution; of the inverse problem, its unknown has a
column, too.

Precision is float32, DeepXDE's default, unless `--dtype float64` says otherwise, as DeepXDE
recommends where L-BFGS ends early.

    python benchmarks/deepxde_examples.py [--problems poisson diffusion ...]
        [--optimizers QNewton adam L-BFGS] [--seconds 30] [--seeds 0] [--dtype float32]
        [--processor] [--jobs 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import common
import deepxde as dde
import numpy as np
import tensorflow as tf
from deepxde.optimizers.tensorflow import tfp_optimizer
from deepxde_problems import EXAMPLES, Example

from keras_qnewton import QNewton

# Optimizers by name: what runs, one after the other, in equal parts of the seconds.
OPTIMIZERS = {
    "QNewton": ("QNewton",),
    "quasi-Newton": ("quasi-Newton",),
    "adam": ("adam",),
    "L-BFGS": ("L-BFGS",),
    "adam, L-BFGS": ("adam", "L-BFGS"),
}
# Ours: what a user writes.
OURS: dict[str, Callable[[], QNewton]] = {
    "QNewton": QNewton,
    "quasi-Newton": lambda: QNewton(curvature="quasi_newton"),
}
DTYPES = ("float32", "float64")
# Growth of the seconds from one look to the next, and when the first may be.
LOOKS, FIRST_LOOK = 1.2, 0.05
# What a process may take beyond its seconds: imports, looks, and a step that is under way.
GRACE = 240.0
# The same where seconds are the processor's, which others may have most of.
LONG_GRACE = 900.0
FOR_EVER = 10**9


class Clock:
    """Seconds of training, without those of looks; and what the looks saw.

    Args:
        look: Returns the training loss and the error.
        now: Tells seconds.

    Attributes:
        until: When the running part ends.
        steps: Steps taken.
        looks: (steps, seconds, training loss, relative L2 error), one a look.
    """

    def __init__(self, look: Callable[[], tuple[float, float]], now: Callable[[], float]):
        self.until = math.inf
        self.steps = 0
        self.looks: list[tuple[int, float, float, float]] = []
        self._look, self._now = look, now
        self._began = now()
        self._apart = 0.0  # spent on looks
        self._next = FIRST_LOOK

    @property
    def seconds(self) -> float:
        return self._now() - self._began - self._apart

    def counts(self) -> bool:
        """A step was taken: whether there may be another."""
        self.steps += 1
        if self.seconds >= self._next:
            self.looks_now()
        return self.seconds < self.until

    def looks_now(self) -> None:
        seconds, began = self.seconds, self._now()
        self.looks.append((self.steps, seconds, *self._look()))
        self._next = max(LOOKS * seconds, FIRST_LOOK)
        self._apart += self._now() - began


class StopAtTime(dde.callbacks.Callback):
    """Ends DeepXDE's loop when the clock does."""

    def __init__(self, clock: Clock):
        super().__init__()
        self._clock = clock

    def on_batch_end(self) -> None:
        if not self._clock.counts():
            self.model.stop_training = True


def evaluated_by(clock: Clock) -> type:
    """DeepXDE's loss and gradient of a flat vector, which TensorFlow Probability calls."""

    class Evaluated(tfp_optimizer.LossAndFlatGradient):
        lowest = math.inf

        def __call__(self, flat: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            loss, gradient = super().__call__(flat)
            if float(loss) < self.lowest:
                self.lowest, self.best = float(loss), flat
            # What a look sees, and what is left at the end; the next call sets its own.
            self.set_flat_weights(self.best)
            if not clock.counts():
                raise StopIteration
            return loss, gradient

    return Evaluated


# --- a run --------------------------------------------------------------------------------


def trained(
    name: str, label: str, seed: int, seconds: float, dtype: str, processor: bool
) -> dict[str, Any]:
    """One run, as a row of the results; its seconds are the processor's, or a clock's."""
    tf.get_logger().setLevel("ERROR")  # AutoGraph's, of DeepXDE's own lambdas
    if dtype != "float32":
        dde.config.set_default_float(dtype)
    dde.config.set_random_seed(seed)
    example = EXAMPLES[name]()
    example.net(example.looked_at[:1].astype(dtype))  # makes the weights, before any optimizer's
    model = dde.Model(example.data, example.net)
    ours = OURS[label]() if label in OURS else None
    now = time.process_time if processor else time.perf_counter
    clock = Clock(look_at(model, example, dtype), now)
    parts = OPTIMIZERS[label]
    for k, part in enumerate(parts):
        clock.until = seconds * (k + 1) / len(parts)
        run(model, part if ours is None else ours, example, clock)
    clock.looks_now()
    steps, ended, loss, error = clock.looks[-1]
    unknowns = [float(v.numpy()) for v in example.unknowns]
    row = {"problem": name, "optimizer": label, "seed": seed, "dtype": dtype, "budget": seconds}
    row |= {"weights": weights_of(example), "steps": steps, "seconds": ended, "loss": loss}
    row |= {"l2": error, "unknowns": unknowns, "true_values": list(example.true_values)}
    row |= {"looks": clock.looks, "seconds_of": "processor" if processor else "clock"}
    if ours is not None:
        last = ours.decisions[-1]
        row |= {"route": last.route, "formed_by": last.formed_by}
    return row


def run(model: Any, optimizer: Any, example: Example, clock: Clock) -> None:
    """Trains until the clock's time; DeepXDE's own calls."""
    learning_rate = example.learning_rate if optimizer == "adam" else None
    model.compile(
        optimizer,
        lr=learning_rate,
        external_trainable_variables=list(example.unknowns),
        verbose=0,
    )
    if optimizer != "L-BFGS":
        callbacks = [StopAtTime(clock)]
        model.train(FOR_EVER, display_every=FOR_EVER, callbacks=callbacks, verbose=0)
        return
    tfp_optimizer.LossAndFlatGradient = evaluated_by(clock)
    dde.optimizers.set_LBFGS_options(maxiter=FOR_EVER)
    with contextlib.suppress(StopIteration):
        model.train(verbose=0)


def look_at(model: Any, example: Example, dtype: str) -> Callable[[], tuple[float, float]]:
    """Training loss and relative L2 error at the present weights."""
    at, reference = example.looked_at.astype(dtype), example.solution(example.looked_at)
    network = tf.function(example.net)
    network(at)

    def look() -> tuple[float, float]:
        state = model.train_state
        of_points = state.X_train, state.y_train, state.train_aux_vars
        loss = float(tf.reduce_sum(model.outputs_losses_train(*of_points)[1]))
        apart = network(at).numpy().astype("float64") - reference
        return loss, float(np.linalg.norm(apart) / np.linalg.norm(reference))

    return look


def weights_of(example: Example) -> int:
    return sum(int(np.prod(v.shape)) for v in [*example.net.trainable_weights, *example.unknowns])


# --- a process for each -------------------------------------------------------------------


def rows_of(*arguments: Any) -> Iterator[dict[str, Any]]:
    """The one row of a problem and an optimizer."""
    yield trained(*arguments)


def row_of(*arguments: Any, seconds: float) -> dict[str, Any] | str:
    """A row, or a note why there is none."""
    processor = arguments[-1]
    most = seconds + (LONG_GRACE if processor else GRACE)
    until = time.perf_counter() + most
    late = f"its first step was not done within {most:g} s"
    with contextlib.closing(common.rows_of_child(rows_of, arguments, until, late)) as rows:
        return next(rows)


def line(name: str, label: str, seed: int, row: dict[str, Any] | str) -> str:
    start = f"{name:<10}{seed:>4}  {label:<13}"
    if isinstance(row, str):
        return start + row
    found = ", ".join(
        f"{value:.6g} ({true:g})"
        for value, true in zip(row["unknowns"], row["true_values"], strict=True)
    )
    of_block = f"  {row['route']}; {row['formed_by']}" if "route" in row else ""
    return (
        f"{start}{row['weights']:>7,}{row['steps']:>8,}{row['seconds']:>8.1f}{row['loss']:>10.1e}"
        f"{row['l2']:>10.1e}  {found:<14}{of_block}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--seconds", type=float, default=30.0, help="for each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--processor", action="store_true", help="seconds are the processor's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, with --processor")
    common.add_output_options(parser, "deepxde")
    options = parser.parse_args()
    if options.jobs > 1 and not options.processor:
        parser.error("--jobs needs --processor: runs take a clock's seconds from one another")
    print(
        f"{'problem':<10}{'seed':>4}  {'optimizer':<13}{'weights':>7}{'steps':>8}{'s':>8}"
        f"{'loss':>10}{'L2':>10}  {'found (true)':<14}  route; formed by",
        flush=True,
    )
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    runs = [
        (name, label, seed, options.seconds, options.dtype, options.processor)
        for name in options.problems
        for seed in options.seeds
        for label in options.optimizers
    ]

    def of(run: Sequence[Any]) -> dict[str, Any] | str:
        return row_of(*run, seconds=options.seconds)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as jobs:
        for (name, label, seed, *_), row in zip(runs, jobs.map(of, runs), strict=True):
            print(line(name, label, seed, row), flush=True)
            if isinstance(row, str):
                results.append({"problem": name, "optimizer": label, "seed": seed, "skipped": row})
                if row.startswith(common.FAILED):
                    failed.append(f"{name} by {label}")
            else:
                results.append(row)
    common.save("deepxde", results, options.json)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
