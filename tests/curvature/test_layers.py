"""Hessians of each layer type, in both precisions, against references that share no code."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, hessian, hvp
from tests.derivatives import (
    differences,
    fd_hessian,
    flat_gradient,
    get_flat,
    relative_error,
    set_precision,
    split,
)

L = keras.layers


pytestmark = pytest.mark.usefixtures("double_precision")

VECTOR, SEQUENCE, IMAGE = (8,), (2, 4), (2, 2, 2)


class LayerType(NamedTuple):
    """A layer that makes eight numbers of eight, so that any two can be stacked.

    Attributes:
        shape: Of one example that it takes; None if it takes any.
        apply: A Keras tensor -> a Keras tensor.
    """

    shape: tuple[int, ...] | None
    apply: Callable[[Any], Any]


class InferenceNormalization(L.BatchNormalization):
    """Normalises by its moving averages also in training: the model's argument is not heeded."""

    def call(self, x, training=None):
        return super().call(x, training=False)


def self_attention(x):
    return L.MultiHeadAttention(num_heads=2, key_dim=2)(x, x)


REGULARISED = {
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "bias_regularizer": keras.regularizers.L2(0.2),
}
SEQUENCES = {"return_sequences": True}

NORMALISATIONS = {
    "batch_norm": LayerType(None, lambda x: L.BatchNormalization()(x)),
    "layer_norm": LayerType(None, lambda x: L.LayerNormalization()(x)),
    "group_norm": LayerType(None, lambda x: L.GroupNormalization(2)(x)),
    "rms_norm": LayerType(None, lambda x: L.RMSNormalization()(x)),
    "unit_norm": LayerType(None, lambda x: L.UnitNormalization()(x)),
}
RECURRENT = {
    "lstm": LayerType(SEQUENCE, lambda x: L.LSTM(4, **SEQUENCES)(x)),
    "gru": LayerType(SEQUENCE, lambda x: L.GRU(4, **SEQUENCES)(x)),
    "simple_rnn": LayerType(SEQUENCE, lambda x: L.SimpleRNN(4, **SEQUENCES)(x)),
    "bidirectional": LayerType(SEQUENCE, lambda x: L.Bidirectional(L.SimpleRNN(2, **SEQUENCES))(x)),
}
# On purpose: windows overlap, so that an input may be the maximum of several, and the shape is
# kept, which TensorFlow's second derivatives of max-pooling do not survive by themselves.
POOL = {"pool_size": 2, "strides": 1, "padding": "same"}
CONV = {"kernel_size": 2, "padding": "same"}
LAYERS = {
    "embedding": LayerType(None, lambda x: L.Embedding(6, 4)(x)),  # takes integers: only first
    "dense": LayerType(VECTOR, lambda x: L.Dense(8, "tanh")(x)),
    "dense_l2": LayerType(VECTOR, lambda x: L.Dense(8, "silu", **REGULARISED)(x)),
    "dropout": LayerType(None, lambda x: L.Dropout(0.4, seed=7)(x)),
    **NORMALISATIONS,
    "batch_norm_inference": LayerType(None, lambda x: InferenceNormalization()(x)),
    "conv1d": LayerType(SEQUENCE, lambda x: L.Conv1D(4, activation="gelu", **CONV)(x)),
    "conv1d_transpose": LayerType(
        SEQUENCE, lambda x: L.Conv1DTranspose(4, activation="tanh", **CONV)(x)
    ),
    "depthwise_conv1d": LayerType(
        SEQUENCE, lambda x: L.DepthwiseConv1D(activation="softplus", **CONV)(x)
    ),
    "separable_conv1d": LayerType(
        SEQUENCE, lambda x: L.SeparableConv1D(4, activation="tanh", **CONV)(x)
    ),
    "max_pool1d": LayerType(SEQUENCE, lambda x: L.MaxPooling1D(**POOL)(x)),
    "average_pool1d": LayerType(SEQUENCE, lambda x: L.AveragePooling1D(**POOL)(x)),
    "attention": LayerType(SEQUENCE, self_attention),
    **RECURRENT,
    "conv2d": LayerType(IMAGE, lambda x: L.Conv2D(2, activation="gelu", **CONV)(x)),
    "conv2d_transpose": LayerType(
        IMAGE, lambda x: L.Conv2DTranspose(2, activation="tanh", **CONV)(x)
    ),
    "depthwise_conv2d": LayerType(
        IMAGE, lambda x: L.DepthwiseConv2D(activation="softplus", **CONV)(x)
    ),
    "separable_conv2d": LayerType(
        IMAGE, lambda x: L.SeparableConv2D(2, activation="tanh", **CONV)(x)
    ),
    "max_pool2d": LayerType(IMAGE, lambda x: L.MaxPooling2D(**POOL)(x)),
    "average_pool2d": LayerType(IMAGE, lambda x: L.AveragePooling2D(**POOL)(x)),
}


def stacked(*names):
    """The layers between two dense ones, at weights where nothing is zero or one by chance.

    The dense layer before them makes their derivatives with respect to their input matter.
    """
    if names[0] == "embedding":
        inputs = x = L.Input(SEQUENCE[:1], dtype="int32")
    else:
        inputs = L.Input((3,))
        x = L.Dense(8, use_bias=False)(inputs)
    for name in names:
        shape, apply = LAYERS[name]
        if shape is not None and x.shape[1:] != shape:
            x = L.Reshape(shape)(x)
        x = apply(x)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    rng = np.random.default_rng(5)
    for v in model.trainable_variables:
        v.assign(v.numpy() + 0.3 * rng.normal(size=v.shape))
    for v in model.non_trainable_variables:
        if "float" in v.dtype:  # moving averages; not the state of a random generator
            v.assign(rng.uniform(0.5, 1.5, size=v.shape))
    return model


def inputs_of(model, n=3):
    """A batch of `n` examples for a `stacked` model."""
    rng = np.random.default_rng(1)
    shape = (n, *model.input.shape[1:])
    integers = model.input.dtype == "int32"
    return rng.integers(0, 6, shape).astype("int32") if integers else rng.normal(size=shape)


def targets(n=3):
    """Name -> (a Keras loss of logits `[n, 3]`, its targets for `n` examples)."""
    rng = np.random.default_rng(2)
    classes = np.arange(n) % 3
    bits = rng.integers(0, 2, (n, 3)).astype(float)
    # Made here: a Keras loss computes in the floatx of its construction.
    return {
        "sparse_crossentropy": (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True), classes
        ),
        "categorical_crossentropy": (
            keras.losses.CategoricalCrossentropy(from_logits=True), np.eye(3)[classes]
        ),
        "binary_crossentropy": (keras.losses.BinaryCrossentropy(from_logits=True), bits),
        "squared_error": (keras.losses.MeanSquaredError(), rng.normal(size=(n, 3))),
    }  # fmt: skip


def dense():
    return keras.Sequential([L.Input((5,)), L.Dense(4, activation="tanh"), L.Dense(3)]), (5,)


def closure(model, x, y, sample_weight=None, loss=None):
    """A loss, cross-entropy if not given, with the same dropout masks at every call."""
    # Made here: a Keras loss computes in the floatx of its construction.
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    generators = [layer.seed_generator for layer in model.layers if hasattr(layer, "rate")]

    def loss_fn():
        for generator in generators:
            generator.state.assign([7, 11])
        value = loss(y, model(x, training=True), sample_weight=sample_weight)
        return value + sum(model.losses) if model.losses else value

    return loss_fn


def data(shape, n=8):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *shape)), rng.integers(0, 3, n)


def check(loss_fn, variables):
    """The Hessian times two random vectors, and `hvp`, against differences of gradients."""
    (block,) = hessian(loss_fn, variables)
    assert block.matrix.dtype == tf.float64
    np.testing.assert_array_equal(block.matrix, tf.transpose(block.matrix))
    gradient = flat_gradient(loss_fn, variables)
    for v in np.random.default_rng(1).normal(size=(2, len(block.matrix))):
        expected = differences(gradient, variables, v)
        assert relative_error(block.matrix.numpy() @ v, expected) < 1e-9
    product = hvp(loss_fn, variables, split(v, variables))
    assert [p.shape for p in product] == [w.shape for w in variables]
    product = np.concatenate([np.ravel(p) for p in product])
    assert relative_error(product, expected) < 1e-9


# Recurrent layers have a module of their own.
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in RECURRENT])
def test_hessian_and_product_equal_finite_differences(name):
    model = stacked(name)
    loss, y = targets()["sparse_crossentropy"]
    check(closure(model, inputs_of(model), y, loss=loss), model.trainable_variables)


@pytest.mark.parametrize("from_logits", [True, False], ids=["logits", "probabilities"])
@pytest.mark.parametrize(
    "name", ["sparse_crossentropy", "categorical_crossentropy", "binary_crossentropy"]
)
def test_losses_equal_finite_differences(name, from_logits):
    model, shape = dense()
    loss, y = targets(8)[name]
    if not from_logits:
        model.add(L.Activation("sigmoid" if name.startswith("binary") else "softmax"))
        loss = type(loss)()
    check(closure(model, data(shape)[0], y, loss=loss), model.trainable_variables)


def test_squared_error_equals_finite_differences():
    model, shape = dense()
    loss, y = targets(8)["squared_error"]
    check(closure(model, data(shape)[0], y, loss=loss), model.trainable_variables)


@pytest.mark.parametrize("pool", [{"pool_size": 2}, {"pool_size": 3, "strides": 2}], ids=["2", "3"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_strided_pooling(pool, padding):
    layers = [
        L.Conv2D(2, 3, strides=2, activation="gelu"),
        L.MaxPooling2D(**pool, padding=padding),
        L.Flatten(),
        L.Dense(3),
    ]
    model = keras.Sequential([L.Input((8, 8, 1)), *layers])
    x, y = data((8, 8, 1), n=3)
    check(closure(model, x, y), model.trainable_variables)


@pytest.mark.parametrize(
    "name", ["dense", "dense_l2", "conv2d", "attention", "batch_norm", "layer_norm", "group_norm"]
)
def test_hessian_in_float32(name):
    def loss_of(model):
        loss, y = targets()["sparse_crossentropy"]
        return closure(model, inputs_of(model).astype(keras.config.floatx()), y, loss=loss)

    model64 = stacked(name)
    reference = fd_hessian(loss_of(model64), model64.trainable_variables)
    set_precision("float32")
    model32 = stacked(name)
    model32.set_weights(model64.get_weights())
    (block,) = hessian(loss_of(model32), model32.trainable_variables)
    assert block.matrix.dtype == tf.float32
    assert relative_error(block.matrix, reference) < 1e-5


def test_resource_gather():
    """`tf.nn.embedding_lookup` reads the variable's handle itself."""
    table = tf.Variable(np.random.default_rng(0).normal(size=(5, 2)))

    def loss_fn():
        return tf.reduce_sum(tf.tanh(tf.nn.embedding_lookup(table, [0, 3, 3, 1])) ** 3)

    (block,) = hessian(loss_fn, [table])
    assert relative_error(block.matrix, fd_hessian(loss_fn, [table])) < 1e-10


@pytest.mark.slow
def test_sample_weights():
    model, shape = dense()
    x, y = data(shape)
    weights = np.linspace(0.1, 2.0, len(x))
    loss_fn = closure(model, x, y, sample_weight=weights)
    (block,) = hessian(loss_fn, model.trainable_variables)
    assert relative_error(block.matrix, fd_hessian(loss_fn, model.trainable_variables)) < 1e-10
    (unweighted,) = hessian(closure(model, x, y), model.trainable_variables)
    assert relative_error(block.matrix, unweighted.matrix) > 1e-2


@pytest.mark.parametrize("partition", ["full", "layer", "variable"])
def test_blocks_are_diagonal_blocks_of_the_full_hessian(partition):
    model, shape = dense()
    variables = model.trainable_variables
    loss_fn = closure(model, *data(shape))
    full = fd_hessian(loss_fn, variables)
    gradient = np.concatenate([b.gradient.numpy() for b in hessian(loss_fn, variables, partition)])
    at = 0
    for block in hessian(loss_fn, variables, Blocks(partition)):
        n = sum(int(np.prod(v.shape)) for v in block.variables)
        assert block.matrix.shape == (n, n)
        assert relative_error(block.matrix, full[at : at + n, at : at + n]) < 1e-10
        at += n
    assert at == get_flat(variables).size == gradient.size


def test_dense_equals_jax_hessian():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    model, shape = dense()
    x, y = data(shape)
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    cuts = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]

    def loss(flat):
        w1, b1, w2, b2 = (p.reshape(s) for p, s in zip(jnp.split(flat, cuts), shapes, strict=True))
        logits = jnp.tanh(x @ w1 + b1) @ w2 + b2
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    expected = jax.hessian(loss)(get_flat(model.trainable_variables))
    (block,) = hessian(closure(model, x, y), model.trainable_variables)
    assert relative_error(block.matrix, expected) < 1e-12


def test_errors_name_the_argument():
    v = tf.Variable([1.0, 2.0])
    with pytest.raises(ValueError, match="`vectors` must hold one tensor"):
        hvp(lambda: tf.reduce_sum(v**2), [v], [])
    with pytest.raises(ValueError, match="`vectors` must have the shapes"):
        hvp(lambda: tf.reduce_sum(v**2), [v], [tf.zeros(3)])
    with pytest.raises(ValueError, match="`blocks` must be one of"):
        hessian(lambda: tf.reduce_sum(v**2), [v], "rows")
    with pytest.raises(ValueError, match="`max_size` must be a positive integer"):
        Blocks(max_size=0)
    with pytest.raises(ValueError, match="`loss` must be a scalar"):
        hessian(lambda: v**2, [v])
    with pytest.raises(ValueError, match="`variables` must not be empty"):
        hessian(lambda: tf.reduce_sum(v**2), [])
    with pytest.raises(ValueError, match="`loss_fn` must be a function"):
        hessian(3.0, [v])


def float32_dropout():
    """The layer draws its mask in its own precision: here the same in both models."""
    dropped = L.Dropout(0.4, seed=7, dtype="float32")
    layers = [L.Input((5,)), L.Dense(4, activation="tanh"), dropped, L.Dense(3)]
    return keras.Sequential(layers)


def embedding():
    return keras.Sequential([L.Input((5,)), L.Embedding(6, 3), L.Flatten(), L.Dense(3)])


@pytest.mark.parametrize("build", [float32_dropout, embedding], ids=lambda f: f.__name__)
def test_float32_against_float64_with_sample_weights(build):
    x, y = data((5,))
    x = np.abs(x * 2).astype("int32") if build is embedding else x.astype("float32")
    weights = np.linspace(0.1, 2.0, len(x))
    model64 = build()
    (reference,) = hessian(closure(model64, x, y, weights), model64.trainable_variables)
    set_precision("float32")
    model32 = build()
    model32.set_weights(model64.get_weights())
    (block,) = hessian(closure(model32, x, y, weights), model32.trainable_variables)
    assert block.matrix.dtype == tf.float32 and reference.matrix.dtype == tf.float64
    assert relative_error(block.matrix, reference.matrix) < 1e-5
