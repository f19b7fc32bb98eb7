"""Gauss-Newton blocks of losses with loops that stay loops, against JᵀCJ.

J is TensorFlow's own Jacobian of z, one backward pass a row, and C that of a cross-entropy by its
formula, diag(p) - ppᵀ, or of a sum of squares, 2. All is in float64.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from tests.derivatives import relative_error

L = keras.layers
pytestmark = pytest.mark.usefixtures("double_precision")

B = 4


def jacobian(outputs, variables):
    """z and dz/dw `[*z.shape, N]`."""

    @tf.function(autograph=False)
    def differentiated():
        with tf.GradientTape() as tape:
            z = outputs()
        return z, tape.jacobian(z, variables, experimental_use_pfor=False)

    z, columns = differentiated()
    return z.numpy(), np.concatenate([j.numpy().reshape(*z.shape, -1) for j in columns], -1)


def of_cross_entropy(outputs, variables):
    z, j = jacobian(outputs, variables)
    p = tf.nn.softmax(z).numpy()
    curvature = np.eye(p.shape[1]) * p[:, None] - p[:, :, None] * p[:, None]
    return np.einsum("bci,bcd,bdj->ij", j, curvature / len(p), j)


def of_squares(outputs, variables):
    _, j = jacobian(outputs, variables)
    flat = j.reshape(-1, j.shape[-1])
    return 2 * flat.T @ flat


def cross_entropy(z):
    classes = tf.range(tf.shape(z)[0]) % 3
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, z))


def block_of(loss, variables, *signature):
    """The matrix of all weights, and how it is formed, as a function of the loss's arguments."""

    @tf.function(autograph=False, input_signature=signature)
    def block(*arguments):
        recorded = record(lambda: loss(*arguments), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    return block


def sequences(steps):
    return np.random.default_rng(steps).normal(size=(B, steps, 2))


MODELS = {
    "LSTM, 28 steps": (28, 3, lambda: [L.LSTM(2)]),
    "LSTM, 100 steps": (100, 3, lambda: [L.LSTM(2)]),
    "GRU": (34, 3, lambda: [L.GRU(2)]),
    "more outputs than are passed back one by one": (12, 6, lambda: [L.SimpleRNN(2)]),
    "bidirectional": (12, 3, lambda: [L.Bidirectional(L.SimpleRNN(2))]),
    "stacked": (34, 3, lambda: [L.SimpleRNN(2, return_sequences=True), L.LSTM(2)]),
    "masked": (12, 3, lambda: [L.Masking(), L.GRU(2)]),
    "dense layers before and after": (
        12,
        3,
        lambda: [
            L.TimeDistributed(L.Dense(2, "tanh")),
            L.SimpleRNN(2, return_sequences=True),
            L.Dense(2),
            L.GlobalAveragePooling1D(),
        ],
    ),
    "convolutions in the loop": (
        12,
        3,
        lambda: [L.Reshape((12, 2, 1, 1)), L.ConvLSTM2D(1, (2, 1), padding="same"), L.Flatten()],
    ),
    "no layer after the loop": (12, 3, lambda: [L.SimpleRNN(3)]),
    "cells": (12, 3, lambda: [L.RNN([L.LSTMCell(2), L.GRUCell(2, reset_after=False)])]),
}
SLOW = {"bidirectional", "masked", "convolutions in the loop", "cells"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS]
)
def test_recurrent_layers_have_rows(name):
    keras.utils.set_random_seed(0)
    steps, classes, layers = MODELS[name]
    last = [] if name == "no layer after the loop" else [L.Dense(classes)]
    model = keras.Sequential([L.Input((steps, 2)), *layers(), *last])
    x = sequences(steps)
    x[1, -3:] = 0.0  # what `Masking` masks
    x = tf.constant(x)
    variables = as_tensors(model.trainable_variables)
    expected = of_cross_entropy(lambda: model(x), variables)
    matrix, how = block_of(lambda: cross_entropy(model(x)), variables)()
    assert Formation(int(how)) is Formation.ROWS
    assert relative_error(matrix, expected) < 1e-10


@pytest.mark.parametrize("examples", [B, pytest.param(None, marks=pytest.mark.slow)])
def test_a_number_of_steps_known_only_at_run_time(examples):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((None, 2)), L.GRU(2), L.Dense(3)])
    variables = as_tensors(model.trainable_variables)
    signature = tf.TensorSpec([examples, None, 2], tf.float64)
    block = block_of(lambda x: cross_entropy(model(x)), variables, signature)
    for steps in (5, 11):
        x = tf.constant(sequences(steps))
        matrix, how = block(x)
        assert Formation(int(how)) is Formation.ROWS
        expected = of_cross_entropy(lambda x=x: model(x), variables)
        assert relative_error(matrix, expected) < 1e-10


def start_and_weights():
    rng = np.random.default_rng(1)
    return tf.constant(rng.normal(size=(B, 2))), tf.Variable(rng.normal(size=(2, 2)))


def test_a_loop_that_makes_no_turn():
    """Its list of time steps is empty, so that there is not one to look at beforehand."""
    x, w = start_and_weights()
    variables = as_tensors([w])

    def outputs(n):
        steps = tf.TensorArray(tf.float64, n, element_shape=[B, 2]).unstack(
            tf.repeat(x[None], n, axis=0)
        )

        def turn(i, h):
            return i + 1, tf.tanh(tf.matmul(h + steps.read(i), w))

        return tf.while_loop(lambda i, h: i < n, turn, [0, tf.matmul(x, w)])[1]

    block = block_of(
        lambda n: tf.reduce_sum(outputs(n) ** 2), variables, tf.TensorSpec([], tf.int32)
    )
    for n in (0, 3):
        matrix, how = block(n)
        assert Formation(int(how)) is Formation.ROWS
        assert relative_error(matrix, of_squares(lambda n=n: outputs(n), variables)) < 1e-10


def reason(how):
    """Why there are no rows of uses, whichever way was taken instead."""
    first, reasons = Formation.LOOP, Formation.MEMORY - Formation.LOOP + 1
    return Formation(first + (how - first) % reasons)


def growing(x, w):
    """Every turn adds a row to the state, and all rows are multiplied by w."""

    def turn(i, h):
        new = tf.tanh(tf.reduce_sum(tf.matmul(h, w), 0, keepdims=True))
        return i + 1, tf.concat([h, new], 0)

    shapes = [tf.TensorShape([]), tf.TensorShape([None, 2])]
    return tf.while_loop(lambda i, h: i < 12, turn, [0, x], shape_invariants=shapes)[1][-2:]


def until_small(x, w):
    """The number of turns depends on the weights."""
    return tf.while_loop(
        lambda h: tf.reduce_sum(h**2) > 0.1, lambda h: [0.8 * tf.tanh(tf.matmul(h, w))], [x]
    )[0]


def loop_in_a_loop(x, w):
    def inner(h):
        return tf.while_loop(
            lambda j, h: j < 10, lambda j, h: (j + 1, tf.tanh(tf.matmul(h, w))), [0, h]
        )[1]

    return tf.while_loop(lambda i, h: i < 34, lambda i, h: (i + 1, inner(h) + x), [0, x])[1]


def examples_that_meet(x, w):
    """Each turn mixes the examples."""

    def turn(i, h):
        return i + 1, tf.tanh(tf.matmul(h, w) + tf.reduce_mean(h, 0))

    return tf.while_loop(lambda i, h: i < 40, turn, [0, x])[1]


@pytest.mark.parametrize(
    ("outputs", "examples", "ways"),
    [
        (growing, B, {Formation.OUTPUT}),  # in line, where rows are not those of examples
        (growing, None, {Formation.OUTPUT, Formation.REFUTED}),
        (until_small, B, {Formation.LOOP}),
        (loop_in_a_loop, B, {Formation.LOOP}),
        (examples_that_meet, B, {Formation.REFUTED}),
    ],
)
def test_other_loops_suppose_nothing(outputs, examples, ways):
    x, w = start_and_weights()
    variables = as_tensors([w])
    signature = tf.TensorSpec([examples, 2], tf.float64)
    block = block_of(lambda x: tf.reduce_sum(outputs(x, w) ** 2), variables, signature)
    matrix, how = block(x)
    assert reason(int(how)) in ways
    assert relative_error(matrix, of_squares(lambda: outputs(x, w), variables)) < 1e-10


@pytest.mark.slow
def test_loops_are_run_in_line_where_a_block_has_no_rows_otherwise():
    """Products with unit vectors are vectorised then."""
    model = keras.Sequential([L.Input((12, 2)), L.SimpleRNN(2), L.BatchNormalization(), L.Dense(3)])
    x = tf.constant(sequences(12))
    variables = as_tensors(model.trainable_variables)

    def outputs():
        return model(x, training=True)

    expected = of_cross_entropy(outputs, variables)
    matrix, how = block_of(lambda: cross_entropy(outputs()), variables)()
    assert reason(int(how)) is Formation.NOT_LINEAR
    assert relative_error(matrix, expected) < 1e-10
