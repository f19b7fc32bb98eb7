"""Derivatives of many functions by one trace, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.curvature import hvp
from keras_qnewton.loss import record
from tests.derivatives import differences, flat_gradient, split

D = tf.float64
START = np.random.default_rng(0).normal(size=(4, 4))
Function = Callable[[tf.Tensor], tf.Tensor]


class Derivatives(NamedTuple):
    """What there is of one function, `[4, 4]` each.

    Attributes:
        gradient: Of the loss run again.
        of_tensorflow: Of the loss itself.
        along: H v.
        measured: The same by differences of TensorFlow's gradients.
    """

    gradient: np.ndarray
    of_tensorflow: np.ndarray
    along: np.ndarray
    measured: np.ndarray


class ManyFunctions:
    """Σ exp(f(w)/2), of a function and a variable `[4, 4]` each: H has no part between two.

    Args:
        functions: By name.
        step: Of the differences, for each function.

    Attributes:
        values: The loss, and the loss run again.
        of: By name of a function, its derivatives.
    """

    def __init__(self, functions: Mapping[str, Function], step: float = 2e-4):
        variables = [tf.Variable(START) for _ in functions]

        def loss_fn() -> tf.Tensor:
            pairs = zip(functions.values(), variables, strict=True)
            values = [f(tf.convert_to_tensor(w)) for f, w in pairs]
            return tf.add_n([tf.reduce_sum(tf.exp(0.5 * tf.cast(v, D))) for v in values])

        @tf.function(autograph=False)
        def recorded() -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            loss = record(loss_fn, variables)
            weights = loss.at_variables()
            value, gradients = loss.value_and_gradients(weights)
            return loss.value, value, gradients

        gradient = flat_gradient(loss_fn, variables)
        direction = np.random.default_rng(1).normal(size=len(variables) * START.size)
        scaled = step * np.sqrt(len(variables))
        value, again, gradients = recorded()
        self.values = float(value), float(again)
        parts = zip(
            gradients,
            split(gradient(), variables),
            hvp(loss_fn, variables, split(direction, variables)),
            split(differences(gradient, variables, direction, scaled), variables),
            strict=True,
        )
        found = [Derivatives(*(np.asarray(t) for t in part)) for part in parts]
        self.of = dict(zip(functions, found, strict=True))
