"""What a loss counts as its examples: those of its own divisor."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.loss import RecordedLoss, batch_size

L = keras.layers
W = tf.Variable(np.ones((3, 2)), dtype=tf.float64)
SUMMED = []
SCALE = tf.Variable(2.0, dtype=tf.float64)


def counted(loss_fn, *data, spec=None):
    """n of a traced loss, at run time; the batch's size is not known while tracing."""
    specs = spec or [tf.TensorSpec([None, *np.shape(d)[1:]], d.dtype) for d in data]

    @tf.function(input_signature=specs, autograph=False)
    def count(*data):
        found = batch_size(RecordedLoss(loss_fn(*data), [W]))
        if found is None:
            return tf.constant(np.nan, tf.float64)
        SUMMED.append(found.summed)
        return found.count

    return float(count(*(tf.constant(d) for d in data)))


def squares(x, y):
    return tf.square(x @ W - y)


def data(n):
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 2))


LOSSES = {
    "mean": lambda x, y: tf.reduce_mean(squares(x, y)),
    "sum": lambda x, y: tf.reduce_sum(squares(x, y)),
    "of rows, then of examples": lambda x, y: tf.reduce_mean(tf.reduce_sum(squares(x, y), 1)),
    "over examples first": lambda x, y: tf.reduce_sum(tf.reduce_mean(squares(x, y), 0)),
    "product": lambda x, y: tf.reshape(
        tf.matmul(tf.reshape(x @ W - y, [1, -1]), tf.reshape(x @ W - y, [-1, 1])), []
    ),
    "root": lambda x, y: tf.sqrt(tf.reduce_mean(squares(x, y))),
    "penalty": lambda x, y: tf.reduce_mean(squares(x, y)) + 0.1 * tf.nn.l2_loss(W),
    "prior": lambda x, y: tf.reduce_mean(squares(x, y)) + tf.reduce_sum((W - np.ones((3, 2))) ** 2),
    "annealed": lambda x, y: SCALE * tf.reduce_mean(squares(x, y)) / (1 + SCALE),
    "two terms": lambda x, y: tf.reduce_mean(squares(x, y)) + 3 * tf.reduce_sum(tf.abs(x @ W)),
    "examples' weights": lambda x, y: tf.reduce_mean(squares(x, y) * tf.exp(y)),
}


# All others are divided by the number of examples, in a term at least.
SUMS = {"sum", "product"}


@pytest.mark.parametrize("name", LOSSES)
def test_examples_are_counted_whatever_the_reduction(name):
    small, large = (counted(LOSSES[name], *data(n)) for n in (3, 12))
    assert large / small == pytest.approx(4)
    assert SUMMED[-1] is (name in SUMS)


def test_a_loss_of_the_weights_alone_has_no_examples():
    assert np.isnan(counted(lambda x: tf.reduce_sum(tf.cosh(W)), data(3)[0]))


def test_a_batch_of_known_size_counts_as_one_that_is_not_known():
    x, y = data(5)
    known = [tf.TensorSpec(np.shape(d), d.dtype) for d in (x, y)]
    for loss in (LOSSES["mean"], LOSSES["sum"]):
        assert counted(loss, x, y, spec=known) == counted(loss, x, y)
        assert SUMMED[-1] is SUMMED[-2]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.floats(0, 4), min_size=2, max_size=6).filter(lambda w: sum(w) > 0.1))
def test_a_divisor_of_the_users_own_is_believed(weights):
    x, y = data(len(weights))
    w = np.array(weights)

    def loss(x, y, w):
        return tf.reduce_sum(w * tf.reduce_sum(squares(x, y), 1)) / tf.reduce_sum(w)

    assert counted(loss, x, y, w) == pytest.approx(sum(weights))


def of_keras(mask, weights, reduction="sum_over_batch_size"):
    """n of Keras's own loss on sequences `[B, T, 2]` with a mask and weights `[B, T]`."""
    rng = np.random.default_rng(0)
    mask, weights = np.array(mask, bool), np.array(weights, "float64")
    x, y = rng.normal(size=(*mask.shape, 3)), rng.normal(size=(*mask.shape, 2))
    of = keras.losses.MeanSquaredError(reduction=reduction, dtype="float64")

    def loss(x, y, mask, weights):
        outputs = tf.matmul(x, W)
        keras.src.backend.set_keras_mask(outputs, mask)
        return of(y, outputs, sample_weight=weights)

    # In elements: each has two outputs, and all means are counted.
    return counted(loss, x, y, mask, weights) / 2


MASK = [[True, True, False], [True, False, False]]
ONES = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
ZERO = [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    "mask, weights, expected",
    [(MASK, ONES, 3), (MASK, ZERO, 3), (np.ones_like(MASK), ZERO, 6)],
    ids=["masked", "masked and weights of zero", "weights of zero"],
)
def test_a_masked_example_counts_nothing_and_one_of_weight_zero_counts(mask, weights, expected):
    assert of_keras(mask, weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    "reduction, summed", [("sum", True), ("sum_over_batch_size", False)], ids=str
)
def test_a_sum_of_keras_is_seen(reduction, summed):
    assert of_keras(np.ones_like(MASK), ONES, reduction) == pytest.approx(6)
    assert SUMMED[-1] is summed


def test_weights_in_keras_own_divisor_count():
    found = of_keras(np.ones_like(MASK), ZERO, "mean_with_sample_weight")
    assert found == pytest.approx(4)
