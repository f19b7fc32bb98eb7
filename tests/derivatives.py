"""Second derivatives by finite differences of gradients: the reference for curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

# Central differences of order 8: weights of f(x + k h) - f(x - k h), k = 1..4.
_STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)


def set_precision(dtype: str) -> None:
    """The precision of models and losses made from now on: "float32" or "float64"."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def values(variables: Sequence) -> list[tf.Variable]:
    return [
        v.value if hasattr(v, "value") and not isinstance(v, tf.Variable) else v for v in variables
    ]


def get_flat(variables: Sequence) -> np.ndarray:
    return np.concatenate([v.numpy().ravel() for v in values(variables)])


def set_flat(variables: Sequence, flat: np.ndarray) -> None:
    at = 0
    for v in values(variables):
        n = int(np.prod(v.shape))
        v.assign(flat[at : at + n].reshape(v.shape))
        at += n


def flat_gradient(loss_fn: Callable, variables: Sequence) -> Callable[[], np.ndarray]:
    """Gradient by one plain gradient tape, without the package under test."""
    tensors = values(variables)

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            loss = loss_fn()
        gradients = tape.gradient(loss, tensors, unconnected_gradients="zero")
        return tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    return lambda: gradient().numpy()


def fd_product(
    loss_fn: Callable, variables: Sequence, direction: np.ndarray, step: float = 2e-4
) -> np.ndarray:
    """H v in float64 to about 1e-11 relative, for functions smooth on the scale of `step`."""
    return _fd_products(loss_fn, variables, [direction], step)[0]


def _fd_products(loss_fn, variables, directions, step=2e-4):
    gradient = flat_gradient(loss_fn, variables)
    start = get_flat(variables)
    products = []
    for direction in directions:
        h = step / np.linalg.norm(direction)
        total = np.zeros_like(start)
        for k, weight in enumerate(_STENCIL, start=1):
            for sign in (1, -1):
                set_flat(variables, start + sign * k * h * direction)
                total += sign * weight * gradient()
        products.append(total / h)
    set_flat(variables, start)
    return products


def fd_hessian(loss_fn: Callable, variables: Sequence) -> np.ndarray:
    """The whole Hessian, column by column."""
    n = get_flat(variables).size
    return np.stack(_fd_products(loss_fn, variables, np.eye(n)), axis=1)


def relative_error(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))
