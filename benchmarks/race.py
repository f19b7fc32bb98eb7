"""Training loss against seconds: QNewton, Adam at three learning rates, L-BFGS; one process.

Full batch, stock `compile`/`fit` for Keras optimizers, SciPy's L-BFGS-B through a flat wrapper
around a compiled value-and-gradient, TensorFlow Probability's L-BFGS (where it is installed)
as one compiled graph. An epoch of `fit` is the batch over and over: what Keras spends between
epochs, some 30 ms, is no optimizer's. Compilation is left out for everyone. Tasks: a curve
(256 points of sin 8x + cos(23x²)/2, 1-24-24-1 tanh), diabetes (10-16-16-1 tanh), logistic
regression with an L2 penalty on breast cancer data, digits (64-16-16-10 tanh).

Prints the lowest loss by several times, and when QNewton reaches the lowest loss of L-BFGS: where
that is a matter of milliseconds, the medians of more runs of both, in turns. Draws loss against
seconds to `benchmarks/results/race.png`.

    python benchmarks/race.py [--seconds 25] [--repeats 5] [--tasks curve diabetes logistic digits]
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import common
import keras
import numpy as np
import scipy.optimize
import sklearn.datasets
import tensorflow as tf

from keras_qnewton import QNewton

L = keras.layers
MARKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TASKS = ("curve", "diabetes", "logistic", "digits")
# An L-BFGS that is done sooner runs again, for so long: one run of milliseconds says little.
SHORT, SHORT_BUDGET = 0.25, 2.0
# Seconds and losses, in the order of time.
History = list[tuple[float, float]]
# Okabe and Ito's palette, told apart by colour-blind readers; dashes for those in greyscale.
STYLES = {
    "QNewton()": ("#000000", "-"),
    "SciPy L-BFGS-B": ("#D55E00", "-"),
    "TFP L-BFGS": ("#0072B2", "--"),
    "Adam(0.001)": ("#009E73", ":"),
    "Adam(0.003)": ("#56B4E9", "-."),
    "Adam(0.01)": ("#CC79A7", "--"),
}


def mlp(*sizes: int) -> Callable[[], keras.Model]:
    return lambda: common.keras_mlp(sizes)


def logistic() -> keras.Model:
    keras.utils.set_random_seed(0)
    decay = keras.regularizers.L2(1e-3)
    return keras.Sequential([L.Input((30,)), L.Dense(1, kernel_regularizer=decay)])


def task(name: str) -> tuple[np.ndarray, np.ndarray, Callable[[], keras.Model], Any]:
    """Inputs, labels, a function that builds the network, and the loss."""
    if name == "curve":
        x = np.linspace(-1, 1, 256)[:, None]
        y = np.sin(8 * x) + 0.5 * np.cos(23 * x * x)
        network, loss = mlp(1, 24, 24, 1), keras.losses.MeanSquaredError()
    elif name == "diabetes":
        data = sklearn.datasets.load_diabetes()
        x = data.data / data.data.std(0)
        y = ((data.target - data.target.mean()) / data.target.std())[:, None]
        network, loss = mlp(10, 16, 16, 1), keras.losses.MeanSquaredError()
    elif name == "logistic":
        data = sklearn.datasets.load_breast_cancer()
        x, y = (data.data - data.data.mean(0)) / data.data.std(0), data.target[:, None]
        network, loss = logistic, keras.losses.BinaryCrossentropy(from_logits=True)
    else:
        x, y = common.digits(1797)
        network = mlp(64, 16, 16, 10)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return x.astype("float32"), y.astype("int32" if name == "digits" else "float32"), network, loss


class Clock(keras.callbacks.Callback):
    """(seconds, loss) at each step; stops when time is up.

    Keras logs the loss before the step. The clock starts after the first step, which compiles:
    the second entry, the loss after one step, is one step late, as it should be. It stands still
    while this reads the loss's mean and sets it back, which no training does.
    """

    def __init__(self, budget: float):
        super().__init__()
        self.budget, self.history, self.start = budget, [], 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs["loss"])  # waits for the step
        now = time.perf_counter()
        if not self.history:
            self.start = now
        self.history.append((now - self.start, loss))
        self.model.stop_training = now - self.start > self.budget
        self.model.reset_metrics()  # or it would be the mean over the epoch so far
        self.start += time.perf_counter() - now


# --- the runs: each gives its history ---------------------------------------------------------


def keras_run(optimizer: Any, name: str, budget: float) -> History:
    x, y, network, loss = task(name)
    model, clock = network(), Clock(budget)
    model.compile(optimizer=optimizer, loss=loss)
    batches = tf.data.Dataset.from_tensors((x, y)).repeat()
    model.fit(batches, steps_per_epoch=10**9, verbose=0, shuffle=False, callbacks=[clock])
    return clock.history


def flat_loss(name: str) -> tuple[Callable[[tf.Tensor], Any], np.ndarray]:
    """The task's loss and gradient as a function of one vector, and where it starts."""
    x, y, network, loss = task(name)
    model = network()
    inputs, labels = tf.constant(x), tf.constant(y)
    return flattened(
        lambda: loss(labels, model(inputs)) + sum(model.losses),
        [v.value for v in model.trainable_variables],
    )


def flattened(
    loss: Callable[[], tf.Tensor], variables: list[tf.Variable]
) -> tuple[Callable[[tf.Tensor], Any], np.ndarray]:
    """A loss of variables and its gradient as a function of one vector, and where it starts."""
    sizes = [int(np.prod(v.shape)) for v in variables]

    def value_and_gradient(flat: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for v, piece in zip(variables, tf.split(flat, sizes), strict=True):
            v.assign(tf.reshape(piece, v.shape))
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, variables)
        return value, tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    return value_and_gradient, np.concatenate([v.numpy().ravel() for v in variables])


def scipy_run(name: str, budget: float) -> History:
    function, flat = flat_loss(name)
    value_and_gradient = tf.function(function, autograph=False)
    value_and_gradient(tf.constant(flat))
    history: History = []
    start = time.perf_counter()

    def evaluate(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(tf.constant(weights, tf.float32))
        history.append((time.perf_counter() - start, float(value)))
        if history[-1][0] > budget:
            raise StopIteration
        return float(value), gradient.numpy().astype("float64")

    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            evaluate,
            flat.astype("float64"),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 10**6, "maxfun": 10**6, "maxcor": 20, "ftol": 0, "gtol": 0},
        )
    return history


def tfp_run(name: str, budget: float) -> History:
    """Iterations inside one graph; out of it every few, to look at the clock."""
    import tensorflow_probability as tfp

    function, flat = flat_loss(name)
    start_at = tf.constant(flat)

    def options(iterations: Any) -> dict[str, Any]:
        return {"num_correction_pairs": 20, "tolerance": 0, "max_iterations": iterations}

    @tf.function(autograph=False)
    def first() -> Any:
        return tfp.optimizer.lbfgs_minimize(function, start_at, **options(0))

    @tf.function(autograph=False)
    def more(state: Any, iterations: tf.Tensor) -> Any:
        return tfp.optimizer.lbfgs_minimize(
            function, None, previous_optimizer_results=state, **options(iterations)
        )

    more(first(), tf.constant(1))  # compiles; its result is thrown away
    start = time.perf_counter()
    state, iterations = first(), 0
    history = [(time.perf_counter() - start, float(state.objective_value))]
    while history[-1][0] <= budget and not (bool(state.converged) or bool(state.failed)):
        iterations += 10
        state = more(state, tf.constant(iterations))
        history.append((time.perf_counter() - start, float(state.objective_value)))
    return history


def runs(name: str, budget: float) -> Iterator[tuple[str, History | str]]:
    """Each optimizer's history, or why there is none."""
    yield "QNewton()", keras_run(QNewton(), name, budget)
    for rate in (1e-3, 3e-3, 1e-2):
        yield f"Adam({rate:g})", keras_run(keras.optimizers.Adam(rate), name, budget)
    yield "SciPy L-BFGS-B", scipy_run(name, budget)
    if common.optional("tensorflow_probability") is None:
        yield "TFP L-BFGS", "not installed"
    else:
        yield "TFP L-BFGS", tfp_run(name, budget)


# --- what is said about them ------------------------------------------------------------------


def lowest_by(history: History, seconds: float) -> float:
    """Lowest loss seen by then."""
    return min((loss for t, loss in history if t <= seconds), default=math.nan)


def time_to(history: History, level: float) -> float:
    """When the loss was first that low; infinity if never."""
    return next((t for t, loss in history if loss <= level), math.inf)


def to_its_lowest(ours: History, peer: History) -> tuple[float, float, float]:
    """The peer's lowest loss, and the seconds to it of ours and of the peer."""
    level = lowest_by(peer, math.inf)
    return level, time_to(ours, level), time_to(peer, level)


def against_lbfgs(
    task_name: str, histories: dict[str, History], repeats: int
) -> dict[str, dict[str, Any]]:
    """When QNewton and each L-BFGS reach the lowest loss of that L-BFGS."""
    out: dict[str, dict[str, Any]] = {}
    for name, run in (("SciPy L-BFGS-B", scipy_run), ("TFP L-BFGS", tfp_run)):
        if name not in histories:
            continue
        level, ours, own = to_its_lowest(histories["QNewton()"], histories[name])
        out[name] = {"loss": level, "its_seconds": own, "qnewton_seconds": ours}
        note = ""
        if own < SHORT and repeats:
            pairs = []
            for _ in range(repeats):
                theirs = run(task_name, SHORT_BUDGET)
                mine = keras_run(QNewton(), task_name, SHORT_BUDGET)
                pairs.append(to_its_lowest(mine, theirs)[1:])
            ours, own = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
            sooner = sum(mine < its for mine, its in pairs)
            note = f" (medians of {repeats} runs, in {sooner} of which QNewton() was sooner)"
            out[name]["repeats"] = pairs
        when = f"{ours:.3f} s" if math.isfinite(ours) else "never"
        print(f"  {level:.2e}, the lowest of {name}: QNewton() {when}, {name} {own:.3f} s{note}")
    return out


def draw(histories: dict[str, dict[str, History]]) -> None:
    """Loss against seconds, a panel a task."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    columns = min(2, len(histories))
    rows = -(-len(histories) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 3.6 * rows), squeeze=False, layout="constrained"
    )
    for panel, (name, of_task) in zip(axes.flat, histories.items(), strict=False):
        for label, history in of_task.items():
            colour, dashes = STYLES[label]
            seconds, losses = np.array(history).T
            # Lowest so far: a line search also evaluates points that it does not take. A
            # time of zero has no place on a logarithmic axis.
            lowest = np.minimum.accumulate(losses)
            panel.plot(np.maximum(seconds, 1e-3), lowest, dashes, color=colour, label=label)
        panel.set(xscale="log", yscale="log", title=name, xlabel="seconds", ylabel="lowest loss")
    for empty in axes.flat[len(histories) :]:
        empty.set_visible(False)
    axes.flat[0].legend(fontsize="small")
    common.RESULTS.mkdir(exist_ok=True)
    path = common.RESULTS / "race.png"
    figure.savefig(path, dpi=150)
    print(f"drawn: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=25.0, help="for each run")
    parser.add_argument("--repeats", type=int, default=5, help="of runs that take milliseconds")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which")
    common.add_output_options(parser, "race")
    options = parser.parse_args()
    common.limit_threads()
    results = []
    histories: dict[str, dict[str, History]] = {}
    for name in options.tasks:
        marks = [mark * options.seconds for mark in MARKS]
        print(f"\n{name}: lowest loss by", *(f"{m:9.1f} s" for m in marks))
        of_task = histories.setdefault(name, {})
        for label, history in runs(name, options.seconds):
            if isinstance(history, str):
                print(f"  {label:<16} {history}")
                continue
            of_task[label] = history
            losses = [lowest_by(history, mark) for mark in marks]
            print(f"  {label:<16}", *(f"{loss:11.2e}" for loss in losses), flush=True)
            by = {f"{mark:g}": loss for mark, loss in zip(marks, losses, strict=True)}
            results.append({"task": name, "optimizer": label, "lowest_by": by})
        against = against_lbfgs(name, of_task, options.repeats)
        results.append({"task": name, "to_reach": against})
    common.save("race", results, options.json)
    draw(histories)


if __name__ == "__main__":
    main()
