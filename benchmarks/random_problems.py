"""Random small problems of kinds that stop optimizers: where steps raise the loss, or stand still.

Eight families of random functions of 4 or 6 weights, float64: non-convex, condition numbers up to
1e14, singular, without curvature, weights over 1e±8 and over 1e±25, exponentials that overflow, and
logarithmic barriers. Each family's step is traced once, and its data are variables. Of every run:
how often the loss rose, whether a weight is not finite, and whether it stagnated, which is to say
that the loss is above the one of SciPy's BFGS after as many evaluations, by more than a thousandth,
and its gradient is not small: another minimum is none. Without curvature no gradient is small.
An evaluation of BFGS is a loss with its gradient, of ours a step.

    python benchmarks/random_problems.py [--problems 125] [--steps 40] [--families NAME ...]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import common
import numpy as np
import scipy.optimize
import tensorflow as tf

from keras_qnewton import QNewton

# Loss above BFGS's, relative to it and to its fall, from which on a run counts as stagnating.
_APART = 1e-3
# A gradient of this share of the first is that of a minimum.
_SMALL = 1e-6
# A loss that rises by less has not: rounding of a sum.
_ROUNDING = 1e-12


class Family(NamedTuple):
    """Random functions of one form.

    Attributes:
        data: From a random generator to the function's arrays, of the same shapes each time.
        start: From the generator and the data to the first weights `[N]`.
        loss: From weights and data, tensors, to the loss.
    """

    data: Callable[[np.random.Generator], list[np.ndarray]]
    start: Callable[[np.random.Generator, Sequence[np.ndarray]], np.ndarray]
    loss: Callable[..., tf.Tensor]


def _normal(size: int) -> Callable[..., np.ndarray]:
    return lambda rng, data: rng.normal(size=size)


def _turned(rng: np.random.Generator, eigenvalues: np.ndarray) -> np.ndarray:
    """A symmetric matrix of these eigenvalues."""
    q, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return (q * eigenvalues) @ q.T


def _ill_conditioned(rng: np.random.Generator) -> list[np.ndarray]:
    exponent = rng.uniform(2, 14)
    return [_turned(rng, 10 ** rng.permutation(np.linspace(-exponent, 0, 6)))]


def _scales(decades: float) -> Callable[[np.random.Generator], list[np.ndarray]]:
    return lambda rng: [10 ** rng.uniform(-decades, decades) * 10 ** rng.uniform(-1, 1, size=4)]


def _rosenbrock(w: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    x = w / scale
    return tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2) + tf.reduce_sum((1 - x[:-1]) ** 2)


def _rank_two(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=(20, 2)) @ rng.normal(size=(2, 6)), rng.normal(size=20)]


def _of_scale(rng: np.random.Generator, data: Sequence[np.ndarray]) -> np.ndarray:
    return rng.normal(size=4) * data[0]


FAMILIES = {
    "non-convex": Family(
        lambda rng: [2 * rng.normal(size=(8, 6)), rng.normal(size=8)],
        _normal(6),
        lambda w, a, b: (
            tf.reduce_sum(tf.cos(tf.linalg.matvec(a, w) + b)) + tf.reduce_sum(w**2) / 20
        ),
    ),
    "ill-conditioned": Family(
        _ill_conditioned,
        _normal(6),
        lambda w, h: tf.tensordot(w, tf.linalg.matvec(h, w), 1) / 2,
    ),
    "singular": Family(
        _rank_two,
        _normal(6),
        lambda w, a, b: tf.reduce_sum(tf.square(tf.tanh(tf.linalg.matvec(a, w)) - b)),
    ),
    "no curvature": Family(
        lambda rng: [rng.normal(size=(20, 4)), rng.normal(size=20)],
        _normal(4),
        lambda w, a, b: tf.reduce_sum(tf.abs(tf.linalg.matvec(a, w) - b)),
    ),
    "weights over 1e±8": Family(_scales(8), _of_scale, _rosenbrock),
    "weights over 1e±25": Family(_scales(25), _of_scale, _rosenbrock),
    "overflow": Family(
        lambda rng: [10 * rng.normal(size=(12, 4))],
        lambda rng, data: 5 * rng.normal(size=4),
        lambda w, a: tf.reduce_sum(tf.exp(tf.linalg.matvec(a, w))) + tf.reduce_sum(w**2),
    ),
    "barrier": Family(
        lambda rng: [rng.normal(size=(12, 4)), rng.normal(size=4)],
        lambda rng, data: np.zeros(4),
        lambda w, a, c: (
            tf.tensordot(c, w, 1) * 10
            - tf.reduce_sum(tf.math.log(1 - tf.linalg.matvec(a, w)))
            - tf.reduce_sum(tf.math.log(4 - w**2))
        ),
    ),
}


class Run(NamedTuple):
    """What came of one problem.

    Attributes:
        rises: Steps after which the loss was higher.
        finite: Whether all weights and the loss are finite.
        loss: The last one.
        start: The first one.
        slope: Norm of the last gradient over that of the first.
    """

    rises: int
    finite: bool
    loss: float
    start: float
    slope: float


class Trained:
    """A family's problems, trained by a step that is traced once."""

    def __init__(self, family: Family, **settings: Any):
        self._family = family
        rng = np.random.default_rng(0)
        data = family.data(rng)
        start = family.start(rng, data)
        self._data = [tf.Variable(array) for array in data]
        self.weights = tf.Variable(start)
        optimizer = QNewton(**settings)
        optimizer.build([self.weights])
        self._state = optimizer.variables
        self._fresh = [v.numpy() for v in self._state]
        self._step = tf.function(
            lambda: optimizer.minimize(self._loss, [self.weights]), autograph=False
        )
        self._value = tf.function(self._loss, autograph=False)
        self._value_and_gradient = tf.function(self._gradient, autograph=False)

    def _loss(self) -> tf.Tensor:
        return self._family.loss(self.weights, *self._data)

    def _gradient(self, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = self._family.loss(at, *self._data)
        return value, tape.gradient(value, at)

    def _set(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        data = self._family.data(rng)
        for variable, array in zip(self._data, data, strict=True):
            variable.assign(array)
        return self._family.start(rng, data)

    def run(self, seed: int, steps: int) -> Run:
        """One problem by Newton steps."""
        self.weights.assign(self._set(seed))
        for variable, value in zip(self._state, self._fresh, strict=True):
            variable.assign(value)
        first = self._slope()
        losses = [float(self._step()) for _ in range(steps)]
        losses.append(float(self._value()))
        rises = sum(b - a > _ROUNDING * max(abs(a), abs(b)) for a, b in itertools.pairwise(losses))
        finite = bool(np.isfinite(self.weights.numpy()).all() and np.isfinite(losses).all())
        return Run(rises, finite, losses[-1], losses[0], self._slope() / first)

    def _slope(self) -> float:
        _, gradient = self._value_and_gradient(tf.convert_to_tensor(self.weights))
        return float(np.linalg.norm(gradient))

    def bfgs(self, seed: int, evaluations: int) -> float:
        """The lowest loss that SciPy's BFGS sees in so many evaluations."""
        start, seen = self._set(seed), [np.inf]

        def evaluate(w: np.ndarray) -> tuple[float, np.ndarray]:
            if len(seen) > evaluations:
                raise StopIteration
            value, gradient = self._value_and_gradient(tf.constant(w))
            seen.append(float(value) if np.isfinite(value) else np.inf)
            return seen[-1], gradient.numpy()

        with np.errstate(all="ignore"), contextlib.suppress(StopIteration):
            scipy.optimize.minimize(evaluate, start, method="BFGS", jac=True)
        return min(seen)


def measured(name: str, problems: int, steps: int) -> dict[str, Any]:
    """Counts over a family's problems."""
    trained = Trained(FAMILIES[name])
    rises = stagnant = infinite = 0
    for seed in range(1, problems + 1):
        run = trained.run(seed, steps)
        lowest = trained.bfgs(seed, steps)
        rises += run.rises
        infinite += not run.finite
        apart = _APART * max(abs(lowest), _APART * abs(run.start))
        stagnant += run.loss - lowest > apart and run.slope > _SMALL
    return {
        "family": name,
        "problems": problems,
        "steps": steps,
        "rises": rises,
        "not_finite": infinite,
        "stagnant": stagnant,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=125)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'family':20} problems  rises  not finite  stagnant")
    for name in arguments.families:
        row = measured(name, arguments.problems, arguments.steps)
        rows.append(row)
        print(
            f"{name:20} {row['problems']:8} {row['rises']:6} {row['not_finite']:11} "
            f"{row['stagnant']:9}",
            flush=True,
        )
    common.save("random_problems", rows, arguments.json)


if __name__ == "__main__":
    main()
