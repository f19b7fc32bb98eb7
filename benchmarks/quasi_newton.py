"""Quasi-Newton steps in Keras against SciPy's, PyTorch's and TFP's, Adam and Newton; one process.

The problems are those of `problems`: convection, reaction and wave equations with closed
solutions, Burgers' and Allen and Cahn's with a spectral reference, Poisson in two dimensions, a
regression of 10,059 weights, logistic regression, Rosenbrock's function of a thousand variables,
five networks on digits (perceptron, wide, convolution, lstm, autoencoder), and the four tasks of
`race` (race_curve, race_diabetes, race_logistic, race_digits).
Points and weights at the start are the same for all methods:

    ssbfgs, ssbroyden, bfgs, lbfgs
                 ours: `QNewton(curvature=QuasiNewton(update=...))`, `minimize` in a `tf.function`
    fit          ours: `curvature="quasi_newton"` in stock `compile` and `fit`, a hundred steps an
                 epoch and ten an execution (`steps_per_execution`)
    fit_epochs   the same, one step an epoch, as `fit` takes a full batch: the difference is what
                 Keras spends between epochs
    newton       ours: `QNewton()` at its defaults
    gauss_newton ours: `QNewton(curvature="gauss_newton")`, at any size
    self_scaled  dense self-scaled BFGS in NumPy and BLAS, SciPy's line search (`self_scaled`)
    scipy_lbfgs  SciPy's L-BFGS-B of 50 pairs, begun again where it ends above its lowest loss
    scipy_bfgs   SciPy's BFGS, up to 1,000 weights
    torch_lbfgs  PyTorch's L-BFGS of 50 pairs, strong Wolfe, on TensorFlow's loss and gradient
    tfp_lbfgs    TensorFlow Probability's, as one graph
    adam         Keras's, at its default learning rate
    adam_lbfgs   Adam for a quarter of the seconds, then L-BFGS-B

Each gets `--seconds` of its own, in turns of `--slice` seconds. They begin when it is compiled, for
which there is a column. Ours and Adam take some steps for that, which are taken back. Loss and
relative L2 error are looked at while no clock runs, by one function for all. A gradient is a loss
with its gradient. A Newton step is counted as one.

A row of JSON a method is written to `--json` as soon as a problem is done for a seed, and until
then to a file beside it, every 20 seconds: a run that is ended leaves its curves. `--append` keeps
the rows that are there. `--figures` names a folder for one figure each. `--profile minutes` takes
some 15, `--profile hour` an hour for each of the three problems in Rathore et al.'s table, which
`--problems` takes one by one.

    python benchmarks/quasi_newton.py [--profile minutes] [--problems poisson2d ...]
        [--methods ssbfgs self_scaled ...] [--seconds 30] [--seeds 0 1 2] [--width 50]
        [--points 2000] [--dtype float64] [--json FILE] [--append] [--figures FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import json
import math
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

# BLAS's threads spin while they wait: beside TensorFlow's, a product of L-BFGS-B takes ten times as
# long on two as on one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import common
import keras
import numpy as np
import tensorflow as tf
from problems import PROBLEMS, Problem, Setup
from quasi_newton_methods import METHODS, make
from turns import Track, Turn

PROFILES: dict[str, dict[str, Any]] = {
    "minutes": {"problems": ["poisson2d", "convection20", "rosenbrock"], "seconds": 30.0},
    "hour": {
        "problems": ["convection40", "reaction", "wave"],
        "methods": ["ssbfgs", "ssbroyden", "adam_lbfgs"],
        "seconds": 1200.0,
        "points": 10_000,
    },
}
REFERENCE = "scipy_lbfgs"
# Whose lowest loss the others' seconds are told to.
PEERS = ("scipy_lbfgs", "self_scaled")
# Okabe and Ito's palette, told apart by colour-blind readers; dashes for those in greyscale.
STYLES = {
    "ssbfgs": ("#000000", "-"),
    "ssbroyden": ("#000000", "--"),
    "bfgs": ("#000000", "-."),
    "lbfgs": ("#000000", ":"),
    "fit": ("#56B4E9", "-"),
    "fit_epochs": ("#56B4E9", "--"),
    "newton": ("#CC79A7", "-"),
    "gauss_newton": ("#CC79A7", "--"),
    "self_scaled": ("#0072B2", "-"),
    "scipy_lbfgs": ("#D55E00", "-"),
    "scipy_bfgs": ("#D55E00", "--"),
    "torch_lbfgs": ("#E69F00", "-"),
    "tfp_lbfgs": ("#E69F00", "--"),
    "adam": ("#009E73", "-"),
    "adam_lbfgs": ("#009E73", "--"),
}


# --- the runs ---------------------------------------------------------------------------------


def looker(problem: Problem, setup: Setup) -> Callable[[Any], tuple[float, float]]:
    """From weights in one vector to the loss and the relative L2 error (NaN if there is none)."""
    task = problem.start(setup)
    loss = tf.function(task.loss, autograph=False)
    shapes = [tuple(v.shape) for v in task.variables]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def look(weights: np.ndarray) -> tuple[float, float]:
        pieces = zip(task.variables, shapes, np.split(weights, ends), strict=True)
        for variable, shape, piece in pieces:
            variable.assign(piece.reshape(shape))
        return float(loss()), math.nan if task.error is None else task.error()

    return look


def race(
    problem: Problem,
    setup: Setup,
    names: list[str],
    seconds: float,
    slice_seconds: float,
    keep: Callable[[Mapping[str, Track]], None],
) -> dict[str, Track]:
    """All methods from one start, in turns; `keep` is given their tracks from time to time."""
    look = looker(problem, setup)
    # All before the first is compiled: where a problem sets seeds, TensorFlow drops what it has
    # compiled, and the next step of each method would do that again while its clock runs.
    tasks = {name: problem.start(setup) for name in names}

    def maker(name: str) -> Callable[[], Any]:
        return lambda: make(name, tasks[name], seconds)

    turns = {name: Turn(maker(name), look, seconds, slice_seconds) for name in names}
    running, rounds, told = dict(turns), 0, time.perf_counter()
    while running:
        running = {name: turn for name, turn in running.items() if turn.take()}
        rounds += 1
        if running and time.perf_counter() - told > 20:
            told = time.perf_counter()
            keep({name: turn.track for name, turn in turns.items()})
            losses = (f"{name} {turns[name].track.looks[-1].loss:.1e}" for name in running)
            print(
                f"  {rounds * slice_seconds:.0f} of {seconds:g} s: {', '.join(losses)}", flush=True
            )
    return {name: turn.track for name, turn in turns.items()}


# --- what is said about them ------------------------------------------------------------------


def heading() -> str:
    return (
        f"  {'method':<20}{'first, s':>9}{'gradients':>11}{'ms each':>9}"
        f"{'loss at 1/4':>13}{'loss':>10}{'L2 at 1/4':>11}{'L2':>10}"
        f"{'to loss of L-BFGS-B':>21}"
    )


def line(name: str, track: Track, level: float | None) -> str:
    label = METHODS[name][0]
    if track.skipped or track.error:
        failed = f"{common.FAILED} {track.error.strip().splitlines()[-1:]}"
        return f"  {label:<20}{track.skipped or failed}"
    last = track.looks[-1]
    early = [look for look in track.looks if look.seconds <= 0.25 * track.seconds][-1]
    reached = None if level is None else track.to_loss(level)
    when = "" if level is None else "never" if reached is None else f"{reached.seconds:.1f} s"
    spent = last.evaluations - track.looks[0].evaluations
    each = 1e3 * track.seconds / spent if spent else math.nan
    ended = f"  {track.seconds:.1f} s, {track.ended}" if track.ended else ""
    return (
        f"  {label:<20}{track.first_seconds:>9.1f}{last.evaluations:>11,}{each:>9.1f}"
        f"{early.loss:>13.1e}{last.loss:>10.1e}{early.error:>11.1e}{last.error:>10.1e}"
        f"{when:>21}{ended}"
    )


def as_json(problem: Problem, setup: Setup, name: str, track: Track) -> dict[str, Any]:
    last = track.looks[-1] if track.looks else None
    return {
        "problem": problem.name,
        **dataclasses.asdict(setup),
        "method": name,
        "label": METHODS[name][0],
        "final_loss": last and last.loss,
        "final_l2": None if last is None or math.isnan(last.error) else last.error,
        **dataclasses.asdict(track),
        "looks": [
            [*look[:3], None if math.isnan(look.error) else look.error] for look in track.looks
        ],
        "published_l2": dict(problem.published),
    }


def seconds_to(track: Track, tracks: Mapping[str, Track]) -> dict[str, float | None]:
    """By peer, when a method has the lowest loss of this peer; None where it never has."""
    lowest = {
        name: min(look.loss for look in tracks[name].looks)
        for name in PEERS
        if name in tracks and tracks[name].looks
    }
    reached = {name: track.to_loss(level) for name, level in lowest.items()}
    return {name: look and look.seconds for name, look in reached.items()}


def write(
    path: pathlib.Path, problem: Problem, setup: Setup, tracks: Mapping[str, Track], mode: str
) -> None:
    """A row of JSON a method."""
    with path.open(mode) as file:
        for name, track in tracks.items():
            file.write(json.dumps(as_json(problem, setup, name, track)) + "\n")


def draw(problem: Problem, tracks: Mapping[tuple[str, int], Track], path: pathlib.Path) -> None:
    """Loss, and the L2 error where there is one, against seconds and against gradients."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ran = {key: track for key, track in tracks.items() if track.looks}
    quantities = ["loss"]
    if any(not math.isnan(track.looks[-1].error) for track in ran.values()):
        quantities.append("error")
    axes_of = {"seconds": "seconds after compilation", "evaluations": "losses with gradients"}
    figure, axes = plt.subplots(
        len(quantities),
        2,
        figsize=(10.4, 3.6 * len(quantities)),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for row, quantity in zip(axes, quantities, strict=True):
        for panel, (across, title) in zip(row, axes_of.items(), strict=True):
            named: set[str] = set()
            for (name, _), track in ran.items():
                colour, dashes = STYLES[name]
                # A time of zero has no place on a logarithmic axis.
                looks = [look for look in track.looks if getattr(look, across) > 0]
                panel.plot(
                    [getattr(look, across) for look in looks],
                    [getattr(look, quantity) for look in looks],
                    dashes,
                    color=colour,
                    label=None if name in named else METHODS[name][0],
                )
                named.add(name)
            panel.set(xscale="log", yscale="log", xlabel=title)
        row[0].set(ylabel="loss" if quantity == "loss" else "relative L2 error")
    if len(quantities) == 2:
        for of, error in problem.published.items():
            axes[1, 0].axhline(error, color="0.7", linewidth=0.8)
            axes[1, 0].annotate(
                f"{of}, published",
                (1, error),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize="x-small",
                color="0.5",
            )
    axes[0, 0].legend(fontsize="x-small")
    figure.suptitle(problem.name)
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"drawn: {path}", flush=True)


def arguments() -> argparse.Namespace:
    """The options, those that are not given filled in from the profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="minutes")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS)
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--seconds", type=float, help="for each method")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--width", type=int, default=50, help="of hidden layers, if left open")
    parser.add_argument("--points", type=int, help="of an equation's residual, if left open")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="(default: the problem's)")
    parser.add_argument("--slice", type=float, default=1.0, help="seconds of a turn")
    results = common.RESULTS
    parser.add_argument("--json", type=pathlib.Path, default=results / "quasi_newton.jsonl")
    parser.add_argument("--append", action="store_true", help="to the rows of earlier runs")
    parser.add_argument("--figures", type=pathlib.Path, default=results)
    options = parser.parse_args()
    defaults = {"methods": list(METHODS), "points": 2000} | PROFILES[options.profile]
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> None:
    options = arguments()
    common.limit_threads()
    # Which say that a line search ended: what a method does then is its own.
    warnings.filterwarnings("ignore", message=".*line search")
    options.json.parent.mkdir(exist_ok=True, parents=True)
    if not options.append:
        options.json.write_text("")
    rows = []
    unfinished = options.json.with_suffix(".unfinished.jsonl")
    for problem in (PROBLEMS[name] for name in options.problems):
        dtype = options.dtype or problem.dtype
        all_tracks = {}
        for seed in options.seeds:
            setup = Setup(seed, options.width, options.points, dtype)
            print(f"\n{problem.name}, seed {seed}, {dtype}, {options.seconds:g} s each", flush=True)
            keep = functools.partial(write, unfinished, problem, setup, mode="w")
            tracks = race(problem, setup, options.methods, options.seconds, options.slice, keep)
            reference = tracks.get(REFERENCE)
            level = reference.looks[-1].loss if reference and reference.looks else None
            print(heading())
            for name, track in tracks.items():
                print(line(name, track, level), flush=True)
                all_tracks[name, seed] = track
            write(options.json, problem, setup, tracks, mode="a")
            rows += [
                {**as_json(problem, setup, name, track), "seconds_to": seconds_to(track, tracks)}
                for name, track in tracks.items()
            ]
            unfinished.unlink(missing_ok=True)
            keras.backend.clear_session()
            gc.collect()
        for of, error in problem.published.items():
            print(f"  published: {of}, L2 {error:.1e}")
        draw(problem, all_tracks, options.figures / f"quasi_newton_{problem.name}.png")
    print(f"written: {options.json}")
    # What a page says of it; the looks are in the lines.
    ends = [{key: value for key, value in row.items() if key != "looks"} for row in rows]
    common.save("quasi_newton", ends, options.json.with_suffix(".json"))


if __name__ == "__main__":
    main()
