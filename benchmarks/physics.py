"""Partial differential equations with closed solutions, for the benchmarks that train on them.

Each is as in arXiv 2405.15603 (github.com/f-dangel/kfac-pinns-experiments, experiments 09, 13 and
10): its domain, its numbers of points, and a network d-64-1 tanh, in float64. The loss is the mean
square of the equation's residual plus the mean square of the error at the condition points; there
each of the two has a factor 1/2. Here the 120 points on the square's boundary are 30, projected
on each of its four sides; there each is drawn by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

HIDDEN = 64
# Diffusivity of the heat equation.
KAPPA = 0.25


class Points(NamedTuple):
    """Where the loss looks: n points inside the domain, m where the solution is given."""

    interior: np.ndarray  # [n, d]
    source: np.ndarray  # [n, 1]
    conditions: np.ndarray  # [m, d]
    given: np.ndarray  # [m, 1]


@dataclasses.dataclass(frozen=True)
class Problem:
    """An equation and its solution.

    Attributes:
        dimension: d, the number of coordinates, time among them.
        second_in: Coordinates whose second derivatives the equation has.
        equation: Residual from the d first derivatives, the second derivatives in the
            order of `second_in`, and the source: of arrays of any library.
        draw: Random points inside `[n, d]` and where the solution is given `[m, d]`.
        solution: The closed form, `[n, d]` to `[n, 1]`.
        source: The same, of the source.
        looked_at: Points of the L2 error, the same for every seed.
    """

    dimension: int
    second_in: tuple[int, ...]
    equation: Callable[[Sequence[Any], Sequence[Any], Any], Any]
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    solution: Callable[[np.ndarray], np.ndarray]
    source: Callable[[np.ndarray], np.ndarray]
    looked_at: Callable[[], np.ndarray]

    def points(self, generator: np.random.Generator) -> Points:
        interior, conditions = self.draw(generator)
        return Points(interior, self.source(interior), conditions, self.solution(conditions))

    def start(self, seed: int) -> tuple[Points, list[np.ndarray]]:
        """Points and the network's weights [kernel, bias, kernel, bias], drawn in this order."""
        generator = np.random.default_rng(seed)
        points = self.points(generator)
        d = self.dimension
        first = generator.normal(size=(d, HIDDEN)) * np.sqrt(2 / (d + HIDDEN))
        last = generator.normal(size=(HIDDEN, 1)) * np.sqrt(2 / (HIDDEN + 1))
        return points, [first, np.zeros(HIDDEN), last, np.zeros(1)]

    def error(self) -> Callable[[Sequence[np.ndarray]], float]:
        """The relative L2 error ‖û - u‖/‖u‖ as a function of the weights, in NumPy."""
        x = self.looked_at()
        u = self.solution(x)
        norm = np.linalg.norm(u)

        def of(weights: Sequence[np.ndarray]) -> float:
            first, bias, last, shift = weights
            difference = np.tanh(x @ first + bias) @ last + shift - u
            return float(np.linalg.norm(difference) / norm)

        return of


# --- the problems -----------------------------------------------------------------------------


def _grid() -> np.ndarray:
    side = np.linspace(0, 1, 60)
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


def _draw_square(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    interior = generator.uniform(size=(900, 2))
    t = generator.uniform(size=30)
    sides = ((t, 0 * t), (t, 0 * t + 1), (0 * t, t), (0 * t + 1, t))
    return interior, np.concatenate([np.stack(side, 1) for side in sides])


def _draw_rod(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Time, then place: 60 points at both ends at random times, 60 at random places at time 0."""
    interior = generator.uniform(size=(900, 2))
    ends = np.stack([generator.uniform(size=60), generator.integers(2, size=60)], 1)
    begin = np.stack([np.zeros(60), generator.uniform(size=60)], 1)
    return interior, np.concatenate([ends, begin])


def _draw_cube(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    interior = generator.uniform(size=(3000, 5))
    boundary = generator.uniform(size=(500, 5))
    faces = generator.integers(5, size=500)
    boundary[np.arange(500), faces] = generator.integers(2, size=500)
    return interior, boundary


def _sine_product(x: np.ndarray) -> np.ndarray:
    return np.prod(np.sin(np.pi * x), 1, keepdims=True)


def _cosine_sum(x: np.ndarray) -> np.ndarray:
    return np.sum(np.cos(np.pi * x), 1, keepdims=True)


def _cooling(x: np.ndarray) -> np.ndarray:
    return np.exp(-KAPPA * np.pi**2 * x[:, :1]) * np.sin(np.pi * x[:, 1:])


PROBLEMS = {
    # -Δu = f on the unit square, u = 0 on its boundary
    "poisson2d": Problem(
        dimension=2,
        second_in=(0, 1),
        equation=lambda first, second, source: sum(second, source),
        draw=_draw_square,
        solution=_sine_product,
        source=lambda x: 2 * np.pi**2 * _sine_product(x),
        looked_at=_grid,
    ),
    # ∂u/∂t = κ ∂²u/∂x² for t and x from 0 to 1, the coordinates in this order
    "heat1d": Problem(
        dimension=2,
        second_in=(1,),
        equation=lambda first, second, source: KAPPA * second[0] - first[0] + source,
        draw=_draw_rod,
        solution=_cooling,
        source=lambda x: np.zeros((len(x), 1)),
        looked_at=_grid,
    ),
    # -Δu = f on the unit cube of five dimensions
    "poisson5d": Problem(
        dimension=5,
        second_in=(0, 1, 2, 3, 4),
        equation=lambda first, second, source: sum(second, source),
        draw=_draw_cube,
        solution=_cosine_sum,
        source=lambda x: np.pi**2 * _cosine_sum(x),
        looked_at=lambda: np.random.default_rng(2405).uniform(size=(30_000, 5)),
    ),
}


# --- in TensorFlow ----------------------------------------------------------------------------


def keras_network(weights: Sequence[np.ndarray]) -> Any:
    """The network in float64; Keras's default dtype becomes float64 for good."""
    import keras

    keras.config.set_floatx("float64")
    model = keras.Sequential(
        [
            keras.layers.Input((weights[0].shape[0],)),
            keras.layers.Dense(HIDDEN, activation="tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights(weights)
    return model


def tf_loss(problem: Problem, model: Any, points: Sequence[Any]) -> Any:
    """The loss by nested tapes, as users write it; `points` are tensors in `Points`'s order."""
    import tensorflow as tf

    x, source, conditions, given = points
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            u = model(x)
        slopes = inner.gradient(u, x)
        first = [slopes[:, k : k + 1] for k in range(problem.dimension)]
    second = [outer.gradient(first[k], x)[:, k : k + 1] for k in problem.second_in]
    residual = problem.equation(first, second, source)
    return tf.reduce_mean(residual**2) + tf.reduce_mean((model(conditions) - given) ** 2)
