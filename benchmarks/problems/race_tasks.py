"""The tasks of `race`, as losses of weights: a curve, diabetes, logistic regression and digits."""

from __future__ import annotations

import functools

import keras
import race
import tensorflow as tf

from .problem import Problem, Setup, Task


def _start(name: str, setup: Setup) -> Task:
    x, y, network, loss = race.task(name)
    keras.utils.set_random_seed(setup.seed)
    model = network()
    inputs, labels = tf.constant(x), tf.constant(y)

    def value() -> tf.Tensor:
        penalties = [tf.reduce_sum(term) for term in model.losses]
        return tf.add_n([loss(labels, model(inputs)), *penalties])

    return Task(model.trainable_variables, value, None)


RACE = tuple(
    Problem(f"race_{name}", functools.partial(_start, name), "float32") for name in race.TASKS
)
