"""A train step that never calls `scale_loss`: its loss is found by the gradients it hands over."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.loss import as_tensors, losses_of
from tests.derivatives import get_flat
from tests.optimizer.models import regression_data, regression_model

L = keras.layers
X, Y = (tf.constant(a) for a in regression_data())


def squares(model):
    return tf.reduce_mean((model(X) - Y) ** 2)


def root_of_squares(model):
    """Its backward pass takes the loss itself."""
    return tf.sqrt(squares(model) + 0.01)


def weighted_list(model):
    """As DeepXDE has it: a function that returns a list, weighted and summed."""

    @tf.function(autograph=False)
    def outputs_losses():
        outputs = model(X)
        return outputs, tf.convert_to_tensor([squares(model), tf.reduce_mean(outputs[0] ** 2)])

    return tf.reduce_sum(outputs_losses()[1] * [1.0, 0.1])


def of_a_function(model):
    """The function also returns what its backward pass needs."""

    @tf.function(autograph=False)
    def loss_and_output():
        outputs = model(X)
        return tf.reduce_mean((outputs - Y) ** 2), outputs

    return loss_and_output()[0]


def product(model):
    """A scalar of scalars, which the backward pass takes."""
    return squares(model) * (1.0 + tf.reduce_mean(tf.abs(model(X))))


def differential_equation(model):
    """u' + u against zero, u' by a tape inside the loss."""
    with tf.GradientTape() as tape:
        tape.watch(X)
        u = model(X)
        total = tf.reduce_sum(u)
    return tf.reduce_mean((tape.gradient(total, X)[:, :1] + u) ** 2) + tf.reduce_mean(
        (u[:2] - 1) ** 2
    )


def branched(model):
    return tf.cond(tf.reduce_sum(X) < 1e9, lambda: squares(model), lambda: 0.0 * squares(model))


LOSSES = [squares, root_of_squares, weighted_list, of_a_function, product]
LOSSES += [differential_equation, branched]


def train(loss_fn, declare, steps=3, after=lambda loss: loss, inside=lambda model, loss: None):
    """Weights after some steps, and the optimizer."""
    model, optimizer = regression_model(), QNewton()

    @tf.function(autograph=False)
    def train_step():
        with tf.GradientTape() as tape:
            loss = loss_fn(model)
            if declare:
                optimizer.scale_loss(loss)
            inside(model, loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        after(loss)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    for _ in range(steps):
        train_step()
    return get_flat(model.trainable_variables), optimizer


@pytest.mark.parametrize("loss_fn", LOSSES, ids=[f.__name__ for f in LOSSES])
def test_the_loss_is_found(loss_fn):
    model = regression_model()
    variables = as_tensors(model.trainable_variables)

    @tf.function(autograph=False)
    def found():
        with tf.GradientTape() as tape:
            loss = loss_fn(model)
        losses = losses_of(tape.gradient(loss, variables), variables)
        return [tensor.name for tensor in losses], loss.name

    names, name = found()
    assert [n.numpy() for n in names] == [name.numpy()]


def test_steps_are_those_of_the_declared_loss():
    (found, optimizer), (declared, _) = train(weighted_list, False), train(weighted_list, True)
    np.testing.assert_array_equal(found, declared)
    assert optimizer.decisions[-1].loss_after < optimizer.decisions[0].loss


def test_what_is_made_of_the_loss_after_its_gradient_is_no_hindrance():
    metric = keras.metrics.Mean()
    _, optimizer = train(squares, False, after=lambda loss: metric.update_state(100.0 * loss))
    np.testing.assert_allclose(
        metric.result() / 100, np.mean([d.loss for d in optimizer.decisions])
    )


@pytest.mark.parametrize("factor", [1.0, 0.5], ids=["plain", "with a factor"])
@pytest.mark.parametrize("kept", ["mean", "last"])
def test_a_metric_of_the_loss_is_not_the_loss(factor, kept):
    """Nothing but a variable takes the loss: a running sum of it, times a weight, or itself."""
    model, metric = regression_model(), keras.metrics.Mean()
    last = tf.Variable(0.0)
    variables = as_tensors(model.trainable_variables)

    @tf.function(autograph=False)
    def found():
        with tf.GradientTape() as tape:
            loss = factor * squares(model) if factor != 1 else squares(model)
        gradients = tape.gradient(loss, variables)
        if kept == "mean":
            metric.update_state(loss, sample_weight=tf.cast(tf.shape(X)[0], tf.float32))
        else:
            last.assign(loss)
        (scalar,) = losses_of(gradients, variables)
        return loss, scalar

    loss, scalar = found()
    assert scalar == loss


def test_sparse_gradients():
    model = keras.Sequential([L.Input((3,), dtype="int32"), L.Embedding(4, 2), L.Flatten()])
    tokens = tf.cast(tf.abs(X) * 2.0, tf.int32) % 4
    optimizer = QNewton()

    @tf.function(autograph=False)
    def train_step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(tokens) - Y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert isinstance(gradients[0], tf.IndexedSlices)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    for _ in range(3):
        train_step()
    assert optimizer.decisions[-1].loss_after < optimizer.decisions[0].loss


def test_several_losses_are_listed():
    def also(model, loss):
        tf.reduce_max(tf.abs(model(X) - Y), name="largest")

    with pytest.raises(ValueError, match=r"several scalars of the graph, 'Mean:0', 'largest:0'"):
        train(squares, False, inside=also)


def test_a_wrong_guess_is_refused_before_any_weight_changes():
    def scaled(model, loss):
        tf.multiply(loss, 100.0)

    start = get_flat(regression_model().trainable_variables)
    model, optimizer = regression_model(), QNewton()

    @tf.function(autograph=False)
    def train_step():
        with tf.GradientTape() as tape:
            loss = squares(model)
            scaled(model, loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    with pytest.raises(tf.errors.InvalidArgumentError, match="not those of the recorded loss"):
        train_step()
    np.testing.assert_array_equal(get_flat(model.trainable_variables), start)


def test_gradients_from_nowhere_have_no_loss():
    model, optimizer = regression_model(), QNewton()

    @tf.function(autograph=False)
    def train_step():
        gradients = [tf.ones_like(v) for v in model.trainable_variables]
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    with pytest.raises(ValueError, match="no scalar of the graph leads to these gradients"):
        train_step()


@pytest.mark.slow
def test_deepxde_trains(monkeypatch):
    monkeypatch.setenv("DDE_BACKEND", "tensorflow")
    dde = pytest.importorskip("deepxde")

    def pde(x, y):
        return -dde.grad.hessian(y, x) - np.pi**2 * tf.sin(np.pi * x)

    dde.config.set_random_seed(0)
    interval = dde.geometry.Interval(-1, 1)
    boundary = dde.icbc.DirichletBC(interval, lambda x: 0 * x[:, :1], lambda x, on: on)
    data = dde.data.PDE(
        interval, pde, boundary, 32, 2, solution=lambda x: np.sin(np.pi * x), num_test=100
    )
    network = dde.nn.FNN([1, 10, 10, 1], "tanh", "Glorot uniform")
    model = dde.Model(data, network)
    model.compile(QNewton(), metrics=["l2 relative error"])
    history, _ = model.train(iterations=40, verbose=0)
    assert np.sum(history.loss_train[-1]) < 1e-4 * np.sum(history.loss_train[0])
