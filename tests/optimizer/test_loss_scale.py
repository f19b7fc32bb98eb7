"""A factor of the loss changes no step, whatever its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, QNewton, QuasiNewton

STEPS = 5
# Powers of four: square roots of curvature are exact, too.
POWERS = {"float32": (-72, -50, 50, 100), "float64": (-900, -530, 530, 960)}
# Beyond these derivatives of single precision are denormal, and have fewer digits.
SCALES = {"float32": (1e-30, 1e30), "float64": (1e-290, 1e290)}

X = np.random.default_rng(0).normal(size=(24, 3))
Y = np.sin(X @ [1.0, -0.5, 0.3])[:, None]
LABELS = np.arange(24) % 3

Loss = Callable[[], tf.Tensor]


def perceptron(dtype: str, hidden: int, outputs: int) -> tuple[list[tf.Variable], Loss]:
    """Weights of a perceptron, and its outputs."""
    rng = np.random.default_rng(1)
    shapes = [(3, hidden), (hidden,), (hidden, outputs), (outputs,)]
    weights = [tf.Variable(rng.normal(size=shape) / 2, dtype=dtype) for shape in shapes]
    a, b, c, d = weights
    return weights, lambda: tf.tanh(tf.constant(X, dtype) @ a + b) @ c + d


def squares(dtype: str, hidden: int = 4) -> tuple[list[tf.Variable], Loss]:
    weights, outputs = perceptron(dtype, hidden, 1)
    return weights, lambda: tf.reduce_mean(tf.square(outputs() - tf.constant(Y, dtype)))


def entropy(dtype: str, hidden: int = 4) -> tuple[list[tf.Variable], Loss]:
    weights, logits = perceptron(dtype, hidden, 3)
    of_examples = tf.nn.sparse_softmax_cross_entropy_with_logits
    return weights, lambda: tf.reduce_mean(of_examples(LABELS, logits()))


def wide(dtype: str) -> tuple[list[tf.Variable], Loss]:
    return squares(dtype, hidden=60)


class Route(NamedTuple):
    problem: Callable[[str], tuple[list[tf.Variable], Loss]]
    settings: dict[str, Any]


ROUTES = {
    "formed": Route(squares, {}),
    "cross-entropy": Route(entropy, {}),
    "by layers": Route(entropy, {"blocks": "layer"}),
    "woodbury": Route(wide, {}),
    "saddle-free": Route(squares, {"curvature": "hessian"}),
    "shift": Route(
        squares, {"curvature": "hessian", "damping": Adaptive(negative_curvature="shift")}
    ),
    "not formed": Route(squares, {"blocks": Blocks("full", max_size=2)}),
    "not formed, indefinite": Route(
        squares,
        {
            "blocks": Blocks("full", max_size=2),
            "curvature": "hessian",
            "damping": Adaptive(negative_curvature="absolute"),
        },
    ),
}

# Before a quasi-Newton step knows curvature, and in second moments of gradients, a usual factor of
# the loss has a meaning; one beyond is taken out.
EXTREME = {
    "fisher": Route(entropy, {"curvature": "fisher"}),
    "dense inverse": Route(squares, {"curvature": "quasi_newton"}),
    "limited memory": Route(squares, {"curvature": QuasiNewton(update="lbfgs")}),
}


class Training:
    """A loss times a factor, trained from the same weights as often as wanted; traced once."""

    def __init__(self, route: Route, dtype: str):
        weights, loss = route.problem(dtype)
        factor = tf.Variable(1.0, dtype=dtype)
        optimizer = QNewton(**route.settings)
        optimizer.build(weights)
        self._weights, self._loss, self._factor = weights, loss, factor
        self._variables = [*weights, *optimizer.variables]
        self._start = [v.numpy() for v in self._variables]
        self._step = tf.function(
            lambda: optimizer.minimize(lambda: factor * loss(), weights), autograph=False
        )

    def weights_after(self, factor: float) -> np.ndarray:
        for variable, value in zip(self._variables, self._start, strict=True):
            variable.assign(value)
        self._factor.assign(factor)
        for _ in range(STEPS):
            self._step()
        return np.concatenate([w.numpy().ravel() for w in self._weights])

    def loss(self) -> float:
        return float(self._loss())


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_factor_of_the_loss_changes_no_step(route, dtype):
    training = Training(ROUTES[route], dtype)
    start = training.loss()
    plain = training.weights_after(1.0)
    assert training.loss() < start
    # TensorFlow adds in another order now and then: the last digits may differ.
    exact = 1e3 * np.finfo(dtype).eps
    for power in POWERS[dtype]:
        np.testing.assert_allclose(
            training.weights_after(2.0**power), plain, rtol=exact, atol=exact, err_msg=f"2^{power}"
        )
    reached = training.loss()
    for factor in SCALES[dtype]:
        training.weights_after(factor)
        np.testing.assert_allclose(training.loss(), reached, rtol=0.05, err_msg=f"{factor}")


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
@pytest.mark.parametrize("route", EXTREME)
def test_an_extreme_factor_of_the_loss_is_taken_out(route, dtype):
    training = Training(EXTREME[route], dtype)
    start = training.loss()
    first, *others = POWERS[dtype]
    reference = training.weights_after(2.0**first)
    assert training.loss() < 0.9 * start
    exact = 1e3 * np.finfo(dtype).eps
    for power in others:
        np.testing.assert_allclose(
            training.weights_after(2.0**power), reference, rtol=exact, atol=exact
        )
