"""Which operations keep examples apart: each rule against derivatives, and whole models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.example_states import Rows
from keras_qnewton.loss.independence import Passage
from keras_qnewton.loss.uses import Uses

EXAMPLES, POSITIONS, WIDTH = 4, 3, 5


def proof_of(after, shape, known=True):
    """Whether z = after(x W) is proved to keep examples apart, x of `shape`."""
    kernel = tf.Variable(np.random.default_rng(0).normal(size=(2, WIDTH)))
    found = []

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec(_signature(shape, known), "float64")]
    )
    def trace(x):
        axes = "abc"[: len(shape) - 1]
        z = after(tf.einsum(f"{axes}i,io->{axes}o", x, kernel))
        recorded = RecordedLoss(tf.reduce_mean(tf.square(z)), [kernel])
        weights = recorded.at_variables()
        uses, passage = Uses(weights, tf.float64), Passage(weights)

        def seen(op, inputs, outputs):
            uses(op, inputs, outputs)
            passage(op, inputs, outputs)

        (again,) = recorded.fetch([z.name], weights, observer=seen)
        assert uses.found
        state, _ = passage.followed(uses.found, again, EXAMPLES if known else None)
        found.append(state == Rows(0, 1))
        return again

    trace.get_concrete_function()
    return found[0]


def _signature(shape, known):
    return shape if known else [None, *shape[1:]]


def are_apart(after, shape):
    """The same by the derivatives of z in u, which are zero between examples."""
    u = tf.constant(np.random.default_rng(1).uniform(0.1, 0.9, size=(*shape[:-1], WIDTH)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(u)
        z = after(u)
    assert z.shape[0] == EXAMPLES
    jacobian = tape.jacobian(z, u, experimental_use_pfor=False).numpy()
    by_example = np.abs(jacobian).reshape(EXAMPLES, int(tf.size(z)) // EXAMPLES, EXAMPLES, -1)
    between = by_example.sum(axis=(1, 3)) * (1 - np.eye(EXAMPLES))
    return not between.any()


FLAT, SERIES, IMAGE = (EXAMPLES, 2), (EXAMPLES, POSITIONS, 2), (EXAMPLES, 4, 4, 2)
MATRIX = np.random.default_rng(2).normal(size=(WIDTH, 6))
FILTER = np.random.default_rng(3).normal(size=(3, 3, WIDTH, 2))
APART = {
    "elements": (FLAT, lambda u: tf.tanh(u) * u + tf.exp(-u) / (1.0 + u * u)),
    "constants": (FLAT, lambda u: u * np.ones([EXAMPLES, 1]) + np.arange(5.0)),
    "product": (FLAT, lambda u: u @ MATRIX),
    "sum": (FLAT, lambda u: tf.reduce_sum(u, -1)),
    "kept": (FLAT, lambda u: u - tf.reduce_mean(u, 1, keepdims=True)),
    "softmax": (FLAT, lambda u: tf.nn.softmax(u) + tf.nn.log_softmax(u)),
    "slice": (FLAT, lambda u: u[:, 1:3] + u[..., :2] * tf.slice(u, [0, 3], [-1, 2])),
    "column": (FLAT, lambda u: u[:, 0] * u[:, 2]),
    "new axis": (FLAT, lambda u: u[:, tf.newaxis, :2] * u[:, 2:4, tf.newaxis]),
    "split": (FLAT, lambda u: tf.concat(tf.split(u, [2, 3], 1)[::-1], 1)),
    "stack": (FLAT, lambda u: tf.stack(tf.unstack(u, axis=1)[:3], axis=1)),
    "gather": (FLAT, lambda u: tf.gather(u, [3, 0, 0], axis=1)),
    "pad": (FLAT, lambda u: tf.pad(u, [[0, 0], [1, 2]])),
    "tile": (FLAT, lambda u: tf.tile(u, [1, 2])),
    "cumsum": (FLAT, lambda u: tf.cumsum(u, 1) + tf.reverse(u, [1])),
    "select": (FLAT, lambda u: tf.where(u > 0.5, u, 2.0 * u)),
    "broadcast": (FLAT, lambda u: tf.broadcast_to(u[None], [3, *u.shape])[1]),
    "expand": (FLAT, lambda u: tf.squeeze(tf.expand_dims(u, 0) * 2.0, [0])),
    "positions": (SERIES, lambda u: tf.reduce_max(u, 1)),
    "flatten": (SERIES, lambda u: tf.reshape(u, [-1, POSITIONS * WIDTH])),
    "attention": (SERIES, lambda u: tf.nn.softmax(u @ tf.transpose(u, [0, 2, 1])) @ u),
    "einsum": (SERIES, lambda u: tf.einsum("bij,bkj,kl->bil", u, u, tf.ones([3, 2], u.dtype))),
    "time first": (
        SERIES,
        lambda u: tf.transpose(tf.nn.relu(tf.transpose(u, [1, 0, 2])[1:]), [1, 0, 2]),
    ),
    "of one time": (SERIES, lambda u: tf.transpose(u, [1, 0, 2])[2]),
    "convolution": (IMAGE, lambda u: tf.nn.conv2d(u, FILTER, 1, "SAME")),
    "pooling": (IMAGE, lambda u: tf.nn.max_pool2d(u, 2, 2, "VALID")),
    "bias": (IMAGE, lambda u: tf.nn.bias_add(u, tf.ones([WIDTH], u.dtype))),
}  # fmt: skip
MIXING = {
    "batch mean": (FLAT, lambda u: u - tf.reduce_mean(u, 0, keepdims=True)),
    "gram": (FLAT, lambda u: u @ tf.transpose(u)),
    "reversed": (FLAT, lambda u: u * tf.reverse(u, [0])),
    "shifted": (FLAT, lambda u: u * tf.roll(u, 1, 0)),
    "first": (FLAT, lambda u: u * u[:1]),
    "permuted": (FLAT, lambda u: tf.gather(u, [1, 0, 3, 2])),
    "in pairs": (FLAT, lambda u: tf.reshape(tf.cumsum(tf.reshape(u, [2, 2, 5]), 1), [4, 5])),
    "interleaved": (SERIES, lambda u: tf.reshape(tf.transpose(u, [1, 0, 2]), [EXAMPLES, -1])),
    "running": (FLAT, lambda u: tf.cumsum(u, 0)),
    "over examples": (FLAT, lambda u: tf.transpose(tf.nn.softmax(tf.transpose(u)))),
    "each with each": (FLAT, lambda u: tf.reduce_sum(u[:, None] * u[None], -1)),
    "einsum": (FLAT, lambda u: tf.einsum("bi,ci->bc", u, u)),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_what_keeps_examples_apart_is_proved(name):
    shape, after = APART[name]
    assert are_apart(after, shape)
    assert proof_of(after, shape)


@pytest.mark.parametrize("name", ["elements", "product", "sum", "slice", "split", "stack"])
def test_a_batch_of_unknown_size_is_no_hindrance(name):
    shape, after = APART[name]
    assert proof_of(after, shape, known=False)


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_examples_is_not_proved(name):
    shape, after = MIXING[name]
    assert not are_apart(after, shape)
    assert not proof_of(after, shape)


def test_an_operation_that_no_rule_knows_proves_nothing():
    def after(u):
        return tf.linalg.diag(u)[:, 0]

    assert are_apart(after, FLAT)
    assert not proof_of(after, FLAT)


def test_the_gradient_of_a_network_in_its_inputs_is_proved():
    matrix = tf.Variable(np.random.default_rng(4).normal(size=(WIDTH, 1)))

    def after(u):
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = tf.tanh(u) @ matrix
        return tape.gradient(value, u)

    assert are_apart(after, FLAT)
    assert proof_of(after, FLAT)


def test_a_given_gradient_proves_nothing():
    @tf.custom_gradient
    def doubled(u):
        return 2.0 * u, lambda upstream: upstream + tf.reduce_sum(upstream, 0, keepdims=True)

    assert not proof_of(lambda u: doubled(u), FLAT)


@pytest.mark.parametrize("turns", [3, 40])
def test_a_recurrent_layer_is_proved_where_it_runs_in_line(turns):
    layer = keras.layers.SimpleRNN(2, dtype="float64")
    layer.build((EXAMPLES, turns, WIDTH))

    def after(u):
        return layer(u)

    assert proof_of(after, (EXAMPLES, turns, 2)) == (turns <= 32)
