"""Losses without curvature, or with next to none: a step's length comes from gradient and loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, QNewton

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = X @ [2.0, -1.0, 0.5, 0.0] + 0.3 * RNG.standard_t(2, size=60)
STEPS = 25


def quantile(p):
    """The pinball loss of predictions, at quantile p."""
    return lambda z: tf.reduce_mean(tf.maximum(p * (Y - z), (p - 1) * (Y - z)))


LOSSES = {
    "absolute": quantile(0.5),
    "quantile": quantile(0.9),
    "hinge": lambda z: tf.reduce_mean(tf.nn.relu(1 - np.sign(Y) * z)),
    "epsilon-insensitive": lambda z: tf.reduce_mean(tf.nn.relu(tf.abs(z - Y) - 0.2)),
}


def steps(loss, weights, count=STEPS, curvature="hessian", **settings):
    """The Hessian of these losses is zero; by default they would have that of parabolas."""
    optimizer = QNewton(curvature=curvature, **settings)
    step = tf.function(lambda: optimizer.minimize(loss, weights), autograph=False)
    return optimizer, [float(step()) for _ in range(count)]


@pytest.mark.parametrize("name", LOSSES)
def test_a_linear_model_comes_near_the_lowest_loss(name):
    w = tf.Variable(np.zeros(4))
    _, losses = steps(lambda: LOSSES[name](tf.linalg.matvec(X, w)), [w])
    lowest = scipy.optimize.minimize(
        lambda v: float(LOSSES[name](X @ v)), w.numpy(), method="Nelder-Mead"
    ).fun
    assert losses[-1] - lowest < 0.1 * (losses[0] - lowest)


@pytest.mark.parametrize(
    "settings",
    [
        {"blocks": "variable"},
        {"blocks": Blocks("full", max_size=2)},
        {"damping": Adaptive(negative_curvature="shift")},
    ],
    ids=["blocks", "not formed", "shift"],
)
def test_no_route_needs_curvature(settings):
    w, b = tf.Variable(np.zeros(4)), tf.Variable(0.0, dtype=tf.float64)
    loss = LOSSES["absolute"]
    _, losses = steps(lambda: loss(tf.linalg.matvec(X, w) + b), [w, b], **settings)
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("size", [1e-25, 1e-8, 1.0, 1e8, 1e25])
def test_the_distance_to_zero_is_one_step_along_an_absolute_value(size):
    w = tf.Variable(np.array([size]))
    steps(lambda: tf.reduce_sum(tf.abs(w)), [w], count=1)
    assert abs(float(w[0])) <= 1e-12 * size


def test_a_linear_function_falls_at_every_step():
    w = tf.Variable(np.zeros(3))
    _, losses = steps(lambda: tf.reduce_sum(w * [1.0, -2.0, 3.0]), [w], count=10)
    assert all(np.diff(losses) < 0)


@pytest.mark.slow
def test_a_penalty_that_is_small_sets_no_step():
    w = tf.Variable(np.zeros(4))

    def loss():
        fit = LOSSES["absolute"](tf.linalg.matvec(X, w))
        return fit + 1e-5 * tf.reduce_sum(tf.square(w))

    optimizer, losses = steps(loss, [w])
    assert losses[-1] < 0.4 * losses[0]
    assert optimizer.decisions[0].accepted


def test_blocks_without_curvature_move_as_well_as_those_with():
    """A square is at its minimum after a few steps; λ of it is no step of the other block."""
    v, w = tf.Variable(np.full(3, 2.0)), tf.Variable(np.zeros(4))

    def loss():
        fit = LOSSES["absolute"](tf.linalg.matvec(X, w))
        return 1e4 * tf.reduce_sum(tf.square(v - 1.0)) + fit

    steps(loss, [v, w], blocks="variable")
    assert np.abs(v.numpy() - 1.0).max() < 1e-4
    assert float(LOSSES["absolute"](tf.linalg.matvec(X, w))) < 0.5 * float(
        LOSSES["absolute"](tf.zeros(60, tf.float64))
    )


@pytest.mark.parametrize("loss", ["mae", "hinge"])
def test_small_batches_train(loss):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer=QNewton(), loss=loss)
    labels = (Y if loss == "mae" else np.sign(Y))[:, None]
    before = model.evaluate(X, labels, verbose=0, batch_size=60)
    model.fit(X, labels, batch_size=12, epochs=6, verbose=0)
    assert model.evaluate(X, labels, verbose=0, batch_size=60) < 0.5 * before


@pytest.mark.parametrize("curvature", ["auto", "hessian"])
def test_a_minimum_without_curvature_is_kept_and_no_step_is_refused(curvature):
    w = tf.Variable(np.ones(4, "float32"))

    def largest():
        return tf.reduce_sum(tf.math.top_k(tf.abs(w - 1.0), 2)[0])

    optimizer, losses = steps(largest, [w], 3, curvature)
    assert losses == [0.0] * 3
    np.testing.assert_array_equal(w, np.ones(4))
    assert all(d.accepted and d.loss_after == 0.0 for d in optimizer.decisions)


def test_a_plateau_changes_no_weight():
    w = tf.Variable([1.0, -2.0])
    steps(lambda: tf.reduce_sum(tf.nn.relu(w - 5.0)) + 1.0, [w], count=3)
    np.testing.assert_array_equal(w.numpy(), [1.0, -2.0])


def test_a_sum_of_squares_is_never_taken_for_linear():
    """λ starts at a hundredth of the largest eigenvalue, however near zero the residuals are."""
    w = tf.Variable(RNG.normal(size=4))
    optimizer, _ = steps(lambda: 1e-6 * tf.reduce_sum(tf.square(tf.linalg.matvec(X, w))), [w], 1)
    largest = np.linalg.eigvalsh(2e-6 * X.T @ X).max()
    np.testing.assert_allclose(optimizer.decisions[0].damping, 1e-2 * largest, rtol=1e-2)
