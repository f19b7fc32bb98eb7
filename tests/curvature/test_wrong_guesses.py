"""Models in which a weight looks as if it entered linearly, once an example, and does not.

A wrong guess must cost time at most: each trains, and its Gauss-Newton matrix is right.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Blocks, QNewton
from keras_qnewton.curvature import gauss_newton, hessian
from tests.derivatives import relative_error, set_precision

L = keras.layers
B = 6


class OnePlusScale(L.Layer):
    def build(self, shape):
        self.g = self.add_weight(shape=(shape[-1],), initializer="zeros", name="g")

    def call(self, x):
        return x * (1.0 + self.g)


class Tensordot(L.Layer):
    """A kernel that is reshaped, so that its axes are not those of the product."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2, 3), name="kernel")

    def call(self, x):
        return tf.reshape(tf.tensordot(x, self.kernel, 1), [-1, 6])


def scale():
    return (4,), [L.Dense(3, activation="tanh"), OnePlusScale(), L.Dense(2)]


def reshaped_kernel():
    return (4,), [Tensordot(), L.Activation("tanh"), L.Dense(2)]


def sequence_without_bias():
    layers = [L.Dense(3, use_bias=False, activation="tanh"), L.GlobalAveragePooling1D()]
    return (5, 2), [*layers, L.Dense(2)]


def repeated():
    layers = [L.GlobalAveragePooling1D(), L.Dense(3, use_bias=False, activation="tanh")]
    return (5, 2), [L.Dense(2, activation="tanh"), *layers, L.RepeatVector(4), L.Dense(2)]


def step_by_step():
    return (8, 2), [L.Conv1D(3, 3, activation="tanh"), L.Conv1D(2, 3)]


def segmentation():
    layers = [L.Conv2D(2, 3, padding="same", activation="tanh"), L.AveragePooling2D(2)]
    return (4, 4, 1), [*layers, L.Conv2D(2, 2, padding="same"), L.UpSampling2D(), L.Conv2D(2, 1)]


MODELS = [scale, reshaped_kernel, sequence_without_bias, repeated, step_by_step, segmentation]


def problem(build):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    shape, layers = build()
    model = keras.Sequential([L.Input(shape), *layers])
    x = rng.normal(size=(B, *shape)).astype("float32")
    labels = rng.integers(0, 2, (B, *model.output_shape[1:-1]))
    return model, x, labels


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("build", MODELS)
def test_gauss_newton_matrix(build):
    model, x, labels = problem(build)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        z = model(x)
    p = tf.nn.softmax(z).numpy().reshape(-1, 2)
    jacobian = np.concatenate(
        [j.numpy().reshape(len(p), 2, -1) for j in tape.jacobian(z, variables)], axis=2
    )
    second = (np.eye(2)[None] * p[:, :, None] - p[:, :, None] * p[:, None, :]) / len(p)
    expected = np.einsum("bcm,bcd,bdn->mn", jacobian, second, jacobian)
    (block,) = gauss_newton(lambda: loss(labels, model(x)), model.trainable_variables)
    assert relative_error(block.matrix, expected) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("max_size", [2, 2048])
@pytest.mark.parametrize("build", MODELS)
def test_trains(build, max_size):
    model, x, labels = problem(build)
    optimizer = QNewton(blocks=Blocks("full", max_size=max_size))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    # A batch of known size, too: shapes are then checked while tracing.
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(B, drop_remainder=True).repeat(3)
    losses = model.fit(data, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    model.fit(x, labels, batch_size=4, verbose=0)
    assert all(d.loss_after <= d.loss for d in optimizer.decisions if d.accepted)


@pytest.mark.slow
def test_a_table_of_which_examples_are_rows():
    """Its length, which is known, is not that of a batch, which is not."""
    rng = np.random.default_rng(0)
    table = tf.constant(rng.normal(size=(7, 16)), tf.float32)
    first = tf.Variable(0.3 * rng.normal(size=(16, 20)), dtype=tf.float32)
    second = tf.Variable(0.3 * rng.normal(size=(20, 1)), dtype=tf.float32)
    optimizer = QNewton()
    optimizer.build([first, second])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 1])])
    def step(items, y):
        def loss_fn():
            values = tf.tanh(table @ first) @ second
            return tf.reduce_mean(tf.square(tf.gather(values, items) - y))

        return optimizer.minimize(loss_fn, [first, second])

    for examples in (10, 20, 7):
        items = rng.integers(0, 7, examples).astype("int32")
        step(items, np.sin(items).astype("float32")[:, None])
    assert all(d.formed_by.startswith("rows by single") for d in optimizer.decisions)
    assert all(d.loss_after < d.loss for d in optimizer.decisions)


@pytest.mark.slow
def test_more_rows_than_a_system_of_low_rank_may_have():
    """Whether a batch's size is known before the step runs or not."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1200, 4)).astype("float32"), rng.integers(0, 3, 1200)
    model = keras.Sequential([L.Input((4,)), L.Dense(3, activation="tanh"), L.Dense(3)])
    optimizer = QNewton(blocks=Blocks("full", max_size=5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(1200, drop_remainder=True)
    model.fit(data, shuffle=False, verbose=0)
    assert [d.route for d in optimizer.decisions] == ["cg"]
    model.fit(x, y, batch_size=600, verbose=0)
    assert [d.route for d in optimizer.decisions] == ["cg", "woodbury", "woodbury"]


@pytest.mark.parametrize("coupling", [2e-7, 2e-6, 1e-5])
def test_a_weak_dependence_beside_the_layers_is_not_lost_in_rounding(coupling):
    """Of all weights of a kernel together, which is not diagonal."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 3)), rng.normal(size=(16, 1))
    found, weights = {}, None
    for precision in ("float32", "float64"):
        set_precision(precision)
        keras.utils.set_random_seed(0)
        model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(1)])
        weights = model.get_weights() if weights is None else weights
        model.set_weights(weights)
        kernel = model.layers[0].kernel

        def loss_fn(model=model, kernel=kernel, dtype=precision):
            error = tf.reduce_mean((model(x.astype(dtype)) - y.astype(dtype)) ** 2)
            return error + coupling * tf.reduce_sum(tf.convert_to_tensor(kernel)) ** 2

        (block,) = hessian(loss_fn, model.trainable_variables)
        found[precision] = block.matrix.numpy().astype("float64")
    set_precision("float32")
    assert relative_error(found["float32"], found["float64"]) <= 1.5e-5
