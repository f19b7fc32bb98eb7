"""Gauss-Newton matrices against their definition, and the losses they are recognised for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import gauss_newton, hessian
from keras_qnewton.curvature.gauss_newton import GaussNewton
from keras_qnewton.curvature.linearized import Linearized, Point
from keras_qnewton.curvature.linearized_gauss_newton import GaussNewtonLinearized
from keras_qnewton.curvature.outputs import (
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    convex_loss,
)
from keras_qnewton.curvature.outputs.separable import Separable
from keras_qnewton.loss import as_tensors, record
from tests.derivatives import relative_error, set_precision

L = keras.layers


pytestmark = pytest.mark.usefixtures("double_precision")


RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 5))
CLASSES = RNG.integers(0, 3, 7)
TARGETS = RNG.normal(size=(7, 3))
BITS = RNG.integers(0, 2, (7, 3)).astype(float)


def losses():
    """name -> (Keras loss, labels, its second derivative in the output, `[B, C, C]`)."""

    def softmax(z):
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return (np.eye(3)[None] * p[:, :, None] - p[:, :, None] * p[:, None, :]) / 7

    def sigmoid(z):
        p = 1 / (1 + np.exp(-z))
        return np.eye(3)[None] * (p * (1 - p))[:, :, None] / 21

    return {
        "sparse": (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True), CLASSES, softmax
        ),
        "categorical": (
            keras.losses.CategoricalCrossentropy(from_logits=True), np.eye(3)[CLASSES], softmax
        ),
        "binary": (keras.losses.BinaryCrossentropy(from_logits=True), BITS, sigmoid),
        "squared": (
            keras.losses.MeanSquaredError(),
            TARGETS,
            lambda z: np.tile(np.eye(3) * 2 / 21, (7, 1, 1)),
        ),
    }  # fmt: skip


def mlp():
    return keras.Sequential([L.Input((5,)), L.Dense(4, activation="tanh"), L.Dense(3)])


def conv():
    layers = [
        L.Reshape((5, 1)), L.Conv1D(2, 3, activation="tanh"), L.Flatten(), L.Dense(3)
    ]  # fmt: skip
    return keras.Sequential([L.Input((5,)), *layers])


@pytest.mark.parametrize("build", [mlp, conv], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", list(losses()))
def test_equals_its_definition(build, name):
    model = build()
    loss, labels, second_derivative = losses()[name]
    variables = as_tensors(model.trainable_variables)
    with tf.GradientTape() as tape:
        z = model(X)
    jacobian = np.concatenate(
        [j.numpy().reshape(7, 3, -1) for j in tape.jacobian(z, variables)], axis=2
    )
    expected = np.einsum("bcm,bcd,bdn->mn", jacobian, second_derivative(z.numpy()), jacobian)
    (block,) = gauss_newton(lambda: loss(labels, model(X)), model.trainable_variables)
    assert relative_error(block.matrix, expected) < 1e-12
    assert np.linalg.eigvalsh(block.matrix.numpy())[0] > -1e-14

    @tf.function
    def products(v):
        recorded = record(lambda: loss(labels, model(X)), variables)
        parts = [_part(variables)]
        at = GaussNewtonLinearized(
            Point(recorded, recorded.at_variables(), parts, 1e9), convex_loss(recorded)
        )
        return at.product([v])[0], at.block_product(0, v)

    v = RNG.normal(size=len(expected))
    for product in products(v):
        assert relative_error(product, expected @ v) < 1e-12


@pytest.mark.parametrize("inputs", [4, 300])
def test_one_output_without_a_backward_pass_a_weight(inputs, monkeypatch):
    """By the product of all rows or, in wide layers, by live inputs: squared error, 2 JᵀJ / B."""
    model = keras.Sequential([L.Input((inputs,)), L.Dense(2, activation="tanh"), L.Dense(1)])
    x = RNG.normal(size=(6, inputs)) * RNG.integers(2, size=inputs)
    variables = as_tensors(model.trainable_variables)
    with tf.GradientTape() as tape:
        z = model(x)[:, 0]
    jacobian = [j.numpy().reshape(6, -1) for j in tape.jacobian(z, variables)]
    jacobian = np.concatenate(jacobian, axis=1)

    # The generic block is traced, too, but must not be what is taken.
    nothing = np.full((jacobian.shape[1],) * 2, np.nan)
    monkeypatch.setattr(Linearized, "block_by_products", lambda *_: tf.constant(nothing))
    loss, labels = keras.losses.MeanSquaredError(), np.ones((6, 1))
    (block,) = gauss_newton(lambda: loss(labels, model(x)), model.trainable_variables)
    assert relative_error(block.matrix, jacobian.T @ jacobian / 3) < 1e-12


def test_one_output_keeps_small_eigenvalues_in_single_precision():
    """6 examples have a rank of 6: single precision would leave 1e-8 of the largest beyond it."""
    set_precision("float32")
    model = keras.Sequential([L.Input((4,)), L.Dense(5, activation="tanh"), L.Dense(1)])
    x = RNG.normal(size=(6, 4)).astype("float32")
    variables = as_tensors(model.trainable_variables)
    loss = keras.losses.MeanSquaredError()

    @tf.function
    def block():
        recorded = record(lambda: loss(np.ones((6, 1), "float32"), model(x)), variables)
        parts = [_part(model.trainable_variables)]
        return GaussNewton().at(recorded, recorded.at_variables(), parts).block(0)

    values = np.linalg.eigvalsh(block().numpy())
    assert values[-6] > 1e-6 * values[-1]
    assert np.abs(values[:-6]).max() < 1e-14 * values[-1]
    # What is public has the variables' precision.
    (public,) = gauss_newton(lambda: loss(np.ones((6, 1)), model(x)), model.trainable_variables)
    assert public.matrix.dtype == tf.float32


def _part(variables):
    from keras_qnewton.curvature import Blocks

    return Blocks("full").split(variables)[0]


def test_equals_the_hessian_where_the_output_is_linear_in_the_weights():
    decay = keras.regularizers.L2(0.1)
    model = keras.Sequential([L.Input((5,)), L.Dense(3, kernel_regularizer=decay)])
    for loss, labels, _ in losses().values():

        def loss_fn(loss=loss, labels=labels):
            return loss(labels, model(X)) + sum(model.losses)

        (exact,) = hessian(loss_fn, model.trainable_variables)
        (approximate,) = gauss_newton(loss_fn, model.trainable_variables)
        assert relative_error(approximate.matrix, exact.matrix) < 1e-12


def recognised(loss_fn, variables):
    found = []

    @tf.function
    def run():
        loss = record(loss_fn, as_tensors(variables))
        found.append(convex_loss(loss))
        return loss.value

    run()
    return found[0]


def test_recognised_losses():
    model = mlp()
    rules = {
        "sparse": SoftmaxCrossEntropy,
        "categorical": SoftmaxCrossEntropy,
        "binary": SigmoidCrossEntropy,
        "squared": Separable,
    }
    for name, (loss, labels, _) in losses().items():

        def loss_fn(loss=loss, labels=labels):
            return loss(labels, model(X), sample_weight=np.linspace(0, 1, 7))

        convex = recognised(loss_fn, model.trainable_variables)
        assert [type(output.rule) for output in convex.outputs] == [rules[name]]
        assert not convex.rest


def test_losses_in_which_nothing_is_convex():
    model, factor = mlp(), tf.Variable(0.3, dtype=tf.float64)
    normalised = keras.Sequential([L.Input((5,)), L.Dense(4), L.LayerNormalization(), L.Dense(3)])
    squared = keras.losses.MeanSquaredError()
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    labels = (TARGETS > 0).astype("float64")
    others = {
        "negative logistic": lambda: -binary(labels, model(X)),
        "one minus logistic": lambda: 1.0 - binary(labels, model(X)),
        "negative": lambda: -squared(TARGETS, model(X)),
        "negative factor": lambda: -2.0 * squared(TARGETS, model(X)),
        "weighed by a weight": lambda: factor * squared(TARGETS, model(X)),
        "squared inside": lambda: tf.reduce_sum(tf.sin(normalised(X))),
    }
    variables = [*model.trainable_variables, *normalised.trainable_variables, factor]
    for name, loss_fn in others.items():
        assert not recognised(loss_fn, variables).recognised, name
    with pytest.raises(ValueError, match=r"the rules ended at 'Sin'"):
        gauss_newton(others["squared inside"], normalised.trainable_variables)


def test_a_rest_that_is_not_convex_is_not_called_semidefinite():
    model = mlp()

    def loss_fn():
        z = model(X)
        return tf.reduce_mean(tf.square(z - TARGETS)) + tf.reduce_mean(tf.cos(z))

    convex = recognised(loss_fn, model.trainable_variables)
    assert [t.op.type for t in convex.rest] == ["Cos"]
    assert [type(output.rule) for output in convex.outputs] == [Separable]


@pytest.mark.parametrize(
    ("loss", "curvature", "route"),
    [
        ("mse", "auto", "cholesky"),
        ("mse", "gauss_newton", "cholesky"),
        ("mse", "hessian", "eigen"),
        ("huber", "auto", "cholesky"),
        ("mae", "auto", "cholesky"),
    ],
)
def test_curvature_argument(loss, curvature, route):
    set_precision("float32")
    model = mlp()
    model.compile(optimizer=QNewton(curvature=curvature), loss=loss)
    history = model.fit(X, TARGETS, batch_size=7, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    assert {d.route for d in model.optimizer.decisions} == {route}
    config = model.optimizer.get_config()
    assert QNewton.from_config(config).get_config() == config


def test_gauss_newton_argument_needs_a_convex_loss():
    set_precision("float32")
    model = mlp()
    model.compile(optimizer=QNewton(curvature="gauss_newton"), loss="cosine_similarity")
    with pytest.raises(ValueError, match="Use 'auto' or 'hessian'"):
        model.fit(X, TARGETS, verbose=0)
