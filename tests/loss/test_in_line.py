"""Losses that a train step computes in functions of its own: seen through, and the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import Blocks, ExactHessian, GaussNewton
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from tests.derivatives import get_flat, relative_error
from tests.optimizer.models import regression_data, regression_model

L = keras.layers
X, Y = (tf.constant(a) for a in regression_data())
CLASSES = tf.constant(np.random.default_rng(0).integers(0, 2, len(X)))


def squares(model):
    return tf.reduce_mean((model(X) - Y) ** 2)


def cross_entropy(model):
    logits = tf.concat([model(X), -model(X)], 1)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(CLASSES, logits))


def two_terms(model):
    return squares(model) + 0.1 * tf.reduce_mean(tf.exp(model(X[:9])))


def in_functions(loss):
    """`loss` called in a function that is called in a function."""

    @tf.function(autograph=False)
    def inner(model):
        return {"loss": loss(model), "other": tf.reduce_max(X)}

    @tf.function(autograph=False)
    def outer(model):
        return [inner(model)["loss"], tf.zeros([3])]

    return lambda model: outer(model)[0]


def formed(curvature, loss, model):
    """A block, and how it was formed."""
    variables = as_tensors(model.trainable_variables)

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: loss(model), variables)
        at = curvature.at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    matrix, how = block()
    return matrix.numpy(), Formation(int(how))


@pytest.mark.parametrize("loss", [squares, cross_entropy, two_terms])
def test_gauss_newton_is_that_of_the_loss_written_out(loss):
    model = regression_model()
    expected, how = formed(GaussNewton(), loss, model)
    found, found_how = formed(GaussNewton(), in_functions(loss), model)
    assert how is found_how and how in (Formation.ROWS, Formation.LAYERS)
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu"])
def test_the_exact_hessian_is_that_of_the_loss_written_out(activation):
    """SiLU's gradient is a given one, which is replayed as given."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation=activation), L.Dense(1)])
    expected, _ = formed(ExactHessian(), squares, model)
    found, _ = formed(ExactHessian(), in_functions(squares), model)
    assert relative_error(found, expected) < 1e-5


def test_loops_in_a_function_stay_loops():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((4, 3)), L.SimpleRNN(3), L.Dense(1)])
    x = tf.constant(np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32"))

    def loss(model):
        return tf.reduce_mean((model(x) - Y[:6]) ** 2)

    expected, how = formed(GaussNewton(), loss, model)
    found, found_how = formed(GaussNewton(), in_functions(loss), model)
    assert how is found_how is Formation.ROWS
    assert relative_error(found, expected) < 1e-5


def test_masks_drawn_outside_are_not_drawn_again():
    """What a function is given stays what it was."""
    model, optimizer = regression_model(), QNewton()

    @tf.function(autograph=False)
    def weighted(mask):
        return tf.reduce_mean(mask * (model(X) - Y) ** 2)

    @tf.function(autograph=False)
    def train_step():
        mask = tf.cast(tf.random.uniform(Y.shape) < 0.5, tf.float32)
        return optimizer.minimize(lambda: weighted(mask), model.trainable_variables)

    losses = [float(train_step()) for _ in range(5)]
    decisions = optimizer.decisions
    np.testing.assert_allclose([d.loss for d in decisions], losses, rtol=1e-6)
    assert all(d.accepted for d in decisions)
    assert decisions[-1].formed_by.startswith("rows")


def test_steps_are_those_of_the_loss_written_out():
    ends = []
    for loss in (two_terms, in_functions(two_terms)):
        model, optimizer = regression_model(), QNewton()

        @tf.function(autograph=False)
        def train_step(loss=loss, model=model, optimizer=optimizer):
            with tf.GradientTape() as tape:
                value = loss(model)
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        for _ in range(4):
            train_step()
        ends.append(get_flat(model.trainable_variables))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-3, atol=1e-4)


def test_a_train_step_of_ones_own_is_traced_once():
    """The optimizer's variables are made outside of the graph."""
    model, optimizer, traces = regression_model(), QNewton(), []

    @tf.function(autograph=False)
    def train_step():
        traces.append(1)
        with tf.GradientTape() as tape:
            loss = squares(model)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    train_step()
    train_step()
    assert len(traces) == 1
    assert int(optimizer.iterations.numpy()) == 2
