"""Recurrent layers: second derivatives against float64 finite differences of gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from tests.curvature.test_layers import check, closure, data
from tests.derivatives import set_precision

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
    check(closure(model, x, y), model.trainable_variables)


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

    check(loss_fn, model.trainable_variables)
    assert set(traced) == {None}


@pytest.mark.slow
def test_recurrent_dropout_keeps_its_mask():
    layer = L.LSTM(2, dropout=0.3, recurrent_dropout=0.4, seed=5)
    model = model_of(layer, steps=3)
    x, y = data((3, 2), n=5)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss_fn():
        layer.cell.seed_generator.state.assign([7, 11])
        return cross_entropy(y, model(x, training=True))

    check(loss_fn, model.trainable_variables)


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
