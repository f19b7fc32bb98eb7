"""A loss, or a model, inside of called functions: as if these were written in line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from tests.derivatives import relative_error

L = keras.layers
pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(0)
X = tf.constant(RNG.normal(size=(6, 3)))
Y = tf.constant(RNG.normal(size=(6, 2)))
CLASSES = RNG.integers(0, 2, 6)


def squared(z):
    return tf.reduce_mean(tf.square(z - Y))


def cross_entropy(z):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(CLASSES, z))


def two_terms(z):
    return squared(z) + 0.3 * tf.reduce_sum(keras.losses.huber(Y, 2 * z))


def in_function(f):
    return tf.function(f, autograph=False)


def compiled(f):
    return tf.function(f, autograph=False, jit_compile=True)


def in_two_functions(f):
    inner = in_function(f)
    return in_function(lambda z: inner(z) * 2.0 / 2.0)


def model_of(activation="tanh"):
    return keras.Sequential([L.Input((3,)), L.Dense(4, activation=activation), L.Dense(2)])


def curvature(loss_fn, variables):
    """The block, how it is formed, and whether the loss is known to be convex in all it has."""
    known = []

    @tf.function(autograph=False)
    def block():
        recorded = record(loss_fn, variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        known.append(at.positive_semidefinite)
        formed = at.formed(0)
        return formed.matrix, formed.how, recorded.value, at.gradients[0]

    matrix, how, *others = block()
    return matrix, (Formation(int(how)), known[-1]), others


@pytest.mark.parametrize("wrapped", [in_function, compiled, in_two_functions])
@pytest.mark.parametrize("loss", [squared, cross_entropy, two_terms])
def test_a_loss_in_a_called_function_is_that_in_line(loss, wrapped):
    model = model_of()
    variables = as_tensors(model.trainable_variables)
    nested = wrapped(loss)
    expected, kind, others = curvature(lambda: loss(model(X)), variables)
    matrix, found, found_others = curvature(lambda: nested(model(X)), variables)
    assert found == kind == (Formation.LAYERS if loss is not cross_entropy else kind[0], True)
    assert relative_error(matrix, expected) < 1e-12
    for a, b in zip(found_others, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_a_model_in_a_called_function_has_its_layers(activation):
    model = model_of(activation)
    variables = as_tensors(model.trainable_variables)
    whole = in_function(lambda: squared(model(X)))
    expected, kind, _ = curvature(lambda: squared(model(X)), variables)
    matrix, found, _ = curvature(lambda: tf.identity(whole()), variables)
    assert found == kind == (Formation.LAYERS, True)
    assert relative_error(matrix, expected) < 1e-12


@pytest.mark.slow
def test_a_loop_after_a_call_stays_one():
    model = model_of()
    variables = as_tensors(model.trainable_variables)
    called = in_function(model)

    def loss_fn(f):
        turns = tf.cast(tf.reduce_sum(tf.abs(X)) / 8, tf.int32) + 1  # known at run time alone
        z = tf.while_loop(lambda i, z: i < turns, lambda i, z: (i + 1, tf.sin(z)), [0, f(X)])[1]
        return squared(z)

    expected, kind, _ = curvature(lambda: loss_fn(model), variables)
    matrix, found, _ = curvature(lambda: loss_fn(called), variables)
    assert found == kind == (Formation.LAYERS, True)
    assert relative_error(matrix, expected) < 1e-12


def test_fit_with_a_loss_in_a_called_function():
    model = model_of()

    @tf.function(autograph=False)
    def loss(y_true, y_pred):
        return tf.reduce_mean(tf.math.squared_difference(y_true, y_pred), -1)

    model.compile(optimizer=QNewton(), loss=loss)
    losses = model.fit(X, Y, batch_size=6, epochs=8, verbose=0).history["loss"]
    decision = model.optimizer.decisions[-1]
    assert losses[-1] < 0.2 * losses[0]
    assert decision.formed_by.startswith(("layers", "rows", "not formed"))
