"""The recorded loss: the same number, the same masks, other weights; and clear refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import hessian
from keras_qnewton.loss import LossNotReplayableError, RecordedLoss, as_tensors, record

L = keras.layers
X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def replayed(model, call, shift=0.0):
    """(recorded loss, the same replayed with all weights shifted), from one trace."""
    variables = as_tensors(model.trainable_variables)

    @tf.function
    def run():
        loss = record(lambda: tf.reduce_mean(call(model, X) ** 2), variables)
        return loss.value, loss([w + shift for w in loss.at_variables()])

    return [float(v) for v in run()]


def mlp(*extra):
    keras.utils.set_random_seed(1)
    return keras.Sequential([L.Input((4,)), L.Dense(5, activation="tanh"), *extra, L.Dense(2)])


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [L.Dropout(0.5)],
        [L.GaussianNoise(0.3)],
        [L.BatchNormalization()],
        [L.Activation("silu")],
    ],
    ids=["plain", "dropout", "noise", "batch norm", "custom gradient"],
)
def test_replay_at_the_same_weights_is_the_same_loss(layers):
    value, again = replayed(mlp(*layers), lambda m, x: m(x, training=True))
    np.testing.assert_allclose(value, again, rtol=1e-6)


def test_replay_at_other_weights_equals_the_model_there():
    model = mlp()
    _, shifted = replayed(model, lambda m, x: m(x), shift=0.1)
    for v in model.trainable_variables:
        v.assign_add(tf.fill(v.shape, 0.1))
    np.testing.assert_allclose(shifted, np.mean(model(X).numpy() ** 2), rtol=1e-5)


def test_stateful_random_masks_are_not_drawn_again():
    """`tf.nn.dropout` draws its mask from the shape of a tensor that depends on the weights."""
    w = tf.Variable(np.ones((4, 50), "float32"))

    @tf.function
    def run():
        loss = record(lambda: tf.reduce_sum(tf.nn.dropout(tf.matmul(X, w), 0.5) ** 2), [w])
        return loss.value, loss(loss.at_variables())

    for _ in range(3):
        value, again = run()
        np.testing.assert_allclose(value, again, rtol=1e-6)


def test_called_functions_are_seen_through():
    w = tf.Variable(np.random.default_rng(0).normal(size=(4, 3)))
    x = X.astype("float64")

    def plain():
        return tf.reduce_mean(tf.tanh(tf.matmul(x, w)) ** 2)

    inner = tf.function(lambda z: tf.tanh(tf.matmul(z, w)))
    outer = tf.function(lambda z: inner(z) ** 2)
    (expected,) = hessian(plain, [w])
    for loss_fn in (tf.function(plain), lambda: tf.reduce_mean(outer(x))):
        (block,) = hessian(loss_fn, [w])
        np.testing.assert_allclose(block.matrix, expected.matrix, rtol=1e-12, atol=1e-15)


def test_weights_are_those_that_the_loss_read_unless_they_are_assigned():
    kept, changed = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])
    known = []

    @tf.function
    def run():
        read = tf.convert_to_tensor(kept), tf.convert_to_tensor(changed)
        loss = RecordedLoss(tf.reduce_sum(read[0] * read[1]), [kept, changed])
        changed.assign_add([1.0, 1.0])
        weights = loss.at_variables()
        known.extend(w is r for w, r in zip(weights, read, strict=True))
        return loss.value, loss(weights)

    before, after = (float(v) for v in run())
    assert known == [True, False]
    assert before == 11.0
    assert after == 14.0


def test_a_users_own_stop_gradient_is_kept():
    w = tf.Variable([1.0, 2.0])
    (block,) = hessian(lambda: tf.reduce_sum(w**2 * tf.stop_gradient(w)), [w])
    np.testing.assert_allclose(block.matrix, np.diag([2.0, 4.0]))


def test_a_users_own_stop_gradient_in_a_weighted_variance_is_kept():
    """Like that of `tf.nn.moments`, but the mean does not minimise what is made of it."""
    rng = np.random.default_rng(0)
    x, shares = rng.normal(size=(6, 3)), rng.uniform(size=(6, 1))
    w = tf.Variable(rng.normal(size=(3, 1)))
    mean = tf.reduce_mean(tf.matmul(x, w))
    for reduced in (
        lambda square: tf.reduce_sum(shares * square),
        lambda square: tf.reduce_sum(tf.reduce_mean(shares * square, 1)),
        lambda square: tf.reduce_mean(square**2),
    ):

        def stopped(reduced=reduced):
            z = tf.matmul(x, w)
            return reduced(tf.math.squared_difference(z, tf.stop_gradient(tf.reduce_mean(z))))

        def constant(reduced=reduced):
            return reduced(tf.math.squared_difference(tf.matmul(x, w), mean))

        (block,), (expected,) = hessian(stopped, [w]), hessian(constant, [w])
        np.testing.assert_allclose(block.matrix, expected.matrix, rtol=1e-12)


def test_unused_variable_has_zero_curvature():
    used, unused = tf.Variable([1.0]), tf.Variable([1.0])
    (block,) = hessian(lambda: tf.reduce_sum(used**3), [used, unused])
    np.testing.assert_allclose(block.matrix, [[6.0, 0.0], [0.0, 0.0]])


def test_linear_loss_has_zero_hessian():
    w = tf.Variable([1.0, 2.0])
    (block,) = hessian(lambda: tf.reduce_sum(3.0 * w), [w])
    np.testing.assert_array_equal(block.matrix, np.zeros((2, 2)))
    np.testing.assert_array_equal(block.gradient, [3.0, 3.0])


def test_refusals_are_clear():
    w = tf.Variable([1.0])
    with pytest.raises(LossNotReplayableError, match=r"while a `tf\.function` is being"):
        RecordedLoss(tf.constant(1.0), [w])
    with pytest.raises(LossNotReplayableError, match="has a state or leaves the graph"):
        hessian(lambda: tf.reduce_sum(tf.numpy_function(np.sin, [w], tf.float32)), [w])
    with pytest.raises(ValueError, match="`variables` must be a list of"):
        hessian(lambda: tf.reduce_sum(w), ["w"])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_complex_loss_is_refused_before_any_weight_changes(dtype):
    w = tf.Variable([1.0, 2.0])
    with pytest.raises(LossNotReplayableError, match=f"`loss` must be real.*{dtype}"):
        QNewton().minimize(lambda: tf.cast(tf.reduce_sum(w**2), dtype), [w])
    np.testing.assert_array_equal(w.numpy(), [1.0, 2.0])
