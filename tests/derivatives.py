"""Second derivatives by finite differences of gradients: the reference for curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

# Central differences of order 8: weights of f(x + k h) - f(x - k h), k = 1..4.
_STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)


LossFunction: TypeAlias = Callable[[], tf.Tensor]
Variables: TypeAlias = Sequence[tf.Variable | keras.Variable]


def set_precision(dtype: str) -> None:
    """The precision of models and losses made from now on: "float32" or "float64"."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def values(variables: Variables) -> list[tf.Variable]:
    return [
        v.value if hasattr(v, "value") and not isinstance(v, tf.Variable) else v for v in variables
    ]


def get_flat(variables: Variables) -> np.ndarray:
    return np.concatenate([v.numpy().ravel() for v in values(variables)])


def set_flat(variables: Variables, flat: np.ndarray) -> None:
    for v, part in zip(values(variables), split(flat, variables), strict=True):
        v.assign(part)


def split(flat: np.ndarray, variables: Variables) -> list[np.ndarray]:
    """A flat vector `[N]` as one array a variable, of its shape."""
    cuts = np.cumsum([np.prod(v.shape, dtype=int) for v in variables])[:-1]
    return [u.reshape(v.shape) for u, v in zip(np.split(flat, cuts), variables, strict=True)]


def flat_gradient(loss_fn: LossFunction, variables: Variables) -> Callable[[], np.ndarray]:
    """Gradient by one plain gradient tape, without the package under test."""
    tensors = values(variables)

    @tf.function(autograph=False)
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_fn()
        gradients = tape.gradient(loss, tensors, unconnected_gradients="zero")
        return tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    return lambda: gradient().numpy()


def differences(
    gradient: Callable[[], np.ndarray],
    variables: Variables,
    direction: np.ndarray,
    step: float = 2e-4,
) -> np.ndarray:
    """H v in float64 to about 1e-11 relative, for functions smooth on the scale of `step`.

    Args:
        gradient: The flat gradient `[N]` at the variables' values of the time.
        variables: Restored to their present values.
        direction: v `[N]`.
        step: Norm of the change of the weights between two evaluations; up to four are made
            in either direction.
    """
    start = get_flat(variables)
    h = step / np.linalg.norm(direction)
    total = np.zeros_like(start)
    for k, weight in enumerate(_STENCIL, start=1):
        for sign in (1, -1):
            set_flat(variables, start + sign * k * h * direction)
            total += sign * weight * gradient()
    set_flat(variables, start)
    return total / h


def fd_product(
    loss_fn: LossFunction,
    variables: Variables,
    direction: np.ndarray,
    step: float = 2e-4,
) -> np.ndarray:
    """H v; see `differences`."""
    return differences(flat_gradient(loss_fn, variables), variables, direction, step)


def fd_hessian(loss_fn: LossFunction, variables: Variables) -> np.ndarray:
    """The whole Hessian, column by column."""
    gradient = flat_gradient(loss_fn, variables)
    basis = np.eye(get_flat(variables).size)
    return np.stack([differences(gradient, variables, e) for e in basis], axis=1)


def relative_error(a: ArrayLike, b: ArrayLike) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))
