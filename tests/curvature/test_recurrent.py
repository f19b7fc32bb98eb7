"""Recurrent layers: second derivatives against float64 finite differences of gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import hessian, hvp
from tests.curvature.test_layers import closure, data
from tests.derivatives import fd_product, get_flat, relative_error, set_precision

L = keras.layers


pytestmark = pytest.mark.usefixtures("double_precision")


def model_of(*layers, steps=4):
    return keras.Sequential([L.Input((steps, 2)), *layers, L.Dense(3)])


LAYERS = {
    "lstm": lambda: [L.LSTM(2)],
    "lstm unrolled": lambda: [L.LSTM(2, unroll=True)],
    "gru": lambda: [L.GRU(2)],
    "gru reset before": lambda: [L.GRU(2, reset_after=False)],
    "simple rnn": lambda: [L.SimpleRNN(3)],
    "simple rnn unrolled": lambda: [L.SimpleRNN(3, unroll=True)],
    "bidirectional": lambda: [L.Bidirectional(L.LSTM(2))],
    "backwards": lambda: [L.GRU(2, go_backwards=True)],
    "stacked": lambda: [L.LSTM(2, return_sequences=True), L.GRU(2)],
    "stacked bidirectional": lambda: [
        L.Bidirectional(L.SimpleRNN(2, return_sequences=True)),
        L.SimpleRNN(2, return_sequences=True),
        L.Flatten(),
    ],
    "masked": lambda: [L.Masking(), L.LSTM(2)],
    "cells": lambda: [L.RNN([L.LSTMCell(2), L.GRUCell(2)])],
    "time distributed": lambda: [L.TimeDistributed(L.Dense(2, "tanh")), L.SimpleRNN(2)],
}


def check(model, loss_fn, seed=0):
    """The Hessian times two random vectors, and `hvp`, against differences of gradients."""
    variables = model.trainable_variables
    (block,) = hessian(loss_fn, variables)
    rng = np.random.default_rng(seed)
    for v in rng.normal(size=(2, get_flat(variables).size)):
        expected = fd_product(loss_fn, variables, v)
        assert relative_error(block.matrix.numpy() @ v, expected) < 1e-9
    vectors, at = [], 0
    for variable in variables:
        size = int(np.prod(variable.shape))
        vectors.append(v[at : at + size].reshape(variable.shape))
        at += size
    product = np.concatenate([p.numpy().ravel() for p in hvp(loss_fn, variables, vectors)])
    assert relative_error(product, expected) < 1e-9


# Variations on the same theme, each several seconds long.
SLOW = {
    "stacked bidirectional",
    "gru reset before",
    "simple rnn unrolled",
    "backwards",
    "cells",
    "time distributed",
}


@pytest.mark.parametrize(
    "layers",
    [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in LAYERS],
)
def test_curvature_equals_finite_differences(layers):
    model = model_of(*LAYERS[layers](), steps=3)
    x, y = data((3, 2), n=5)
    x[1, 2:] = 0.0  # what `Masking` masks
    check(model, closure(model, x, y))


@pytest.mark.parametrize(
    "layer", [L.SimpleRNN, *(pytest.param(c, marks=pytest.mark.slow) for c in (L.LSTM, L.GRU))]
)
def test_a_number_of_time_steps_known_only_at_run_time(layer):
    model = model_of(layer(2, return_sequences=True), layer(2), steps=None)
    x, y = data((3, 2), n=5)
    length, traced = tf.Variable(3), []

    def loss_fn():
        # The length is read at run time, as in a dataset of sequences.
        sequences = tf.slice(x, [0, 0, 0], tf.stack([-1, tf.convert_to_tensor(length), -1]))
        traced.append(sequences.shape[1])
        return keras.losses.MeanSquaredError()(tf.one_hot(y, 3), model(sequences, training=True))

    check(model, loss_fn)
    assert set(traced) == {None}


def test_recurrent_dropout_keeps_its_mask():
    layer = L.LSTM(2, dropout=0.3, recurrent_dropout=0.4, seed=5)
    model = model_of(layer, steps=3)
    x, y = data((3, 2), n=5)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss_fn():
        layer.cell.seed_generator.state.assign([7, 11])
        return cross_entropy(y, model(x, training=True))

    check(model, loss_fn)


@pytest.mark.parametrize(
    "steps",
    [5, pytest.param(None, marks=pytest.mark.slow)],
    ids=["known length", "unknown length"],
)
def test_fit_on_an_lstm_lowers_the_loss_in_every_accepted_step(steps):
    set_precision("float32")
    optimizer = QNewton()
    model = keras.Sequential([L.Input((steps, 2)), L.LSTM(3), L.Dense(1)])
    x = np.random.default_rng(0).normal(size=(32, 5, 2)).astype("float32")
    y = np.sin(x.sum((1, 2)))[:, None]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([(x, y)]),
        output_signature=(
            tf.TensorSpec([None, steps, 2], tf.float32),
            tf.TensorSpec([None, 1], tf.float32),
        ),
    )
    model.compile(optimizer=optimizer, loss="mse")
    losses = model.fit(
        dataset.repeat(), steps_per_epoch=6, epochs=2, verbose=0, shuffle=False
    ).history["loss"]
    decisions = optimizer.decisions
    assert len(decisions) == 12
    assert all(d.loss_after <= d.loss for d in decisions if d.accepted)
    assert sum(d.accepted for d in decisions) >= 8
    assert decisions[-1].loss < 0.1 * decisions[0].loss
    assert losses[-1] < losses[0]
