"""Rows of models whose examples share tensors: statistics of a batch, functions of weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from keras_qnewton.loss.shared_tensors import shared_tensors
from tests.curvature.reach import cross_entropy, net, reference
from tests.derivatives import relative_error

L = keras.layers
B = 20
RNG = np.random.default_rng(5)
CLASSES = RNG.integers(0, 3, B)
X = RNG.normal(size=(B, 4))
IMAGES = RNG.normal(size=(B, 5, 5, 2))
SEQUENCES = RNG.normal(size=(B, 6, 3))

pytestmark = pytest.mark.usefixtures("double_precision")


class Positive(L.Layer):
    """A product with a kernel that is a function of its weight."""

    def build(self, shape):
        self.raw = self.add_weight(shape=(shape[-1], 3), initializer="glorot_normal", name="raw")

    def call(self, x):
        return x @ tf.nn.softplus(self.raw)


class Standardised(L.Layer):
    """A convolution whose kernel is standardised (Qiao et al. 2019)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(2, 2, shape[-1], 3), name="kernel")

    def call(self, x):
        mean, variance = tf.nn.moments(tf.convert_to_tensor(self.kernel), [0, 1, 2], keepdims=True)
        return tf.nn.conv2d(x, (self.kernel - mean) / tf.sqrt(variance + 1e-3), 1, "VALID")


class CentredOnTheBatch(L.Layer):
    """Less the mean of all examples, over the largest of them."""

    def call(self, x):
        x -= tf.reduce_mean(x, 0, keepdims=True)
        return x / (1 + tf.reduce_sum(x**2, 0))


def residual():
    inputs = L.Input(IMAGES.shape[1:])
    h = L.Conv2D(3, 3, padding="same", use_bias=False)(inputs)
    h = L.Activation("tanh")(L.BatchNormalization()(h))
    more = L.BatchNormalization()(L.Conv2D(3, 3, padding="same", use_bias=False)(h))
    h = L.Activation("tanh")(L.Add()([h, more]))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(h)))


def of(x, layers):
    """A model, whose layers are made in the precision of the test, and what it is applied to."""
    return lambda: (net(*layers(), L.Dense(3), shape=x.shape[1:]), x)


def tanh():
    return L.Activation("tanh")


def pooled():
    return L.GlobalAveragePooling2D()


PROBLEMS = {
    "batch normalisation": of(X, lambda: [L.Dense(5), L.BatchNormalization(), tanh()]),
    "before any weight": of(X, lambda: [L.BatchNormalization(), L.Dense(4), tanh()]),
    "without scale": of(X, lambda: [L.Dense(4), L.BatchNormalization(scale=False), tanh()]),
    "of a convolution": of(
        IMAGES, lambda: [L.Conv2D(3, 2), L.BatchNormalization(), tanh(), pooled()]
    ),
    "residual": lambda: (residual(), IMAGES),
    "of a separable convolution": of(
        IMAGES, lambda: [L.SeparableConv2D(3, 2), L.BatchNormalization(), tanh(), pooled()]
    ),
    "after a recurrent layer": of(SEQUENCES, lambda: [L.LSTM(3), L.BatchNormalization()]),
    "of sequences": of(
        SEQUENCES,
        lambda: [L.Conv1D(3, 2), tanh(), L.BatchNormalization(), L.GlobalAveragePooling1D()],
    ),
    "normalised twice": of(
        X, lambda: [L.Dense(4), L.BatchNormalization(), L.Dense(4), tanh(), L.BatchNormalization()]
    ),
    "rectified with a slope": of(X, lambda: [L.Dense(5), L.PReLU(alpha_initializer="ones")]),
    "a positive kernel": of(X, lambda: [Positive(), tanh()]),
    "a standardised kernel": of(IMAGES, lambda: [Standardised(), tanh(), pooled()]),
    "centred on the batch": of(X, lambda: [L.Dense(4), CentredOnTheBatch()]),
}


def formed(model, x, split="full", known=True):
    """Blocks and how they came about."""
    variables = as_tensors(model.trainable_variables)
    shape = x.shape if known else [None, *x.shape[1:]]
    classes = tf.TensorSpec(shape[:1], tf.int64)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64), classes], autograph=False)
    def blocks(x, y):
        recorded = record(lambda: cross_entropy(model(x, training=True), y), variables)
        parts = Blocks(split).split(variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), parts)
        return [at.formed(k)[:2] for k in range(len(parts))]

    return [(m.numpy(), Formation(int(how))) for m, how in blocks(x, CLASSES[: len(x)])]


def expected(model, x):
    variables, labels = as_tensors(model.trainable_variables), CLASSES[: len(x)]
    zs = (lambda: [model(tf.constant(x), training=True)]), lambda zs: cross_entropy(zs[0], labels)
    return reference(variables, *zs)[0]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_its_definition(name, known):
    model, x = PROBLEMS[name]()
    ((matrix, how),) = formed(model, x, known=known)
    assert how is Formation.SHARED
    assert relative_error(matrix, expected(model, x)) < 1e-8
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_blocks_by_layers():
    model = residual()
    whole, start = expected(model, IMAGES), 0
    for matrix, how in formed(model, IMAGES, "layer"):
        end = start + len(matrix)
        assert relative_error(matrix, whole[start:end, start:end]) < 1e-8
        assert how is Formation.SHARED
        start = end
    assert start == len(whole)


@pytest.mark.parametrize("known", [True, False])
def test_more_that_is_shared_than_there_are_rows(known):
    """Single passes are fewer."""
    model = net(L.Dense(8), L.BatchNormalization(), tanh(), L.Dense(3), shape=(4,))
    for x, expected_way in ((X[:6], Formation.ROWS_NOT_LINEAR), (X, Formation.SHARED)):
        ((matrix, how),) = formed(model, x, known=known)
        assert how is expected_way
        assert relative_error(matrix, expected(model, x)) < 1e-8


def test_examples_that_meet_otherwise():
    """Attention of a batch to itself is no statistic."""

    class Among(L.Layer):
        def call(self, x):
            return tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x

    model = net(L.Dense(4), Among(), L.BatchNormalization(), L.Dense(3), shape=(4,))
    ((matrix, how),) = formed(model, X)
    assert how is not Formation.SHARED
    assert relative_error(matrix, expected(model, X)) < 1e-8


def test_nothing_is_shared_where_weights_enter_linearly():
    model = net(L.Dense(4, activation="tanh"), L.LayerNormalization(), L.Dense(3), shape=(4,))
    variables, found = as_tensors(model.trainable_variables), []

    @tf.function(autograph=False)
    def look():
        recorded = record(lambda: cross_entropy(model(X), CLASSES), variables)
        found.extend(shared_tensors(recorded, [recorded.recorded.op.inputs[0].name]))
        return recorded.value

    look()
    assert found == []


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_trains(precision):
    keras.config.set_floatx(precision)
    keras.utils.set_random_seed(1)
    model = residual()
    model.compile(
        QNewton(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["acc"]
    )
    history = model.fit(IMAGES, CLASSES, batch_size=B, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert "examples share" in model.optimizer.decisions[-1].formed_by
