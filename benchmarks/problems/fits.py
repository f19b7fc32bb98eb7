"""Problems without derivatives in the inputs.

    poisson2d   Poisson's equation on a square, 257 weights, of `physics` (it has derivatives)
    regression  Friedman's first function of ten inputs, 10,059 weights
    logistic    ten classes of scikit-learn's digits, 650 weights with a penalty: convex
    rosenbrock  a thousand variables in a chain

References:
    Friedman 1991, Annals of Statistics 19(1), section 4.3 (the function).
    Moré, Garbow & Hillstrom 1981, ACM TOMS 7(1); the chained form as in SciPy's `rosen`.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from common import digits
from physics import PROBLEMS, tf_loss

from .problem import Problem, Setup, Task, relative_error, tanh_network

EXAMPLES, FRESH = 1024, 4096
DIMENSIONS = 1000


def _poisson2d(setup: Setup) -> Task:
    problem = PROBLEMS["poisson2d"]
    points, weights = problem.start(setup.seed)
    network = tanh_network([2, len(weights[1]), 1], setup)
    network.set_weights(weights)
    fixed = [tf.constant(of, setup.dtype) for of in points]
    error_of = problem.error()
    return Task(
        network.trainable_variables,
        lambda: tf_loss(problem, network, fixed),
        lambda: error_of(network.get_weights()),
    )


def friedman(x: np.ndarray) -> np.ndarray:
    """Of the first five inputs, `[n, 10]` to `[n, 1]`, of about zero mean and unit variance."""
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    y += 10 * x[:, 3] + 5 * x[:, 4]
    return ((y - 14.4) / 4.9)[:, None]


def regression(setup: Setup, width: int = 94) -> Task:
    """Of inputs scaled to [-1, 1]; the error is that at fresh ones."""
    generator = np.random.default_rng(setup.seed)
    x, fresh = generator.uniform(size=(EXAMPLES, 10)), generator.uniform(size=(FRESH, 10))
    network = tanh_network([10, width, width, 1], setup)

    def centred(of: np.ndarray) -> tf.Tensor:
        return tf.constant(2 * of - 1, setup.dtype)

    inputs, outputs = centred(x), tf.constant(friedman(x), setup.dtype)
    return Task(
        network.trainable_variables,
        lambda: tf.reduce_mean(tf.square(network(inputs) - outputs)),
        relative_error(network, centred(fresh), friedman(fresh)),
    )


def _logistic(setup: Setup) -> Task:
    x, y = digits(1797)
    inputs, labels = tf.constant(x, setup.dtype), tf.constant(y)
    network = tanh_network([64, 10], setup)
    kernel = network.trainable_variables[0]

    def loss() -> tf.Tensor:
        entropy = keras.losses.sparse_categorical_crossentropy(
            labels, network(inputs), from_logits=True
        )
        return tf.reduce_mean(entropy) + 1e-4 * tf.reduce_sum(tf.square(kernel))

    return Task(network.trainable_variables, loss, None)


def _rosenbrock(setup: Setup) -> Task:
    """Starts at (-1.2, 1, -1.2, ...), moved a little by the seed."""
    start = np.tile([-1.2, 1.0], DIMENSIONS // 2)
    start += 0.01 * np.random.default_rng(setup.seed).normal(size=DIMENSIONS)
    x = keras.Variable(start, dtype=setup.dtype, name="x")

    def loss() -> tf.Tensor:
        v = tf.convert_to_tensor(x)
        return tf.reduce_sum(100 * tf.square(v[1:] - tf.square(v[:-1])) + tf.square(1 - v[:-1]))

    def error() -> float:
        return float(np.linalg.norm(x.numpy() - 1) / np.sqrt(DIMENSIONS))

    return Task([x], loss, error)


POISSON2D = Problem(
    "poisson2d",
    _poisson2d,
    # Best runs of arXiv 2405.15603, 1,000 s on a GPU.
    published={"SGD": 2.7e-5, "Adam": 9.4e-5, "L-BFGS": 1.6e-4, "KFAC": 2.0e-7, "ENGD": 6.2e-8},
)
REGRESSION = Problem("regression", regression, "float32")
LOGISTIC = Problem("logistic", _logistic)
ROSENBROCK = Problem("rosenbrock", _rosenbrock)
