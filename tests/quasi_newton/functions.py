"""Functions on a ray that line searches are tried on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_qnewton.quasi_newton.line_search import Point

Function = Callable[[tf.Tensor], tf.Tensor]


def _rounded_corner(beta: float) -> Function:
    """Moré & Thuente 1994, equation 5.3, with the wiggles of l = 39."""
    wiggles = 39.0

    def base(a: tf.Tensor) -> tf.Tensor:
        middle = 0.5 * (a - 1) ** 2 / beta + 0.5 * beta
        return tf.where(a <= 1 - beta, 1 - a, tf.where(a >= 1 + beta, a - 1, middle))

    return lambda a: base(a) + 2 * (1 - beta) / (wiggles * np.pi) * tf.sin(wiggles * np.pi / 2 * a)


def _yanai(beta1: float, beta2: float) -> Function:
    """Equation 5.4."""

    def gamma(beta: float) -> float:
        return np.sqrt(1 + beta**2) - beta

    return lambda a: (
        gamma(beta1) * tf.sqrt((1 - a) ** 2 + beta2**2) + gamma(beta2) * tf.sqrt(a**2 + beta1**2)
    )


# Each with the constants c₁ and c₂ of the paper's tables I to VI.
MORE_THUENTE = {
    "1": (lambda a: -a / (a**2 + 2), 1e-3, 1e-1),
    "2": (lambda a: (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4, 1e-1, 1e-1),
    "3": (_rounded_corner(0.01), 1e-1, 1e-1),
    "4": (_yanai(1e-3, 1e-3), 1e-3, 1e-3),
    "5": (_yanai(1e-2, 1e-3), 1e-3, 1e-3),
    "6": (_yanai(1e-3, 1e-2), 1e-3, 1e-3),
}


def on_a_ray(function: Function, dtype: tf.DType = tf.float64) -> Callable[[tf.Tensor], Point]:
    """`function` as what a search evaluates: its only weight is the step."""

    def evaluate(step: tf.Tensor) -> Point:
        weight = tf.cast(step, dtype)
        with tf.GradientTape() as tape:
            tape.watch(weight)
            value = function(weight)
        slope = tape.gradient(value, weight)
        return Point(
            step, tf.cast(value, tf.float64), tf.cast(slope, tf.float64), tf.reshape(slope, [1])
        )

    return evaluate
