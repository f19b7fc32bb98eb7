"""What a quasi-Newton step costs beside one loss and gradient, and beside an iteration of SciPy's.

Dense, N = 257 (Poisson 2-d, float64), 3,441 (convection) and 10,059 (a regression): a step of ours
by `minimize` in a `tf.function`; a `tf.function` of the same loss with its gradient; and the passes
over N² numbers that an update takes at least, a product with a symmetric matrix and a symmetric
update of rank two, by BLAS in double precision. The ratio is ours over the sum of the other two.
The three are timed in turns of `--steps` each, of which medians over `--repeats` count. A step may
look more than once: the mean number of its losses with gradients has a column.

Limited memory, N = 298,621: a step of ours with 50 pairs against an iteration of SciPy's L-BFGS-B
with as many, both after 60 that fill them, and per loss with gradient, since line searches differ.

    python benchmarks/quasi_newton_cost.py [--cases 257 3441 10059 298621] [--steps 30]
        [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# BLAS's threads spin while they wait: beside TensorFlow's, a product of L-BFGS-B takes ten times as
# long on two as on one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import common
import numpy as np
import scipy.optimize
import tensorflow as tf
from problems import PROBLEMS, Setup, Task
from problems.fits import regression
from quasi_newton_methods import PAIRS, Flat
from scipy.linalg import blas

from keras_qnewton import QNewton, QuasiNewton

# By N: the problem, and its setup.
DENSE = {
    257: ("poisson2d", Setup(dtype="float64")),
    3441: ("convection20", Setup(width=40)),
    10059: ("regression", Setup()),
}
LIMITED = 298_621
CASES = (*DENSE, LIMITED)
# Until limited memory is full, and dense inverses are no longer the identity.
WARM_UP = PAIRS + 10


class Ours:
    """Steps of ours, and how often they looked."""

    def __init__(self, task: Task, update: str):
        self._variables = list(task.variables)
        self._optimizer = QNewton(curvature=QuasiNewton(update=update, history=PAIRS))
        self._step = tf.function(
            lambda: self._optimizer.minimize(task.loss, self._variables), autograph=False
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            float(self._step())

    def looks(self, steps: int) -> float:
        """Losses with gradients a step, over the last steps."""
        return statistics.fmean(d.evaluations for d in self._optimizer.decisions[-steps:])


def loss_and_gradient(task: Task) -> Callable[[], None]:
    """One, by a `tf.function` as a user would write it."""
    variables = [v.value for v in task.variables]

    @tf.function(autograph=False)
    def compiled() -> Any:
        with tf.GradientTape() as tape:
            loss = task.loss()
        return loss, tape.gradient(loss, variables)

    def once() -> None:
        loss, _ = compiled()
        float(loss)  # waits for it

    return once


def passes(size: int) -> Callable[[], None]:
    """A product with a symmetric matrix, and its update of rank two; half of it is stored."""
    rng = np.random.default_rng(0)
    vector, other = rng.normal(size=(2, size))
    matrix = np.eye(size, order="F")

    def run() -> None:
        nonlocal matrix
        product = blas.dsymv(1.0, matrix, vector)
        matrix = blas.dsyr2(1e-9 / size, other, product, a=matrix, overwrite_a=1)

    return run


def seconds_each(run: Callable[[], Any], number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        run()
    return (time.perf_counter() - began) / number


def dense(size: int, steps: int, repeats: int) -> dict[str, Any]:
    name, setup = DENSE[size]
    problem = PROBLEMS[name]
    ours = Ours(problem.start(setup), "ssbfgs")
    gradient, own = loss_and_gradient(problem.start(setup)), passes(size)
    ours.run(WARM_UP)
    timed: dict[str, list[float]] = {"ours": [], "gradient": [], "passes": []}
    looks = []
    for run in (gradient, own):
        run()
    for _ in range(repeats):
        timed["gradient"].append(seconds_each(gradient, steps))
        timed["passes"].append(seconds_each(own, steps))
        timed["ours"].append(seconds_each(lambda: ours.run(1), steps))
        looks.append(ours.looks(steps))
    row: dict[str, Any] = {f"{key}_ms": 1e3 * statistics.median(of) for key, of in timed.items()}
    row |= {"size": size, "problem": name, "looks": statistics.fmean(looks)}
    row["ratio"] = row["ours_ms"] / (row["gradient_ms"] + row["passes_ms"])
    print(
        f"{size:>9,}{name:>14}{row['ours_ms']:>10.2f}{row['looks']:>8.2f}{row['gradient_ms']:>11.2f}"
        f"{row['passes_ms']:>9.2f}{row['ratio']:>8.2f}",
        flush=True,
    )
    return row


def limited(steps: int) -> dict[str, Any]:
    width = 540
    ours = Ours(regression(Setup(), width), "lbfgs")
    ours.run(WARM_UP)
    mine = seconds_each(lambda: ours.run(1), steps)
    looks = ours.looks(steps)
    flat, times = Flat(regression(Setup(), width)), []
    begin = flat.weights()
    flat(begin)

    def note(_: np.ndarray) -> None:
        times.append((time.perf_counter(), flat.evaluations))

    scipy.optimize.minimize(
        flat,
        begin,
        jac=True,
        method="L-BFGS-B",
        callback=note,
        options={"maxiter": WARM_UP + steps, "maxcor": PAIRS, "ftol": 0, "gtol": 0},
    )
    (began, first), (ended, last) = times[WARM_UP - 1], times[-1]
    iterations = len(times) - WARM_UP
    gradient = loss_and_gradient(regression(Setup(), width))
    gradient()
    row = {
        "size": len(begin),
        "ours_ms": 1e3 * mine,
        "looks": looks,
        "gradient_ms": 1e3 * seconds_each(gradient, steps),
        "scipy_ms": 1e3 * (ended - began) / iterations,
        "scipy_looks": (last - first) / iterations,
    }
    row["ratio"] = row["ours_ms"] / row["scipy_ms"]
    row["ratio_a_look"] = row["ratio"] / row["looks"] * row["scipy_looks"]
    print(
        f"\nlimited memory, N = {row['size']:,}, {PAIRS} pairs: a step {row['ours_ms']:.1f} ms "
        f"({row['looks']:.2f} losses with gradients), an iteration of SciPy's "
        f"{row['scipy_ms']:.1f} ms ({row['scipy_looks']:.2f}), ratio {row['ratio']:.2f}, "
        f"a look {row['ratio_a_look']:.2f}; one by itself {row['gradient_ms']:.1f} ms",
        flush=True,
    )
    return row


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=30, help="of a turn")
    common.add_output_options(parser, "quasi_newton_cost")
    options: argparse.Namespace = parser.parse_args()
    common.limit_threads()
    rows = []
    if set(options.cases) & set(DENSE):
        print(
            f"{'N':>9}{'problem':>14}{'ours, ms':>10}{'looks':>8}{'gradient':>11}"
            f"{'passes':>9}{'ratio':>8}"
        )
    for size in options.cases:
        if size in DENSE:
            rows.append(dense(size, options.steps, options.repeats))
        else:
            rows.append(limited(options.steps))
    common.save("quasi_newton_cost", rows, options.json)


if __name__ == "__main__":
    main()
