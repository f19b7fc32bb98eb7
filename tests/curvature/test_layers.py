"""Hessians of common layers, in both precisions, against references that share no code."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, hessian, hvp
from tests.derivatives import fd_hessian, fd_product, get_flat, relative_error, set_precision

L = keras.layers


pytestmark = pytest.mark.usefixtures("double_precision")


def dense():
    return keras.Sequential([L.Input((5,)), L.Dense(4, activation="tanh"), L.Dense(3)]), (5,)


def conv2d():
    layers = [
        L.Input((6, 6, 1)),
        L.Conv2D(2, 3, activation="gelu"),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dense(3),
    ]
    return keras.Sequential(layers), (6, 6, 1)


def attention():
    x = L.Input((4, 3))
    y = L.MultiHeadAttention(num_heads=2, key_dim=2)(x, x)
    return keras.Model(x, L.Dense(3)(L.Flatten()(y))), (4, 3)


def dropout():
    layers = [L.Input((5,)), L.Dense(4, activation="tanh"), L.Dropout(0.4, seed=7), L.Dense(3)]
    return keras.Sequential(layers), (5,)


def regularised():
    layers = [
        L.Input((5,)),
        L.Dense(4, activation="silu", kernel_regularizer=keras.regularizers.L2(0.1)),
        L.Dense(3),
    ]
    return keras.Sequential(layers), (5,)


def batch_normalisation():
    layers = [L.Input((5,)), L.Dense(4), L.BatchNormalization(), L.Activation("tanh"), L.Dense(3)]
    return keras.Sequential(layers), (5,)


def layer_normalisation():
    layers = [L.Input((5,)), L.Dense(4), L.LayerNormalization(), L.Activation("tanh"), L.Dense(3)]
    return keras.Sequential(layers), (5,)


def group_normalisation():
    layers = [L.Input((5,)), L.Dense(4), L.GroupNormalization(2), L.Activation("tanh"), L.Dense(3)]
    return keras.Sequential(layers), (5,)


MODELS = [
    dense,
    conv2d,
    attention,
    dropout,
    regularised,
    batch_normalisation,
    layer_normalisation,
    group_normalisation,
]


def closure(model, x, y, sample_weight=None):
    """A loss with the same dropout masks at every call."""
    # Made here: a Keras loss computes in the floatx of its construction.
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    generators = [layer.seed_generator for layer in model.layers if hasattr(layer, "rate")]

    def loss_fn():
        for generator in generators:
            generator.state.assign([7, 11])
        loss = cross_entropy(y, model(x, training=True), sample_weight=sample_weight)
        return loss + sum(model.losses) if model.losses else loss

    return loss_fn


def data(shape, n=8):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *shape)), rng.integers(0, 3, n)


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_hessian_equals_finite_differences_in_float64(build):
    model, shape = build()
    loss_fn = closure(model, *data(shape))
    (block,) = hessian(loss_fn, model.trainable_variables)
    assert block.matrix.dtype == tf.float64
    np.testing.assert_array_equal(block.matrix, tf.transpose(block.matrix))
    reference = fd_hessian(loss_fn, model.trainable_variables)
    assert relative_error(block.matrix, reference) < 1e-10


@pytest.mark.parametrize(
    # A dropout mask is drawn in the layer's precision: none to compare with in float64.
    "build",
    [build for build in MODELS if build is not dropout],
    ids=lambda f: f.__name__,
)
def test_hessian_in_float32(build):
    model64, shape = build()
    x, y = data(shape)
    reference = fd_hessian(closure(model64, x, y), model64.trainable_variables)
    set_precision("float32")
    model32, _ = build()
    model32.set_weights(model64.get_weights())
    (block,) = hessian(closure(model32, x.astype("float32"), y), model32.trainable_variables)
    assert block.matrix.dtype == tf.float32
    assert relative_error(block.matrix, reference) < 1e-5


def test_embedding():
    model = keras.Sequential([L.Input((4,)), L.Embedding(6, 3), L.Flatten(), L.Dense(3)])
    x = np.random.default_rng(0).integers(0, 6, (8, 4))
    loss_fn = closure(model, x, data((4,))[1])
    (block,) = hessian(loss_fn, model.trainable_variables)
    reference = fd_hessian(loss_fn, model.trainable_variables)
    assert relative_error(block.matrix, reference) < 1e-10


def test_resource_gather():
    """`tf.nn.embedding_lookup` reads the variable's handle itself."""
    table = tf.Variable(np.random.default_rng(0).normal(size=(5, 2)))

    def loss_fn():
        return tf.reduce_sum(tf.tanh(tf.nn.embedding_lookup(table, [0, 3, 3, 1])) ** 3)

    (block,) = hessian(loss_fn, [table])
    assert relative_error(block.matrix, fd_hessian(loss_fn, [table])) < 1e-10


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


@pytest.mark.parametrize("build", [dense, conv2d, attention], ids=lambda f: f.__name__)
def test_product_equals_finite_differences(build):
    model, shape = build()
    variables = model.trainable_variables
    loss_fn = closure(model, *data(shape))
    rng = np.random.default_rng(1)
    vectors = [rng.normal(size=v.shape) for v in variables]
    product = hvp(loss_fn, variables, vectors)
    assert [p.shape for p in product] == [v.shape for v in variables]
    flat = np.concatenate([v.ravel() for v in vectors])
    expected = fd_product(loss_fn, variables, flat)
    assert relative_error(np.concatenate([p.numpy().ravel() for p in product]), expected) < 1e-10


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
