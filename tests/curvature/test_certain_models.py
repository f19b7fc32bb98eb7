"""Softmax cross-entropy of a model that is nearly certain: digits that its derivative loses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.curvature import Blocks
from keras_qnewton.curvature.gauss_newton import AutoCurvature
from keras_qnewton.loss import as_tensors, record

L = keras.layers
RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 6)).astype("float32")


def model_and_labels(margin):
    """A network whose logits are spread by `margin`, and the classes that it is certain of."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((6,)), L.Dense(5, activation="tanh"), L.Dense(4)])
    model(X)
    out = model.layers[-1]
    out.set_weights([margin * out.get_weights()[0], out.get_weights()[1]])
    return model, np.argmax(model(X).numpy(), axis=1)


def gradients(model, loss_fn, step):
    """Plain and sharpened gradients, and those after `step`: three vectors."""
    variables = as_tensors(model.trainable_variables)

    @tf.function
    def compute():
        recorded = record(loss_fn, variables)
        parts = Blocks("full").split(variables)
        at = AutoCurvature().at(recorded, recorded.at_variables(), parts)
        (plain,) = at.gradients
        return plain, at.sharpened([plain])[0], at.gradients_after([step * tf.ones_like(plain)])[0]

    return [g.numpy() for g in compute()]


def exact(model, labels, shift=0.0, x=X):
    """The gradient in double precision by formula, at weights moved by `shift`."""
    w1, b1, w2, b2 = (w.astype("float64") + shift for w in model.get_weights())
    a = np.tanh(x @ w1 + b1)
    z = a @ w2 + b2
    r = np.exp(z - z.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    # p_y - 1 from the others, as double precision would lose its digits in turn.
    rows = np.arange(len(x))
    r[rows, labels] = 0
    r[rows, labels] = -r.sum(1)
    r /= len(x)
    d = (r @ w2.T) * (1 - a**2)
    return np.concatenate([(x.T @ d).ravel(), d.sum(0), (a.T @ r).ravel(), r.sum(0)])


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(margin=st.floats(1.0, 60.0))
def test_sharpened_gradient_keeps_its_digits(margin):
    model, labels = model_and_labels(margin)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _, sharp, after = gradients(model, lambda: loss(labels, model(X)), 1e-3)
    # Logits of size z have an error of 6e-8 z, which is that of their exponentials.
    bound = 2e-6 * max(1.0, margin)
    assert error(sharp, exact(model, labels)) < bound
    assert error(after, exact(model, labels, np.float32(1e-3))) < bound


@pytest.mark.slow
def test_plain_gradient_does_not():
    model, labels = model_and_labels(60.0)
    terms = keras.ops.sparse_categorical_crossentropy(labels, model(X), from_logits=True)
    certain = terms.numpy() < 1e-6
    assert 5 < certain.sum() < 40
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = certain.astype("float32")
    plain, sharp, _ = gradients(model, lambda: loss(labels, model(X), weights), 0.0)
    expected = exact(model, labels[certain], x=X[certain]) * certain.sum() / len(X)
    assert error(plain, expected) > 1e-2
    assert error(sharp, expected) < 2e-4


@pytest.mark.parametrize("labels_sum", [1.0, 0.7])
def test_soft_labels_are_left_alone(labels_sum):
    model, classes = model_and_labels(2.0)
    soft = (np.eye(4)[classes] * 0.8 + 0.05) * labels_sum
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    plain, sharp, after = gradients(model, lambda: loss(soft.astype("float32"), model(X)), 0.0)
    np.testing.assert_allclose(sharp, plain, rtol=0, atol=1e-6 * np.abs(plain).max())
    np.testing.assert_allclose(after, plain, rtol=0, atol=1e-6 * np.abs(plain).max())
