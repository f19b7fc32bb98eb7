"""The methods that `benchmarks/pinn.py` compares, one step at a time: of Keras, and of JAX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.flatten_util
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow as tf
from physics import Points, Problem, keras_network, tf_loss

from keras_qnewton import Adaptive, QNewton

# How many times a step of Levenberg-Marquardt raises λ before it gives up.
ATTEMPTS = 12


class Method(Protocol):
    """What takes steps; the first comes with the object, and compiles."""

    label: str
    # Steps from one look at the error to the next: a look must not take longer than they do.
    look_every: int
    # Steps that were taken when the seconds begin.
    taken: int

    def step(self, points: Points | None) -> float:
        """The loss before the step, on these points; None for those of the start."""
        ...

    def weights(self) -> list[np.ndarray]: ...


class _InKeras:
    """A step of a Keras optimizer, compiled: on fixed points, or on points as arguments."""

    look_every = 1
    taken = 1

    def __init__(self, problem: Problem, seed: int, resample: bool):
        self._points, weights = problem.start(seed)
        self.model = keras_network(weights)
        fixed = tuple(tf.constant(of) for of in self._points)

        def on_points(*points: tf.Tensor) -> tf.Tensor:
            return self.update(lambda: tf_loss(problem, self.model, points))

        # Points that stay are constants, as they are in users' losses.
        self._step = tf.function(
            on_points if resample else lambda: on_points(*fixed), autograph=False
        )
        self._resample = resample
        self.step(None)

    def update(self, loss: Callable[[], tf.Tensor]) -> tf.Tensor:
        raise NotImplementedError

    def step(self, points: Points | None) -> float:
        if not self._resample:
            return float(self._step())
        return float(self._step(*map(tf.constant, points or self._points)))

    def weights(self) -> list[np.ndarray]:
        return self.model.get_weights()


class Ours(_InKeras):
    label = "QNewton()"

    def __init__(self, problem: Problem, seed: int, resample: bool):
        self.optimizer = self.make_optimizer()
        super().__init__(problem, seed, resample)

    def make_optimizer(self) -> QNewton:
        return QNewton()

    def update(self, loss: Callable[[], tf.Tensor]) -> tf.Tensor:
        return self.optimizer.minimize(loss, self.model.trainable_variables)


class Unaveraged(Ours):
    """Whose steps are not shared among batches, though points change."""

    label = "QNewton(), memory=1"

    def make_optimizer(self) -> QNewton:
        return QNewton(damping=Adaptive(memory=1))


class Adam(_InKeras):
    label = "Adam(0.001)"
    look_every = 10

    def __init__(self, problem: Problem, seed: int, resample: bool):
        self._optimizer = keras.optimizers.Adam()
        super().__init__(problem, seed, resample)

    def update(self, loss: Callable[[], tf.Tensor]) -> tf.Tensor:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, [v.value for v in variables])
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value


class JaxLevenbergMarquardt:
    """Min ‖r‖² by (JᵀJ + λI) d = Jᵀr. λ falls as the trust ratio is high, times 8 if it is not."""

    label = "JAX LM"
    look_every = 1
    taken = 0

    def __init__(self, problem: Problem, seed: int, resample: bool):
        del resample  # points are arguments either way: that is no slower
        points, weights = problem.start(seed)
        self._weights, self._unravel = jax.flatten_util.ravel_pytree(weights)
        self._points = jax.tree.map(jnp.asarray, points)
        self._damping: float | None = None
        self._compile(problem)
        gram, gradient, _ = self._linearized(self._weights, self._points)
        self._loss(self._weights, self._points)
        self._solved(gram, gradient, 1.0)
        jax.block_until_ready(jnp.linalg.eigvalsh(gram))

    def _compile(self, problem: Problem) -> None:
        def network(flat: Any, x: Any) -> Any:
            first, bias, last, shift = self._unravel(flat)
            return (jnp.tanh(x @ first + bias) @ last + shift)[0]

        def inside(flat: Any, x: Any, source: Any) -> Any:
            slopes, hessian = jax.grad(network, 1)(flat, x), jax.hessian(network, 1)(flat, x)
            return problem.equation(slopes, [hessian[k, k] for k in problem.second_in], source[0])

        def at_condition(flat: Any, x: Any, given: Any) -> Any:
            return network(flat, x) - given[0]

        def rows(of: Callable[..., Any], flat: Any, points: Points) -> Any:
            """Both parts in one, each by the root of its number: the loss is the sum of squares."""
            parts = (
                (inside, points.interior, points.source),
                (at_condition, points.conditions, points.given),
            )
            mapped = [
                jax.vmap(of(residual), (None, 0, 0))(flat, x, y) / math.sqrt(len(x))
                for residual, x, y in parts
            ]
            return jnp.concatenate(mapped)

        @jax.jit
        def linearized(flat: Any, points: Points) -> Any:
            residuals = rows(lambda residual: residual, flat, points)
            jacobian = rows(jax.grad, flat, points)
            return jacobian.T @ jacobian, jacobian.T @ residuals, jnp.sum(residuals**2)

        @jax.jit
        def loss(flat: Any, points: Points) -> Any:
            return jnp.sum(rows(lambda residual: residual, flat, points) ** 2)

        @jax.jit
        def solved(gram: Any, gradient: Any, damping: Any) -> Any:
            """The step, and what it takes off the loss by the model."""
            system = gram + damping * jnp.eye(len(gram))
            d = jax.scipy.linalg.solve(system, gradient, assume_a="pos")
            return d, 2 * d @ gradient - d @ (gram @ d)

        self._linearized, self._loss, self._solved = linearized, loss, solved

    def step(self, points: Points | None) -> float:
        at = self._points if points is None else points
        gram, gradient, value = self._linearized(self._weights, at)
        before = float(value)
        if self._damping is None:
            self._damping = 1e-2 * float(jnp.linalg.eigvalsh(gram)[-1])
        for _ in range(ATTEMPTS):
            d, predicted = self._solved(gram, gradient, self._damping)
            after = float(self._loss(self._weights - d, at))
            ratio = (before - after) / float(predicted)
            if ratio > 0.25:
                break
            self._damping *= 8
        if after < before:
            self._weights = self._weights - d
            if ratio > 0.5:
                self._damping *= max(0.25, 1 - (2 * ratio - 1) ** 2)
        return before

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(of) for of in self._unravel(self._weights)]


IN_TURNS = {"jax": JaxLevenbergMarquardt, "adam": Adam}
