"""Gauss-Newton matrices of models of many kinds: JᵀCJ, with the outputs z and φ written by hand.

J is TensorFlow's own Jacobian of z, and C that of the gradient of φ(z), all in float64.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from tests.curvature.reach import (
    IMAGES,
    PROBLEMS,
    TARGETS,
    B,
    L,
    X,
    cross_entropy,
    mlp,
    net,
    reference,
    squared,
)
from tests.derivatives import relative_error

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_its_definition(name):
    keras.utils.set_random_seed(0)
    variables, outputs, loss, how = PROBLEMS[name]()
    variables = as_tensors(variables)
    expected, second = reference(variables, outputs, loss)
    known = {}

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: loss(outputs()), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        known["semidefinite"] = at.positive_semidefinite
        return at.formed(0)[:2]

    matrix, formed_by = block()
    assert Formation(int(formed_by)) is how
    assert known["semidefinite"]
    if name == "quantile":  # piecewise linear
        assert not np.any(matrix)
        return
    assert np.abs(second).max() > 1e-3
    assert relative_error(matrix, expected) < 1e-8
    eigenvalues = np.linalg.eigvalsh(matrix.numpy())
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_grouped_convolutions():
    """Against a convolution for each group: TensorFlow has no derivatives of others on CPUs."""
    layers = [
        L.Conv2D(4, 3, groups=2, activation="tanh"),
        L.Conv2D(8, 2, groups=4, strides=2, padding="same"),
    ]
    model = net(*layers, L.GlobalAveragePooling2D(), L.Dense(3), shape=IMAGES.shape[1:])
    variables = as_tensors(model.trainable_variables)

    def one_by_one(x, layer, strides, padding):
        pairs = zip(
            tf.split(x, layer.groups, -1), tf.split(layer.kernel, layer.groups, -1), strict=True
        )
        z = [tf.nn.conv2d(a, w, strides, padding) for a, w in pairs]
        return tf.concat(z, -1) + layer.bias

    def outputs():
        h = tf.tanh(one_by_one(IMAGES, layers[0], 1, "VALID"))
        h = one_by_one(h, layers[1], 2, "SAME")
        return [model.layers[-1](tf.reduce_mean(h, [1, 2]))]

    np.testing.assert_allclose(outputs()[0], model(IMAGES), rtol=1e-12)
    expected, _ = reference(variables, outputs, lambda zs: cross_entropy(zs[0]))

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: cross_entropy(model(IMAGES)), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    matrix, formed_by = block()
    assert Formation(int(formed_by)) is Formation.ROWS
    assert relative_error(matrix, expected) < 1e-8


def test_a_rest_that_is_not_convex_is_exact():
    """JᵀCJ of the squares, and the whole Hessian of the rest."""
    first, second = mlp(), mlp()
    variables = as_tensors(first.trainable_variables + second.trainable_variables)

    def rest():
        return tf.reduce_mean(tf.sin(second(X)))

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: squared(first(X)) + rest(), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        assert not at.positive_semidefinite
        return at.block(0)

    convex, _ = reference(variables, lambda: [first(X)], lambda zs: squared(zs[0]))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            value = rest()
        slopes = inner.gradient(value, variables, unconnected_gradients="zero")
        flat = tf.concat([tf.reshape(s, [-1]) for s in slopes], 0)
    columns = outer.jacobian(flat, variables, unconnected_gradients="zero")
    exact = np.concatenate([c.numpy().reshape(len(flat), -1) for c in columns], 1)
    assert np.linalg.eigvalsh(exact)[0] < -1e-3
    assert relative_error(block(), convex + exact) < 1e-10


def test_an_l2_penalty_is_a_diagonal_beside_the_rows():
    model = net(
        L.Dense(4, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.5)), L.Dense(1)
    )
    variables = as_tensors(model.trainable_variables)
    expected, _ = reference(variables, lambda: [model(X)], lambda zs: squared(zs[0]))
    expected[np.arange(8), np.arange(8)] += 1.0

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: squared(model(X)) + sum(model.losses), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        assert at.positive_semidefinite
        return at.formed(0)[:2]

    matrix, formed_by = block()
    assert relative_error(matrix, expected) < 1e-10
    assert Formation(int(formed_by)) is Formation.ROWS


@pytest.mark.parametrize("factor", [0.5, -0.5])
def test_a_penalty_whose_factor_is_known_when_the_step_runs_is_cut_off_at_zero(factor):
    """As the curvature of outputs is, so that the matrix is what it is called."""
    model, amount = (
        net(L.Dense(4, activation="tanh"), L.Dense(1)),
        tf.Variable(factor, dtype="float64"),
    )
    variables = as_tensors(model.trainable_variables)
    expected, _ = reference(variables, lambda: [model(X)], lambda zs: squared(zs[0]))
    expected[np.arange(8), np.arange(8)] += max(2 * factor, 0.0)

    @tf.function(autograph=False)
    def block():
        def loss():
            return squared(model(X)) + amount * tf.reduce_sum(tf.square(variables[0]))

        recorded = record(loss, variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        assert at.positive_semidefinite
        vector = tf.ones([17], tf.float64)
        return at.block(0), at.product([vector])[0], at.block_product(0, vector)

    matrix, product, of_block = block()
    assert relative_error(matrix, expected) < 1e-10
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]
    for found in (product, of_block):
        assert relative_error(found, expected.sum(1)) < 1e-10


def test_weights_in_double_precision_behind_a_loss_in_single():
    """Keras computes a loss in `floatx`, whatever the model's precision."""
    model = mlp()
    variables = as_tensors(model.trainable_variables)
    expected, _ = reference(variables, lambda: [model(X)], lambda zs: squared(zs[0]))

    @tf.function(autograph=False)
    def block():
        single = keras.losses.MeanSquaredError(dtype="float32")
        recorded = record(lambda: single(TARGETS, model(X)), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    matrix, formed_by = block()
    assert Formation(int(formed_by)) is Formation.ROWS
    assert relative_error(matrix, expected) < 1e-6


def test_quadrature_by_a_matrix_product_keeps_squares_convex():
    """Weights of a sum, written as a row of positive constants times a column of squares."""
    model = mlp()
    variables = as_tensors(model.trainable_variables)
    weights = tf.constant(np.linspace(0.1, 1.0, B)[None])

    def loss(zs):
        return tf.matmul(weights, tf.square(zs[0] - TARGETS))[0, 0]

    expected, _ = reference(variables, lambda: [model(X)], loss)

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: loss([model(X)]), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        assert at.positive_semidefinite
        return at.block(0)

    assert relative_error(block(), expected) < 1e-10


@pytest.mark.parametrize("policy, tolerance", [("mixed_bfloat16", 3e-2), ("mixed_float16", 4e-3)])
def test_weights_in_single_precision_behind_a_model_in_half(policy, tolerance):
    def model(policy):
        layers = [
            L.Conv2D(3, 3, activation="tanh", dtype=policy),
            L.GlobalAveragePooling2D(dtype=policy),
            L.Dense(4, activation="tanh", dtype=policy),
            L.Dense(3, dtype=policy),
        ]
        return net(*layers, shape=IMAGES.shape[1:])

    half, double = model(policy), model("float64")
    double.set_weights(half.get_weights())
    expected, _ = reference(
        as_tensors(double.trainable_variables),
        lambda: [double(IMAGES)],
        lambda zs: cross_entropy(zs[0]),
    )
    variables = as_tensors(half.trainable_variables)
    assert {v.dtype for v in variables} == {tf.float32}

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: cross_entropy(tf.cast(half(IMAGES), tf.float32)), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    matrix, formed_by = block()
    assert Formation(int(formed_by)) is Formation.ROWS
    assert relative_error(matrix, expected) < tolerance
