"""Loss against seconds as a user waits for it: importing is over, tracing counts.

Each optimizer trains from the same weights in a process of its own. The clock starts before its
first step and stands at the end of each, so that what it traces and compiles is part of the wait.
A step's loss is that of the weights before it, on the full batch.

    curve    256 points of sin 8x + cos(23x²)/2, a 1-24-24-1 tanh network, float32
    poisson  Poisson 2-d of `benchmarks/physics.py`, a physics-informed 2-64-1 network, float64

QNewton() and Adam run in a `tf.function`, L-BFGS is SciPy's on a compiled loss and gradient, begun
again where it ends as long as that lowers the loss. Draws the lowest loss so far.

    python benchmarks/whole_wait.py [--seconds 30] [--problems curve poisson]
        [--json FILE] [--figure FILE]

Its file has a line's points as strings, "seconds loss" each.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any

import common
import keras
import models
import numpy as np
import physics
import race
import scipy.optimize
import tensorflow as tf

from keras_qnewton import QNewton

METHODS = ("QNewton()", "Adam(0.01)", "Adam(0.001)", "SciPy L-BFGS-B")
TITLES = {
    "curve": "a curve (673 weights)",
    "poisson": "a physics-informed network (257 weights)",
}
# Points of a line in the figure: more are not seen.
_DRAWN = 80
History = list[tuple[float, float]]
Loss = Callable[[], tf.Tensor]


def problem(name: str) -> tuple[Loss, list[Any]]:
    """The full batch's loss, and the weights it trains."""
    if name == "poisson":
        of = physics.PROBLEMS["poisson2d"]
        points, weights = of.start(0)
        model = physics.keras_network(weights)
        fixed = tuple(tf.constant(array) for array in points)
        return lambda: physics.tf_loss(of, model, fixed), model.trainable_variables
    x, y, network, loss = race.task(name)
    model, inputs, labels = network(), tf.constant(x), tf.constant(y)
    return lambda: loss(labels, model(inputs)), model.trainable_variables


def in_steps(optimizer: Any, loss: Loss, variables: list[Any], budget: float) -> History:
    """By a Keras optimizer, in a `tf.function`."""

    step, _ = models.minimized(optimizer, loss, variables)
    history: History = []
    start = time.perf_counter()
    while not history or history[-1][0] < budget:
        value = step()
        history.append((time.perf_counter() - start, value))
    return history


def by_scipy(loss: Loss, variables: list[Any], budget: float) -> History:
    """By SciPy's L-BFGS-B with 50 pairs."""
    function, flat = race.flattened(loss, [v.value for v in variables])
    of, dtype = tf.function(function, autograph=False), flat.dtype
    flat = flat.astype("float64")
    history: History = []
    start = time.perf_counter()

    def evaluated(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = of(tf.constant(at, dtype))
        history.append((time.perf_counter() - start, float(value)))
        if history[-1][0] > budget:
            raise StopIteration
        return float(value), gradient.numpy().astype("float64")

    options = {"maxiter": 10**9, "maxfun": 10**9, "maxcor": 50, "ftol": 0, "gtol": 0}
    lowest = np.inf
    try:
        while True:
            found = scipy.optimize.minimize(
                evaluated, flat, jac=True, method="L-BFGS-B", options=options
            )
            if found.fun >= lowest:
                return history
            flat, lowest = found.x, found.fun
    except StopIteration:
        return history


def run(name: str, method: str, budget: float) -> History:
    """Seconds and losses of one method, in the order of time."""
    common.limit_threads()
    keras.utils.set_random_seed(0)
    loss, variables = problem(name)
    if method == "SciPy L-BFGS-B":
        return by_scipy(loss, variables, budget)
    rate = method.removeprefix("Adam(").removesuffix(")")
    optimizer = QNewton() if method == "QNewton()" else keras.optimizers.Adam(float(rate))
    return in_steps(optimizer, loss, variables, budget)


def lowest_so_far(history: History) -> History:
    """Of each drawn moment the lowest loss until then; moments are even on a log scale."""
    seconds, losses = (np.array(column) for column in zip(*history, strict=True))
    lowest = np.fmin.accumulate(losses)
    wanted = np.geomspace(max(seconds[0], 1e-3), seconds[-1], _DRAWN)
    kept = np.unique(np.clip(np.searchsorted(seconds, wanted, side="right") - 1, 0, None))
    return [(float(f"{seconds[k]:.4g}"), float(f"{lowest[k]:.4g}")) for k in kept]


def draw(lines: dict[str, dict[str, History]], path: pathlib.Path) -> None:
    """The lowest loss so far against seconds, a panel a problem."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "whole_wait"  # the same numbers give the same file
    figure, panels = plt.subplots(
        1, len(lines), figsize=(4.6 * len(lines), 3.4), squeeze=False, layout="constrained"
    )
    for panel, (name, of_method) in zip(panels[0], lines.items(), strict=True):
        for method, history in of_method.items():
            color, style = race.STYLES[method]
            wide = 2.2 if method == "QNewton()" else 1.4
            panel.plot(*zip(*history, strict=True), style, color=color, label=method, lw=wide)
        panel.set(
            yscale="log", xlabel="seconds, the first step's tracing included", title=TITLES[name]
        )
    panels[0][0].set_ylabel("training loss")
    panels[0][0].legend(frameon=False)
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
    plt.close(figure)
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run")
    parser.add_argument("--problems", nargs="+", choices=TITLES, default=list(TITLES))
    common.add_output_options(parser, "whole_wait", figure=True)
    options = parser.parse_args()
    lines: dict[str, dict[str, History]] = {}
    runs = []
    for name in options.problems:
        print(f"\n{TITLES[name]}: first step, lowest loss by the end")
        lines[name] = {}
        for method in METHODS:
            history = common.in_fresh_process(run, name, method, options.seconds)
            line = lines[name][method] = lowest_so_far(history)
            print(f"  {method:<16}{history[0][0]:8.2f} s{line[-1][1]:12.1e}", flush=True)
            runs.append(
                {
                    "problem": name,
                    "method": method,
                    "first_seconds": history[0][0],
                    "steps": len(history),
                    "lowest_loss": line[-1][1],
                    "line": [f"{t} {loss}" for t, loss in line],
                }
            )
    common.save("whole_wait", runs, options.json)
    draw(lines, options.figure)


if __name__ == "__main__":
    main()
