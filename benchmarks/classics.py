"""The problems of Moré, Garbow & Hillstrom: QNewton() against SciPy; one process, float64.

Each problem (`classic_problems`) runs from its standard start and from ten times that, as

    residuals   the loss tf.reduce_sum(tf.square(r)), so that curvature is Gauss-Newton's
    hidden      the same loss with its exact Hessian, `curvature="hessian"`

by `QNewton().minimize` in a `tf.function`. SciPy's `least_squares`, "lm" and "trf" with
`x_scale="jac"`, have the residuals and their Jacobian. Its `minimize(method="trust-exact")` has the
loss, its gradient and its Hessian. All of them are TensorFlow's.

A run has solved its problem where f ≤ 1e-10, or f is within 1e-6 of a listed global minimum. Local
minima that are listed count apart. A run ends there, after `--steps`, or once f has stood still for
50 steps. SciPy's end by their own tolerances, set to 1e-15.

    python benchmarks/classics.py [--problems 1 3 10] [--starts 1 10] [--steps 2000]
        [--scaling auto none diagonal] [--negative-curvature shift] [--forms hidden]
        [--json FILE] [--append]

`--append` runs ours alone, and keeps the rows of other methods that the file has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import common
import numpy as np
import scipy.optimize
import tensorflow as tf
from classic_problems import PROBLEMS, Classic

from keras_qnewton import Adaptive, QNewton

FORMS = {"residuals": "auto", "hidden": "hessian"}
SMALL, RELATIVE = 1e-10, 1e-6
# Some local minima are listed to fewer digits.
RELATIVE_LOCAL = 1e-5
PATIENCE = 50
TOLERANCE = 1e-15


class Run(NamedTuple):
    """How a run ended.

    Attributes:
        value: f.
        steps: Steps of ours, evaluations of SciPy's.
        ended: "solved", "local" or "unsolved".
    """

    value: float
    steps: int
    ended: str


def ended(problem: Classic, value: float) -> str:
    """What f says of a run."""
    if value <= SMALL or _near(value, problem.minima, RELATIVE):
        return "solved"
    return "local" if _near(value, problem.local, RELATIVE_LOCAL) else "unsolved"


def _near(value: float, minima: Sequence[float], relative: float) -> bool:
    return any(abs(value - minimum) <= relative * minimum for minimum in minima if minimum > 0)


# --- ours ---------------------------------------------------------------------------------------


class Ours:
    """QNewton on one problem, traced once for all starts.

    Args:
        problem: The problem.
        curvature: QNewton's.
        damping: QNewton's.
    """

    def __init__(self, problem: Classic, curvature: str, damping: Adaptive):
        self._problem = problem
        self._x = tf.Variable(np.array(problem.start, "float64"))
        self._optimizer = QNewton(curvature=curvature, damping=damping)
        self._optimizer.build([self._x])
        self._fresh = [v.numpy() for v in self._optimizer.variables]
        self._step = tf.function(
            lambda: self._optimizer.minimize(self._loss, [self._x]), autograph=False
        )

    def run(self, start: np.ndarray, most: int) -> Run:
        """From `start`, with an optimizer that knows nothing yet."""
        self._x.assign(start)
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        lowest, since = np.inf, 0
        for k in range(most):
            value = float(self._step())  # before this step
            if ended(self._problem, value) == "solved":
                return Run(value, k, "solved")
            since = 0 if value < lowest else since + 1
            lowest = min(lowest, value)
            if since == PATIENCE:
                break
        return Run(lowest, k + 1 - since, ended(self._problem, lowest))

    def _loss(self) -> tf.Tensor:
        return tf.reduce_sum(tf.square(self._problem.residuals(self._x)))


# --- SciPy's ------------------------------------------------------------------------------------


class Derivatives:
    """A problem's residuals, loss and derivatives as NumPy's numbers.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: Classic):
        self._problem = problem
        signature = [tf.TensorSpec([len(problem.start)], tf.float64)]
        self._of_residuals = tf.function(self._residuals, signature, autograph=False)
        self._of_loss = tf.function(self._loss, signature, autograph=False)

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """r `[m]`."""
        return self._of_residuals(x)[0].numpy()

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """dr/dx `[m, n]`."""
        return self._of_residuals(x)[1].numpy()

    def loss(self, x: np.ndarray) -> float:
        """f."""
        return float(self._of_loss(x)[0])

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """df/dx `[n]`."""
        return self._of_loss(x)[1].numpy()

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """d²f/dx² `[n, n]`."""
        return self._of_loss(x)[2].numpy()

    def _residuals(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            residuals = self._problem.residuals(x)
        return residuals, tape.jacobian(residuals, x)

    def _loss(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(tf.square(self._problem.residuals(x)))
            gradient = inner.gradient(loss, x)
        return loss, gradient, outer.jacobian(gradient, x)


def _least_squares(method: str, **options: Any) -> Callable[..., tuple[float, int]]:
    def run(of: Derivatives, start: np.ndarray, most: int) -> tuple[float, int]:
        found = scipy.optimize.least_squares(
            of.residuals,
            start,
            of.jacobian,
            method=method,
            max_nfev=most,
            **dict.fromkeys(("ftol", "xtol", "gtol"), TOLERANCE),
            **options,
        )
        return 2 * found.cost, found.nfev

    return run


def _trust_exact(of: Derivatives, start: np.ndarray, most: int) -> tuple[float, int]:
    options = {"maxiter": most, "gtol": TOLERANCE}
    found = scipy.optimize.minimize(
        of.loss, start, jac=of.gradient, hess=of.hessian, method="trust-exact", options=options
    )
    return found.fun, found.nfev


PEERS: dict[str, Callable[..., tuple[float, int]]] = {
    "lm": _least_squares("lm"),
    "trf": _least_squares("trf", x_scale="jac"),
    "trust-exact": _trust_exact,
}


# --- the table ----------------------------------------------------------------------------------


def runs(problem: Classic, options: argparse.Namespace) -> Iterator[tuple[str, float, Run]]:
    """Method, factor of the start, and how it ended."""
    derivatives = Derivatives(problem)
    for name, peer in PEERS.items() if not options.append else ():
        for factor in options.starts:
            try:
                value, count = peer(derivatives, problem.start_times(factor), options.steps)
            except (ValueError, np.linalg.LinAlgError):  # SciPy's, where a number is not finite
                value, count = np.nan, 0
            yield name, factor, Run(float(value), int(count), ended(problem, value))
    for scaling in options.scaling:
        for form in options.forms:
            damping = Adaptive(scaling=scaling, negative_curvature=options.negative_curvature)
            ours = Ours(problem, FORMS[form], damping)
            for factor in options.starts:
                yield (
                    f"{form} {scaling}",
                    factor,
                    ours.run(problem.start_times(factor), options.steps),
                )


def cell(run: Run) -> str:
    """Steps, or f and what it is."""
    if run.ended == "solved":
        return f"{run.steps}"
    return f"{'L' if run.ended == 'local' else '-'} {run.value:.2g}"


def summary(rows: Sequence[dict[str, Any]], starts: Sequence[float]) -> None:
    """Prints how many each method solved, and how many the best of SciPy's did."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    groups = {**{m: [m] for m in methods}, "best of SciPy's": list(PEERS)}
    print(f"\n{'solved, and at a listed local minimum':<38}", *(f"start x{f:<9g}" for f in starts))
    for name, group in groups.items():
        counts = []
        for factor in starts:
            of = [r for r in rows if r["method"] in group and r["start"] == factor]
            solved = {r["number"] for r in of if r["ended"] == "solved"}
            local = {r["number"] for r in of if r["ended"] == "local"} - solved
            counts.append(f"{len(solved):>3} {len(local):>3}       ")
        print(f"  {name:<36}", *counts)


def with_earlier(
    rows: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows, and those of `earlier` that none of them takes the place of, by number."""

    def of(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["number"], row["method"], row["start"]

    new = {of(row) for row in rows}
    kept = [row for row in earlier if of(row) not in new]
    return sorted([*kept, *rows], key=lambda row: row["number"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = [problem.number for problem in PROBLEMS]
    parser.add_argument("--problems", nargs="+", type=int, choices=numbers, default=numbers)
    parser.add_argument("--starts", nargs="+", type=float, default=[1.0, 10.0])
    parser.add_argument("--steps", type=int, default=2000, help="or evaluations, at most")
    parser.add_argument("--scaling", nargs="+", default=["auto"], help="`Adaptive`'s")
    parser.add_argument("--negative-curvature", default="auto", help="`Adaptive`'s")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--append", action="store_true", help="to the rows of other methods")
    common.add_output_options(parser, "classics")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    common.limit_threads()
    rows: list[dict[str, Any]] = []
    methods = [] if options.append else list(PEERS)
    methods += [f"{form} {s}" for s in options.scaling for form in options.forms]
    print(f"{'steps or evaluations; - unsolved, L local':<43}", *(f"{m:>18}" for m in methods))
    for problem in PROBLEMS:
        if problem.number not in options.problems:
            continue
        found = {(method, factor): run for method, factor, run in runs(problem, options)}
        for factor in options.starts:
            cells = (f"{cell(found[method, factor]):>18}" for method in methods)
            print(f"{problem.number:>3} {problem.name:<30} x{factor:<7g}", *cells, flush=True)
        rows += [
            {"number": problem.number, "method": method, "start": factor, **run._asdict()}
            for (method, factor), run in found.items()
        ]
        tf.keras.backend.clear_session()
    if options.append:
        rows = with_earlier(rows, json.loads(options.json.read_text("utf-8"))["runs"])
    summary(rows, options.starts)
    common.save("classics", rows, options.json)


if __name__ == "__main__":
    main()
