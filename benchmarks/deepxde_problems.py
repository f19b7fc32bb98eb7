"""Problems of DeepXDE's examples, each with its points, its network and a reference solution.

Equations, domains, numbers of points, networks, constraints and learning rates are those of
github.com/lululxvi/deepxde, examples/pinn_forward and examples/pinn_inverse, by these names:

    poisson     Poisson_Dirichlet_1d      -u'' = π² sin πx
    diffusion   diffusion_1d              ∂u/∂t = ∂²u/∂x² + f, closed solution
    burgers     Burgers                   ∂u/∂t + u ∂u/∂x = (0.01/π) ∂²u/∂x²
    helmholtz   Helmholtz_Dirichlet_2d    -Δu = k²u + f, the boundary built into the network
    system      ode_system                two equations, y' = z and z' = -y on [0, 10]
    inverse     diffusion_1d_inverse      diffusion, a `dde.Variable` as its factor

Burgers' reference is the Cole-Hopf integral, by quadrature.

References:
    Basdevant et al. 1986, Computers & Fluids 14(1), equation 2.5 (Burgers, by Cole and Hopf).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("DDE_BACKEND", "tensorflow")

import deepxde as dde
import numpy as np
import tensorflow as tf

VISCOSITY = 0.01 / np.pi


@dataclasses.dataclass(frozen=True)
class Example:
    """A problem as DeepXDE has it.

    Attributes:
        data: Equation and conditions with their points, a `deepxde.data.PDE`.
        net: The network.
        solution: From points `[n, d]` to the reference `[n, outputs]`.
        looked_at: Points `[n, d]` of the L2 error.
        learning_rate: Adam's in the example.
        unknowns: Weights that are no layer's.
        true_values: What they are.
    """

    data: Any
    net: Any
    solution: Callable[[np.ndarray], np.ndarray]
    looked_at: np.ndarray
    learning_rate: float = 1e-3
    unknowns: Sequence[tf.Variable] = ()
    true_values: Sequence[float] = ()


def _network(sizes: Sequence[int], activation: str = "tanh", start: str = "uniform") -> Any:
    return dde.nn.FNN(list(sizes), activation, f"Glorot {start}")


def _everywhere(x: np.ndarray, on_it: bool) -> bool:
    """DeepXDE asks of each point whether a condition is to hold there."""
    del x
    return on_it


def _grid(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)


# --- one dimension ------------------------------------------------------------------------


def poisson() -> Example:
    def equation(x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        return -dde.grad.hessian(u, x) - np.pi**2 * tf.sin(np.pi * x)

    def solution(x: np.ndarray) -> np.ndarray:
        return np.sin(np.pi * x)

    interval = dde.geometry.Interval(-1, 1)
    ends = dde.icbc.DirichletBC(interval, solution, _everywhere)
    data = dde.data.PDE(interval, equation, ends, 16, 2)
    return Example(data, _network([1, 50, 50, 50, 1]), solution, np.linspace(-1, 1, 200)[:, None])


def system() -> Example:
    def equations(x: tf.Tensor, u: tf.Tensor) -> list[tf.Tensor]:
        y, z = u[:, :1], u[:, 1:]
        return [dde.grad.jacobian(u, x, i=0) - z, dde.grad.jacobian(u, x, i=1) + y]

    def solution(x: np.ndarray) -> np.ndarray:
        return np.hstack([np.sin(x), np.cos(x)])

    time = dde.geometry.TimeDomain(0, 10)
    begin = [
        dde.icbc.IC(time, lambda x: 0.0, _everywhere, component=0),
        dde.icbc.IC(time, lambda x: 1.0, _everywhere, component=1),
    ]
    data = dde.data.PDE(time, equations, begin, 35, 2)
    return Example(data, _network([1, 50, 50, 50, 2]), solution, np.linspace(0, 10, 200)[:, None])


# --- place and time -----------------------------------------------------------------------


def _decay(x: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * x[:, :1]) * np.exp(-x[:, 1:])


def _diffusion(factor: Any, conditions: Callable[[Any], list[Any]], **points: Any) -> Any:
    """∂u/∂t = factor·∂²u/∂x² + f, where f belongs to the factor 1 and `_decay`."""

    def equation(x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        source = tf.exp(-x[:, 1:]) * (1 - np.pi**2) * tf.sin(np.pi * x[:, :1])
        return dde.grad.jacobian(u, x, j=1) - factor * dde.grad.hessian(u, x) + source

    domain = _place_and_time(1.0)
    return dde.data.TimePDE(
        domain,
        equation,
        [
            dde.icbc.DirichletBC(domain, _decay, _everywhere),
            dde.icbc.IC(domain, _decay, _everywhere),
            *conditions(domain),
        ],
        num_domain=40,
        num_boundary=20,
        num_initial=10,
        **points,
    )


def _place_and_time(end: float) -> Any:
    return dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0, end))


_SQUARE = _grid(np.linspace(-1, 1, 60), np.linspace(0, 1, 60))


def diffusion() -> Example:
    data = _diffusion(1.0, lambda domain: [])
    return Example(data, _network([2, 32, 32, 32, 1]), _decay, _SQUARE)


def inverse() -> Example:
    factor = dde.Variable(2.0, dtype=dde.config.real(tf))
    seen = np.stack([np.linspace(-1, 1, 10), np.ones(10)], 1)
    data = _diffusion(
        factor, lambda domain: [dde.icbc.PointSetBC(seen, _decay(seen))], anchors=seen
    )
    net = _network([2, 32, 32, 32, 1])
    return Example(data, net, _decay, _SQUARE, unknowns=[factor], true_values=[1.0])


def burgers() -> Example:
    def equation(x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        slopes = dde.grad.jacobian(u, x, i=0, j=0), dde.grad.jacobian(u, x, i=0, j=1)
        return slopes[1] + u * slopes[0] - VISCOSITY * dde.grad.hessian(u, x)

    domain = _place_and_time(0.99)
    conditions = [
        dde.icbc.DirichletBC(domain, lambda x: 0.0, _everywhere),
        dde.icbc.IC(domain, lambda x: -np.sin(np.pi * x[:, :1]), _everywhere),
    ]
    data = dde.data.TimePDE(
        domain, equation, conditions, num_domain=2540, num_boundary=80, num_initial=160
    )
    looked_at = _grid(np.linspace(-1, 1, 256), np.linspace(0, 0.99, 100))
    return Example(data, _network([2, 20, 20, 20, 1], start="normal"), cole_hopf, looked_at)


def cole_hopf(x: np.ndarray) -> np.ndarray:
    """u of Burgers' equation at places and times `[n, 2]`, from u = -sin πx at time 0; `[n, 1]`.

    u = -∫ sin π(x - η) w dη / ∫ w dη,  w = exp(-cos π(x - η) / 2πν - η² / 4νt)

    The trapezoidal rule in η/√(4νt) converges faster than any power: w and all its derivatives
    vanish at the ends.
    """
    z = np.linspace(-14, 14, 1401)
    out = np.empty((len(x), 1))
    for begin in range(0, len(x), 1000):
        place, time = x[begin : begin + 1000, :1], x[begin : begin + 1000, 1:]
        argument = np.pi * (place - np.sqrt(4 * VISCOSITY * time) * z)
        exponent = -np.cos(argument) / (2 * np.pi * VISCOSITY) - z**2
        weight = np.exp(exponent - exponent.max(1, keepdims=True))
        mean = (np.sin(argument) * weight).sum(1) / weight.sum(1)
        out[begin : begin + 1000, 0] = -mean
    return out


# --- two dimensions -----------------------------------------------------------------------


def helmholtz() -> Example:
    """Two waves a side, ten points a wave; the sine network is 2-150-150-150-1."""
    k = 4 * np.pi

    def equation(x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        second = [dde.grad.hessian(u, x, i=i, j=i) for i in range(2)]
        source = k**2 * tf.sin(k * x[:, :1]) * tf.sin(k * x[:, 1:])
        return -second[0] - second[1] - k**2 * u - source

    def solution(x: np.ndarray) -> np.ndarray:
        return np.sin(k * x[:, :1]) * np.sin(k * x[:, 1:])

    def zero_at_the_boundary(x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        return x[:, :1] * (1 - x[:, :1]) * x[:, 1:] * (1 - x[:, 1:]) * u

    square = dde.geometry.Rectangle([0, 0], [1, 1])
    data = dde.data.PDE(square, equation, [], num_domain=400, num_boundary=80)
    net = _network([2, 150, 150, 150, 1], "sin")
    net.apply_output_transform(zero_at_the_boundary)
    side = np.linspace(0, 1, 61)
    return Example(data, net, solution, _grid(side, side))


EXAMPLES: dict[str, Callable[[], Example]] = {
    "poisson": poisson,
    "diffusion": diffusion,
    "burgers": burgers,
    "helmholtz": helmholtz,
    "system": system,
    "inverse": inverse,
}
