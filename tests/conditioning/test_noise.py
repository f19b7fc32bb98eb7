"""Whether data are found to change from step to step, and what that does to steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, QNewton
from keras_qnewton.conditioning import data_changed
from tests.blocks import variable
from tests.derivatives import get_flat

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 4)).astype("float32")
Y = np.sin(X @ RNG.normal(size=(4, 1))).astype("float32")


def trained(optimizer, epochs, batch_size=96, dropout=0.0, **fit):
    keras.utils.set_random_seed(0)
    layers = [L.Dense(6, activation="tanh"), L.Dropout(dropout, seed=1), L.Dense(1)]
    model = keras.Sequential([L.Input((4,)), *layers])
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(X, Y, batch_size=batch_size, epochs=epochs, verbose=0, **fit)
    return model


def test_rounding_is_no_change_and_another_batch_is():
    weights, gradients = [tf.constant([1.0, -2.0])], [tf.constant([1e-6, 1e-6])]

    def changed(then, now):
        return bool(data_changed(tf.constant(then), tf.constant(now), weights, gradients))

    assert not changed(0.5, 0.5 * (1 + 1e-6))
    assert changed(0.5, 0.5001)
    assert not changed(float("nan"), 0.5)  # before the first step
    # The loss of a model that fits is all rounding: of residuals, not of the loss itself.
    assert not changed(1e-14, 2e-14)
    assert changed(1e-14, 1e-9)


def test_rounding_at_a_minimum_above_zero_is_no_change():
    """Residuals of 1e-3 that are differences of numbers near 1, as those of a curve fit."""
    weights, gradients = [tf.constant([1.0, 1.0], tf.float64)], [tf.zeros(2, tf.float64)]
    residuals = 1e-3 * np.cos(np.arange(33.0))
    loss = np.sum(residuals**2)
    rounded = np.sum((1 + residuals - 1 + 4e-16) ** 2)
    assert rounded != loss
    assert not data_changed(tf.constant(loss), tf.constant(rounded), weights, gradients)
    assert data_changed(tf.constant(loss), tf.constant(loss * (1 + 1e-8)), weights, gradients)


@pytest.mark.slow
def test_a_shuffled_full_batch_takes_the_steps_that_it_would_take_without_memory():
    found = []
    for memory in (1, 20):
        optimizer = QNewton(damping=Adaptive(memory=memory))
        model = trained(optimizer, 25)
        found.append((get_flat(model.trainable_variables), optimizer))
    assert found[1][1].decisions[-1].loss < 1e-2
    assert float(variable(found[1][1], "batches_averaged")) == 1
    np.testing.assert_array_equal(found[0][0], found[1][0])


@pytest.mark.parametrize("noise", ["batches", "dropout"])
def test_steps_are_shared_where_the_data_change_and_only_there(noise):
    optimizer = QNewton(damping=Adaptive(memory=5))
    settings = {"batch_size": 16} if noise == "batches" else {"dropout": 0.3}
    model = trained(optimizer, 2 if noise == "batches" else 10, **settings)
    assert float(variable(optimizer, "batches_averaged")) == 5
    assert all(d.loss_after <= d.loss for d in optimizer.decisions if d.accepted)
    if noise == "batches":
        model.fit(X, Y, batch_size=96, epochs=3, verbose=0)
        assert float(variable(optimizer, "batches_averaged")) == 1


def test_curvature_is_averaged_over_the_batches_and_the_step_divided_by_their_number():
    """Linear least squares, by hand: batches of different data, given one at a time."""
    targets = [RNG.normal(size=(8, 1)) for _ in range(4)]
    inputs = [RNG.normal(size=(8, 3)) for _ in range(4)]
    w = tf.Variable(np.zeros((3, 1)), dtype=tf.float64)
    optimizer = QNewton(curvature="gauss_newton", damping=Adaptive(initial=1e-3, memory=3))

    @tf.function
    def step(x, y):
        return optimizer.minimize(lambda: tf.reduce_mean((x @ w - y) ** 2), [w])

    average, expected = None, np.zeros((3, 1))
    for k, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        m = min(k + 1, 3)
        hessian = 2 * x.T @ x / 8
        average = hessian if m <= 2 and k < 2 else average + (hessian - average) / m
        gradient = 2 * x.T @ (x @ expected - y) / 8
        scale = np.linalg.eigvalsh(average)[-1]
        damped = average + 1e-3 * scale / m * np.eye(3)
        expected = expected - np.linalg.solve(damped, gradient) / m
        step(tf.constant(x), tf.constant(y))
        assert all(d.accepted for d in optimizer.decisions)
        np.testing.assert_allclose(w.numpy(), expected, rtol=1e-6)
        assert float(variable(optimizer, "batches_averaged")) == m


@pytest.mark.parametrize("memory", [0, 2.5, True, "all"])
def test_memory_is_checked(memory):
    with pytest.raises(ValueError, match="Argument `memory` must be a positive integer"):
        Adaptive(memory=memory)
