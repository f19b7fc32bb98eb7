"""Physics-informed networks in float64: QNewton() against Levenberg-Marquardt in JAX; one process.

QNewton() is at its defaults, `optimizer.minimize(loss, variables)` in a `tf.function`. The peers,
chosen by `--peers`:

    jax     Levenberg-Marquardt, one program for all equations: rows of the Jacobian by
            `vmap(grad)`, JᵀJ + λI solved by Cholesky, λ from the trust ratio
    adam    Keras's, at its default learning rate, in a `tf.function` of its own
    lbfgs   SciPy's L-BFGS-B with 50 pairs, on TensorFlow's loss and gradient; a step is an
            evaluation

The problems are Poisson 2-d, heat 1-d and Poisson 5-d as `benchmarks/physics.py` has them; points
and weights at the start are the same for all. QNewton(), JAX and Adam run in turns of `--slice`
seconds, so that whatever else the machine does hits all alike. L-BFGS runs after them.

Each gets `--seconds` of its own. They begin after the first step, which compiles; it has a column
of its own. The relative L2 error is looked at after each step of QNewton() and JAX and after each
tenth of the others; no clock runs meanwhile. `--resample` draws new points for each step,
the same for all; L-BFGS is left out then, and QNewton() runs with `Adaptive(memory=1)`, too, which
shares no step among batches. The final loss is that of the first points all the same.

    python benchmarks/pinn.py [--problems poisson2d heat1d poisson5d] [--seconds 40]
        [--seeds 0 1 2] [--peers jax adam lbfgs] [--slice 1] [--resample]
        [--json FILE] [--figure FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

# JAX solves by SciPy's LAPACK, whose threads spin: where anything else runs on the machine, a
# solve of 257 unknowns takes 250 to 500 ms on two threads instead of half a millisecond on one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import common
import jax
import jax.flatten_util
import keras
import numpy as np
import scipy.optimize
import tensorflow as tf
from physics import PROBLEMS, Problem, keras_network, tf_loss
from pinn_methods import IN_TURNS, JaxLevenbergMarquardt, Method, Ours, Unaveraged

PEERS = ("jax", "adam", "lbfgs")
LEVELS = (1e-3, 1e-4, 1e-5, 1e-6)
# Okabe and Ito's palette, told apart by colour-blind readers; dashes for those in greyscale.
STYLES = {
    "QNewton()": ("#000000", "-"),
    "QNewton(), memory=1": ("#CC79A7", "--"),
    "JAX LM": ("#0072B2", "--"),
    "SciPy L-BFGS-B": ("#D55E00", "-."),
    "Adam(0.001)": ("#009E73", ":"),
}


# --- the runs ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Track:
    """What came of one method: its clock, and the error as it went down."""

    label: str
    first_seconds: float
    steps: int = 0
    seconds: float = 0.0
    timed: list[float] = dataclasses.field(default_factory=list)
    # (steps, seconds, relative L2 error)
    errors: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)
    final_loss: float = math.nan
    final_error: float = math.nan
    decision: dict[str, str] = dataclasses.field(default_factory=dict)

    def count(self, seconds: float) -> None:
        self.steps += 1
        self.seconds += seconds
        self.timed.append(seconds)

    def look(self, error: float) -> None:
        self.errors.append((self.steps, self.seconds, error))

    def to(self, level: float) -> tuple[int, float] | None:
        """Steps and seconds to this error; None if it was never so low."""
        return next(((n, t) for n, t, error in self.errors if error <= level), None)

    @property
    def step_seconds(self) -> float:
        """Mean: steps of a method with a line search or with attempts differ in length."""
        return statistics.fmean(self.timed) if self.timed else math.nan


class Racer:
    """A method on a problem, run a slice at a time."""

    def __init__(self, kind: Callable[..., Method], problem: Problem, seed: int, resample: bool):
        began = time.perf_counter()
        self.method = kind(problem, seed, resample)
        self.track = Track(self.method.label, time.perf_counter() - began, self.method.taken)
        self._problem, self._error = problem, problem.error()
        # The same points for each method, step by step.
        self._draws = np.random.default_rng((seed, 1)) if resample else None
        self.track.look(self._error(self.method.weights()))

    def run(self, slice_seconds: float, budget: float) -> bool:
        """At least one step, unless the budget is used up; whether any is left."""
        track = self.track
        until = min(track.seconds + slice_seconds, budget)
        while track.seconds < until:
            began = time.perf_counter()
            points = None if self._draws is None else self._problem.points(self._draws)
            self.method.step(points)
            track.count(time.perf_counter() - began)
            if track.steps % self.method.look_every == 0 or track.seconds >= budget:
                track.look(self._error(self.method.weights()))
        return track.seconds < budget


def lbfgs(problem: Problem, seed: int, budget: float) -> tuple[Track, list[np.ndarray]]:
    """SciPy's loop, its clock stopped for each look; and the weights of the lowest loss."""
    began = time.perf_counter()
    points, weights = problem.start(seed)
    model, error = keras_network(weights), problem.error()
    variables = [v.value for v in model.trainable_variables]
    fixed = tuple(tf.constant(of) for of in points)

    @tf.function(autograph=False)
    def value_and_gradient() -> Any:
        with tf.GradientTape() as tape:
            value = tf_loss(problem, model, fixed)
        gradients = tape.gradient(value, variables)
        return value, tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    value_and_gradient()
    track = Track("SciPy L-BFGS-B", time.perf_counter() - began)
    ends = np.cumsum([w.size for w in weights])[:-1]
    lowest = (math.inf, weights)
    last = time.perf_counter()

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal lowest, last
        pieces = np.split(flat, ends)
        for v, piece in zip(variables, pieces, strict=True):
            v.assign(piece.reshape(v.shape))
        value, gradient = (of.numpy() for of in value_and_gradient())
        track.count(time.perf_counter() - last)
        if value < lowest[0]:
            lowest = (
                float(value),
                [p.reshape(w.shape).copy() for p, w in zip(pieces, weights, strict=True)],
            )
        if track.steps % 10 == 0:
            track.look(error(lowest[1]))
        if track.seconds > budget:
            raise StopIteration
        last = time.perf_counter()
        return float(value), gradient

    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            evaluate,
            np.concatenate([w.ravel() for w in weights]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 10**6, "maxfun": 10**6, "maxcor": 50, "ftol": 0, "gtol": 0},
        )
    track.look(error(lowest[1]))
    return track, lowest[1]


def race(problem: Problem, seed: int, options: argparse.Namespace) -> list[Track]:
    """All methods on one problem from one start."""
    own = [Ours, Unaveraged] if options.resample else [Ours]
    kinds = [*own, *(kind for name, kind in IN_TURNS.items() if name in options.peers)]
    racers = [Racer(kind, problem, seed, options.resample) for kind in kinds]
    running = racers
    while running:
        running = [racer for racer in running if racer.run(options.slice, options.seconds)]
    decision = racers[0].method.optimizer.decisions[-1]
    racers[0].track.decision = {"route": decision.route, "formed_by": decision.formed_by}
    finished = [(racer.track, racer.method.weights()) for racer in racers]
    if "lbfgs" in options.peers and not options.resample:
        finished.append(lbfgs(problem, seed, options.seconds))
    points, weights = problem.start(seed)
    model, error = keras_network(weights), problem.error()
    fixed = tuple(tf.constant(of) for of in points)
    for track, final in finished:
        model.set_weights(final)
        track.final_loss = float(tf_loss(problem, model, fixed))
        track.final_error = error(final)
    return [track for track, _ in finished]


# --- what is said about them ------------------------------------------------------------------


def heading() -> str:
    levels = "".join(f"{f'to {level:.0e}':>16}" for level in LEVELS)
    return (
        f"{'problem':<11}{'seed':>4}  {'method':<20}{'ms a step':>10}{'first, s':>10}{levels}"
        f"{'loss':>10}{'L2':>10}{'/ JAX':>8}"
    )


def line(name: str, seed: int, track: Track, ratio: float | None) -> str:
    cells = []
    for level in LEVELS:
        reached = track.to(level)
        cells.append("never" if reached is None else f"{reached[0]:,}, {reached[1]:.2f} s")
    return (
        f"{name:<11}{seed:>4}  {track.label:<20}{1e3 * track.step_seconds:>10,.1f}"
        f"{track.first_seconds:>10.1f}{''.join(f'{cell:>16}' for cell in cells)}"
        f"{track.final_loss:>10.1e}{track.final_error:>10.1e}"
        f"{'' if ratio is None else f'{ratio:.2f}':>8}"
    )


def ratio_to_jax(tracks: Sequence[Track]) -> float | None:
    """Time of a step of ours over JAX's; None where JAX did not run."""
    by_label = {track.label: track.step_seconds for track in tracks}
    jax_seconds = by_label.get(JaxLevenbergMarquardt.label)
    return None if jax_seconds is None else by_label[Ours.label] / jax_seconds


def as_json(name: str, seed: int, track: Track, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "problem": name,
        "seed": seed,
        "method": track.label,
        "resample": options.resample,
        "seconds": options.seconds,
        "first_seconds": track.first_seconds,
        "steps": track.steps,
        "step_seconds_mean": track.step_seconds,
        "step_seconds_median": statistics.median(track.timed) if track.timed else math.nan,
        "steps_and_seconds_to": {f"{level:.0e}": track.to(level) for level in LEVELS},
        "final_loss": track.final_loss,
        "final_l2": track.final_error,
        "errors": track.errors,
        **track.decision,
    }


def draw(results: dict[str, list[Track]], path: pathlib.Path) -> None:
    """Relative L2 error against seconds, a panel a problem, a line a seed."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(results), figsize=(5.2 * len(results), 3.8), squeeze=False, layout="constrained"
    )
    for panel, (name, tracks) in zip(axes.flat, results.items(), strict=True):
        named = set()
        for track in tracks:
            colour, dashes = STYLES[track.label]
            # A time of zero has no place on a logarithmic axis.
            seconds, errors = zip(*((t, error) for _, t, error in track.errors if t), strict=True)
            panel.plot(
                seconds,
                errors,
                dashes,
                color=colour,
                label=None if track.label in named else track.label,
            )
            named.add(track.label)
        panel.set(xscale="log", yscale="log", title=name)
        panel.set(xlabel="seconds after the first step", ylabel="relative L2 error")
    axes.flat[0].legend(fontsize="small")
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"drawn: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seconds", type=float, default=40.0, help="for each method")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--slice", type=float, default=1.0, help="seconds of a turn")
    parser.add_argument("--resample", action="store_true", help="new points for each step")
    common.add_output_options(parser, "pinn", figure=True)
    options = parser.parse_args()
    common.limit_threads()
    jax.config.update("jax_enable_x64", True)
    if options.resample and "lbfgs" in options.peers:
        print("SciPy L-BFGS-B: left out, its line search needs points that stay")
    print(heading(), flush=True)
    rows, tracks_of = [], {}
    for name in options.problems:
        for seed in options.seeds:
            tracks = race(PROBLEMS[name], seed, options)
            tracks_of.setdefault(name, []).extend(tracks)
            ratio = ratio_to_jax(tracks)
            for track in tracks:
                its = ratio if track.label == Ours.label else None
                print(line(name, seed, track, its))
                rows.append(as_json(name, seed, track, options) | {"ms_ours_over_jax": its})
            decision = tracks[0].decision
            print(f"{'':17}route {decision['route']}; {decision['formed_by']}", flush=True)
            keras.backend.clear_session()
            jax.clear_caches()
    common.save("pinn", rows, options.json)
    draw(tracks_of, options.figure)


if __name__ == "__main__":
    main()
