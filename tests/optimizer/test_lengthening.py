"""Steps of several times the solution: where, how long, and never where the data change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Adaptive, Constant, QNewton


def margins(weights, decay):
    """Softplus of -w plus decay w², summed: as a loss for TensorFlow, and in NumPy."""
    w = tf.Variable(weights, dtype=tf.float64)

    def loss_fn():
        return tf.reduce_sum(tf.nn.softplus(-w) + decay * w**2)

    def by_numpy(at):
        return np.sum(np.logaddexp(0, -at) + decay * at**2)

    def model(at, step):
        sigmoid = 1 / (1 + np.exp(at))
        slope = -sigmoid + 2 * decay * at
        bend = sigmoid * (1 - sigmoid) + 2 * decay
        return slope @ step + bend @ step**2 / 2

    return w, loss_fn, by_numpy, model


def compiled_step(optimizer, loss_fn, variables):
    """One step, traced once."""
    return tf.function(lambda: optimizer.minimize(loss_fn, variables), autograph=False)


def expected_length(loss, at, solution, ratio):
    """The rule, from losses in NumPy alone."""
    length, lowest = 1, loss(at + solution)
    while ratio >= 1.1 and length < 8 and loss(at + 2 * length * solution) < lowest:
        length, lowest = 2 * length, loss(at + 2 * length * solution)
    return length


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(
    weights=st.lists(st.floats(-1, 3), min_size=1, max_size=3),
    decay=st.sampled_from([0.0, 1e-3, 3e-2]),
)
def test_a_step_is_as_long_as_doubling_lowers_the_loss(weights, decay):
    w, loss_fn, loss, model = margins(weights, decay)
    optimizer = QNewton(curvature="hessian")
    take_step = compiled_step(optimizer, loss_fn, [w])
    for _ in range(5):
        before = w.numpy()
        take_step()
        d = optimizer.decisions[-1]
        step = w.numpy() - before
        if not d.accepted or loss(before) - loss(before + step) < 1e-10 * loss(before):
            continue
        solution = step / d.length
        ratio = (loss(before + solution) - loss(before)) / model(before, solution)
        np.testing.assert_allclose(d.trust_ratio, ratio, rtol=1e-4)
        np.testing.assert_allclose(d.loss_after, loss(w.numpy()), rtol=1e-9)
        if d.step == 0:
            assert d.length == 1  # nobody knows yet whether the data change
        elif abs(ratio - 1.1) > 1e-3:
            assert d.length == expected_length(loss, before, solution, ratio)


def test_a_minimum_at_infinity_is_reached_in_leaps():
    """Without them each step of an exponential tail is 1, and takes 1 off the loss's logarithm."""
    w = tf.Variable([0.0], dtype=tf.float64)
    optimizer = QNewton(curvature="hessian", damping=Adaptive(initial=1e-9))
    take_step = compiled_step(optimizer, lambda: tf.reduce_sum(tf.exp(-w)), [w])
    for _ in range(4):
        take_step()
    assert [d.length for d in optimizer.decisions] == [1, 8, 8, 8]
    np.testing.assert_allclose(w.numpy(), 25.0, rtol=1e-6)


@pytest.mark.parametrize("damping", [Constant(), Adaptive(memory=5)], ids=["constant", "noisy"])
def test_no_leap_without_a_trust_ratio_or_on_changing_data(damping):
    w = tf.Variable([0.5], dtype=tf.float64)  # at 0 all batches have one loss
    batch = tf.Variable(1.0, dtype=tf.float64)
    optimizer = QNewton(curvature="hessian", damping=damping)
    take_step = compiled_step(optimizer, lambda: tf.reduce_sum(tf.exp(-w * batch)), [w])
    for k in range(5):
        batch.assign(1.0 + k)
        take_step()
    assert [d.length for d in optimizer.decisions] == [1] * 5


def test_a_leap_is_clipped_as_a_step_is():
    w = tf.Variable([0.0], dtype=tf.float64)
    optimizer = QNewton(curvature="hessian", damping=Adaptive(initial=1e-9), clipnorm=3.0)
    moves = []
    take_step = compiled_step(optimizer, lambda: tf.reduce_sum(tf.exp(-w)), [w])
    for _ in range(3):
        before = w.numpy()
        take_step()
        moves.append(float((w.numpy() - before)[0]))
    np.testing.assert_allclose(moves, [1, 3, 3], rtol=1e-6)
    assert [d.length for d in optimizer.decisions] == [1, 4, 4]


def test_fit_leaps_on_separable_labels_and_logs_what_it_did():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype("float32")
    y = (x @ np.arange(1.0, 6.0) > 0).astype("float32")[:, None]
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=QNewton(), loss=loss)
    model.fit(x, y, batch_size=len(x), epochs=12, verbose=0)
    decisions = model.optimizer.decisions
    assert max(d.length for d in decisions) > 1
    for d in decisions:
        assert d.length == 1 or d.trust_ratio >= 1.1
        assert d.loss_after <= d.loss or not d.accepted
    assert decisions[-1].loss < 1e-6
