"""Equations in place and time as losses of a network, and three with closed solutions.

    convection  u_t + β u_x = 0, u(x, 0) = sin x, periodic on [0, 2π]
    reaction    u_t = ρ u (1 - u), u(x, 0) = exp(-(x - π)² / 2(π/4)²), periodic on [0, 2π]
    wave        u_tt = 4 u_xx, u(x, 0) = sin πx + sin(βπx)/2, u_t(x, 0) = 0, u = 0 at x = 0, 1

The domains, conditions, numbers of points on the edges, networks and weights (1 each) are those
of Rathore et al. 2024 (arXiv 2402.01868, appendix A and github.com/pratikrathore8/opt_for_pinns);
convection and reaction are Krishnapriyan et al.'s 2021 (arXiv 2109.01050). Rathore et al. take
10,000 residual points out of a grid; here they are drawn at random.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from .problem import Field, Problem, Setup, Task, relative_error, tanh_network

INITIAL_POINTS, EDGE_POINTS = 257, 101


class Points(NamedTuple):
    """Pairs (x, t), `[n, 2]`: inside; at time 0; at the left and the right end, same times."""

    inside: tf.Tensor
    initial: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Equation:
    """A partial differential equation for u(x, t), t from 0 to 1, by what should vanish.

    Attributes:
        name: Of the problem.
        ends: The interval of x.
        residuals: From a field and points to residuals by name, each `[n, 1]`. The loss is the
            sum of their mean squares.
        solution: Points `[m, 2]` in float64 and values `[m]` there.
        dtype: See `Problem`.
        weights: Factors of the mean squares; 1 where there is none.
        published: See `Problem`.
    """

    name: str
    ends: tuple[float, float]
    residuals: Callable[[Field, Points], dict[str, tf.Tensor]]
    solution: Callable[[], tuple[np.ndarray, np.ndarray]]
    dtype: str = "float64"
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def points(self, setup: Setup) -> Points:
        generator = np.random.default_rng(setup.seed)
        inside = np.stack(
            [generator.uniform(*self.ends, setup.points), generator.uniform(size=setup.points)], 1
        )
        place, time = np.linspace(*self.ends, INITIAL_POINTS), np.linspace(0, 1, EDGE_POINTS)
        initial = np.stack([place, np.zeros(INITIAL_POINTS)], 1)
        edges = [np.stack([np.full(EDGE_POINTS, end), time], 1) for end in self.ends]
        return Points(*(tf.constant(of, setup.dtype) for of in (inside, initial, *edges)))

    def loss(self, field: Field, points: Points) -> tf.Tensor:
        parts = [
            self.weights.get(name, 1.0) * tf.reduce_mean(tf.square(residual))
            for name, residual in self.residuals(field, points).items()
        ]
        return tf.add_n(parts)

    def start(self, setup: Setup) -> Task:
        points = self.points(setup)
        network = tanh_network([2, *3 * [setup.width], 1], setup)
        x, expected = self.solution()
        error = relative_error(network, tf.constant(x, setup.dtype), expected)
        return Task(network.trainable_variables, lambda: self.loss(network, points), error)

    def problem(self) -> Problem:
        return Problem(self.name, self.start, self.dtype, self.published)


# --- derivatives by nested tapes, as users write them -----------------------------------------


def slopes(field: Field, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """u, u_x and u_t at points `[n, 2]`."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        u = field(x)
    gradient = tape.gradient(u, x)
    return u, gradient[:, :1], gradient[:, 1:]


def slopes_and_bend(field: Field, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """u, u_x, u_t and u_xx."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        u, u_x, u_t = slopes(field, x)
    return u, u_x, u_t, tape.gradient(u_x, x)[:, :1]


def bends(field: Field, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """u_xx and u_tt."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        _, u_x, u_t = slopes(field, x)
    return tape.gradient(u_x, x)[:, :1], tape.gradient(u_t, x)[:, 1:]


# --- closed solutions -------------------------------------------------------------------------


def on_grid(ends: tuple[float, float], closed: Field) -> tuple[np.ndarray, np.ndarray]:
    """A closed form at 257 places and 101 times, in float64."""
    sides = np.linspace(*ends, INITIAL_POINTS), np.linspace(0, 1, EDGE_POINTS)
    x = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
    return x, closed(tf.constant(x)).numpy().ravel()


def convected(beta: float) -> Field:
    return lambda x: tf.sin(x[:, :1] - beta * x[:, 1:])


def convection(beta: float) -> Equation:
    def residuals(field: Field, points: Points) -> dict[str, tf.Tensor]:
        _, u_x, u_t = slopes(field, points.inside)
        return {
            "equation": u_t + beta * u_x,
            "initial": field(points.initial) - tf.sin(points.initial[:, :1]),
            "boundary": field(points.left) - field(points.right),
        }

    ends = (0.0, 2 * math.pi)
    published = {
        "Adam": 5.96e-2,
        "L-BFGS": 8.26e-3,
        "Adam + L-BFGS": 4.19e-3,
        "Adam + L-BFGS + NNCG": 1.94e-3,
    }
    return Equation(
        f"convection{beta:g}",
        ends,
        residuals,
        lambda: on_grid(ends, convected(beta)),
        dtype="float32",
        published=published if beta == 40 else {},
    )


def bump(x: tf.Tensor) -> tf.Tensor:
    """A Gaussian about π of standard deviation π/4, `[n, 1]`."""
    return tf.exp(-0.5 * tf.square((x[:, :1] - math.pi) / (math.pi / 4)))


def reacted(rho: float) -> Field:
    def field(x: tf.Tensor) -> tf.Tensor:
        grown = bump(x) * tf.exp(rho * x[:, 1:])
        return grown / (grown + 1 - bump(x))

    return field


def reaction(rho: float) -> Equation:
    def residuals(field: Field, points: Points) -> dict[str, tf.Tensor]:
        u, _, u_t = slopes(field, points.inside)
        return {
            "equation": u_t - rho * u * (1 - u),
            "initial": field(points.initial) - bump(points.initial),
            "boundary": field(points.left) - field(points.right),
        }

    ends = (0.0, 2 * math.pi)
    return Equation(
        "reaction",
        ends,
        residuals,
        lambda: on_grid(ends, reacted(rho)),
        dtype="float32",
        published={
            "Adam": 2.12e-2,
            "L-BFGS": 3.83e-2,
            "Adam + L-BFGS": 1.92e-2,
            "Adam + L-BFGS + NNCG": 9.92e-3,
        },
    )


def standing(beta: float) -> Field:
    """Two standing waves, of speed 2."""

    def field(x: tf.Tensor) -> tf.Tensor:
        place, time = math.pi * x[:, :1], 2 * math.pi * x[:, 1:]
        slow = tf.sin(place) * tf.cos(time)
        return slow + 0.5 * tf.sin(beta * place) * tf.cos(beta * time)

    return field


def wave(beta: float) -> Equation:
    def residuals(field: Field, points: Points) -> dict[str, tf.Tensor]:
        u_xx, u_tt = bends(field, points.inside)
        u, _, u_t = slopes(field, points.initial)
        return {
            "equation": u_tt - 4 * u_xx,
            "initial": u - standing(beta)(points.initial),
            "velocity": u_t,
            "left": field(points.left),
            "right": field(points.right),
        }

    ends = (0.0, 1.0)
    return Equation(
        "wave",
        ends,
        residuals,
        lambda: on_grid(ends, standing(beta)),
        dtype="float32",
        published={
            "Adam": 3.49e-1,
            "L-BFGS": 3.35e-1,
            "Adam + L-BFGS": 5.52e-2,
            "Adam + L-BFGS + NNCG": 1.27e-2,
        },
    )
