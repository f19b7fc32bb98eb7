"""Gradients that operations show to be a tape's own, and those of which they do not say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.loss import RecordedLoss, are_the_tapes
from tests.optimizer.test_gradient_check import EDITS

L = keras.layers
Loss = Callable[[], tf.Tensor]
Edit = Callable[[Sequence[tf.Tensor], Loss, Sequence[Any]], Sequence[tf.Tensor]]


def unchanged(gradients: Sequence[tf.Tensor], other: Loss, weights: Sequence[Any]) -> Any:
    return gradients


def told(loss: Loss, variables: Sequence[Any], edit: Edit = unchanged) -> bool:
    """What the graph of one tape, its gradients edited, is found to show."""
    answers = []

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        with tf.GradientTape(persistent=True) as tape:
            value = loss()
            another = tf.reduce_sum(tf.abs(value))
        gradients = tape.gradient(value, variables)
        edited = edit(gradients, lambda: tape.gradient(another, variables), variables)
        edited = [tf.convert_to_tensor(g) for g in edited]
        with tf.name_scope("optimizer"):
            answers.append(are_the_tapes(edited, RecordedLoss(value, variables)))
        return value

    step.get_concrete_function()
    (answer,) = answers
    return answer


def task(layers: Sequence[Any], shape: tuple[int, ...], integers: int = 0) -> Any:
    """The loss of a small model, of data that the graph has as constants, and its weights."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, *shape)).astype("float32")
    model = keras.Sequential([L.Input(shape), *layers, L.Flatten(), L.Dense(2)])
    data = tf.constant(np.abs(10 * x).astype("int32") % integers if integers else x)
    target = tf.constant(rng.normal(size=(6, 2)).astype("float32"))

    def loss() -> tf.Tensor:
        residual = model(data, training=True) - target
        return tf.reduce_mean(tf.square(residual)) + sum(model.losses)

    return loss, [v.value for v in model.trainable_variables]


class SelfAttention(L.Layer):
    """Of one input, so that it stands in a sequence of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = L.MultiHeadAttention(2, 3)

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.attention(x, x)


MODELS: dict[str, Callable[[], Any]] = {
    "dense": lambda: task([L.Dense(3, "tanh"), L.Dense(3, "relu")], (3,)),
    "penalty": lambda: task([L.Dense(3, "silu", kernel_regularizer="l2"), L.Dropout(0.3)], (3,)),
    "convolution": lambda: task(
        [L.Conv2D(2, 3, activation="gelu"), L.BatchNormalization(), L.AveragePooling2D(2)],
        (6, 6, 1),
    ),
    "attention": lambda: task([L.Dense(4), SelfAttention()], (4, 3)),
    "embedding": lambda: task([L.Embedding(4, 2), L.LayerNormalization()], (3,), 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_models_own_gradients_are_told(name: str) -> None:
    assert told(*MODELS[name]())


def test_gradients_in_inputs_are_told() -> None:
    """As in the residual of a differential equation."""
    w = tf.Variable([[0.3, -0.2]], name="w")
    x = tf.constant([[0.5], [1.0]])

    def loss() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            u = tf.reduce_sum(tf.tanh(x @ w), 1)
        return tf.reduce_mean(tf.square(tape.gradient(u, x) + x) + tf.square(u)[:, None])

    assert told(loss, [w])


def test_terms_of_a_sum_may_come_in_another_order() -> None:
    w = tf.Variable([1.0, 2.0])

    def reordered(gradients: Any, other: Loss, weights: Any) -> Any:
        # A tape adds up what several uses of a weight give.
        (total,) = gradients
        assert total.op.type == "AddN"
        return [tf.add_n(list(total.op.inputs)[::-1])]

    assert told(lambda: tf.reduce_sum(w * tf.exp(w)) + tf.reduce_sum(tf.sin(w)), [w], reordered)


@pytest.mark.parametrize("name", [name for name in EDITS if name not in ("frozen", "masked")])
def test_edited_gradients_are_not_told(name: str) -> None:
    assert not told(*MODELS["dense"](), EDITS[name])


EDITED = {
    "one of them": lambda g: [*g[:-1], 1.001 * g[-1]],
    "by nothing": lambda g: [g[0] + 0.0, *g[1:]],
    "exchanged": lambda g: [g[2], g[1], g[0], *g[3:]],
    "clipped far away": lambda g: [tf.clip_by_value(k, -1e9, 1e9) for k in g],
}


@pytest.mark.parametrize("name", [*EDITED, "by a number that changes"])
def test_what_is_done_after_the_tape_is_seen(name: str) -> None:
    w = [tf.Variable([1.0, 2.0]), tf.Variable([0.0, 1.0]), tf.Variable([3.0, 1.0])]
    number = tf.Variable(0.0)

    def edit(gradients: Any, other: Loss, weights: Any) -> Any:
        if name == "by a number that changes":
            return [gradients[0] * (1.0 - number), *gradients[1:]]
        return EDITED[name](gradients)

    def loss() -> tf.Tensor:
        return tf.reduce_sum(tf.exp(w[0]) * w[1] ** 2 + tf.sin(w[2]))

    assert told(loss, w) and not told(loss, w, edit)


def test_gradients_of_another_loss_are_not_told() -> None:
    w, constant = tf.Variable([1.0, 2.0]), tf.constant([1.0, 2.0])

    def of_others(gradients: Any, other: Loss, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.square(w - (constant + 1.0)))
        return [tape.gradient(value, w)]

    assert not told(lambda: tf.reduce_sum(tf.square(w - constant)), [w], of_others)


def test_weights_that_are_assigned_in_between_are_not_told() -> None:
    w = tf.Variable([1.0, 2.0])

    def loss() -> tf.Tensor:
        value = tf.reduce_sum(tf.square(w))
        w.assign(tf.zeros_like(w))
        return value + tf.reduce_sum(w)

    assert not told(loss, [w])


def test_of_a_loop_nothing_is_told() -> None:
    w = tf.Variable([1.0, 2.0])

    def loss() -> tf.Tensor:
        def body(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return k + 1, total + tf.reduce_sum(tf.sin(w))

        return tf.while_loop(lambda k, _: k < 3, body, (0, 0.0))[1]

    assert not told(loss, [w])
