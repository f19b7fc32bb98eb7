"""Saddle points on which the gradient says nothing of the way down."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, QNewton
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.saddle import off_a_saddle
from keras_qnewton.solvers import Eigen
from tests.test_classics import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))

from classic_problems import PROBLEMS


def steps(loss, weights, count, **settings):
    optimizer = QNewton(curvature="hessian", **settings)
    step = tf.function(lambda: optimizer.minimize(loss, weights), autograph=False)
    for _ in range(count):
        step()
    return optimizer, float(loss())


def off(values, gradient, damping=0.0, error=1e-12, dtype="float64", weights=None):
    """The step of a diagonal matrix, and the one that leads off its saddle."""
    eigen, gradient = Eigen(), tf.constant(gradient, dtype)
    matrix = tf.linalg.diag(tf.constant(values, dtype))
    state = eigen.init(matrix)
    problem = dataclasses.replace(
        BlockProblem.of_matrix(matrix, gradient),
        value_error=tf.constant(error, tf.float64),
        weights=tf.zeros_like(gradient) if weights is None else tf.constant(weights, dtype),
    )
    x = eigen.compute_absolute(state, gradient, damping).x
    found = off_a_saddle(x, problem, state, tf.constant(damping, tf.float64))
    return x.numpy(), found.numpy()


@pytest.mark.parametrize("scaling", ["auto", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_start_that_has_the_saddles_symmetry_leads_to_a_minimum(dtype, scaling):
    # Of all points with y = 0 the lowest is the saddle (0, 0), where the loss is 1; the minima are
    # (0, 1) and (0, -1).
    w = tf.Variable(np.array([1.0, 0.0]), dtype=dtype)
    _, lowest = steps(
        lambda: w[0] ** 2 + (w[1] ** 2 - 1) ** 2, [w], 60, damping=Adaptive(scaling=scaling)
    )
    assert lowest < 1e-10
    np.testing.assert_allclose(np.abs(w.numpy()), [0, 1], atol=1e-5)


def test_an_exponential_fit_leaves_the_saddle_of_two_equal_terms():
    # Biggs's function is the same if two of its exponentials change places, and so is the start.
    (problem,) = (p for p in PROBLEMS if p.number == 18)
    x = tf.Variable(problem.start_times(1.0))
    _, lowest = steps(lambda: tf.reduce_sum(tf.square(problem.residuals(x))), [x], 100)
    assert lowest < 1e-10
    assert abs(float(x[0] - x[4])) > 1


def test_a_saddle_without_any_gradient_is_left():
    w = tf.Variable(np.zeros(3))
    _, lowest = steps(lambda: tf.reduce_sum((w**2 - [1.0, 4.0, 9.0]) ** 2), [w], 80)
    assert lowest < 1e-10


@pytest.mark.parametrize("factor", [1.0, 2.0**40, 2.0**-40])
@pytest.mark.parametrize("unit", [1.0, 1e-6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saddle_is_left_where_the_loss_is_zero(dtype, unit, factor):
    # x² - y² + y⁴/2: the lowest point with y = 0 is the saddle at the origin, where the loss is 0.
    w = tf.Variable(unit * np.array([1.0, 0.0]), dtype=dtype)

    def loss():
        x, y = tf.unstack(w / unit)
        return factor * (x**2 - y**2 + y**4 / 2)

    _, lowest = steps(loss, [w], 150)
    assert lowest == pytest.approx(-factor / 2, rel=1e-5)
    np.testing.assert_allclose(np.abs(w / unit), [0, 1], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_zero_are_left_where_the_loss_is_zero(dtype):
    w = tf.Variable(np.zeros(2), dtype=dtype)
    _, lowest = steps(lambda: w[0] * w[1] + tf.reduce_sum(w**4) / 4, [w], 60)
    assert lowest == pytest.approx(-0.5, rel=1e-5)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [0.3, -0.4]])
def test_where_the_loss_is_zero_the_weights_tell_a_length(weights):
    _, found = off([3.0, -2.0], [0.0, 0.0], error=0.0, weights=weights)
    length = np.linalg.norm(weights) or 1.0
    np.testing.assert_allclose(np.abs(found), [0, 16 * 2.0**-26 * length], rtol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 1.0, 100.0])
def test_the_promised_reduction_is_just_seen(damping):
    x, found = off([3.0, -2.0, 1.0], [0.0, 0.0, 0.0], damping)
    assert not x.any()
    expected = np.sqrt(2 * 256 * 1e-12 / 2.0) * 2.0 / np.hypot(2.0, damping)
    np.testing.assert_allclose(np.abs(found), [0, expected, 0], rtol=1e-12)


def test_it_goes_on_where_the_gradient_points():
    for sign in (-1, 1):
        _, found = off([3.0, -2.0], [0.0, sign * 1e-9])
        assert np.sign(found[1]) == sign


@pytest.mark.parametrize(
    ("values", "gradient"),
    [
        ([3.0, -2.0], [1e-3, 0.0]),  # there is something to be had with the symmetry
        ([3.0, 0.0], [0.0, 0.0]),
        ([3.0, 2.0], [1e-9, 0.0]),
        ([3.0, -1e-16], [0.0, 0.0]),  # rounding
        ([3.0, -2.0], [0.0, 1e-4]),  # it points the way by itself
    ],
)
def test_other_steps_are_left_as_they_are(values, gradient):
    x, found = off(values, gradient)
    np.testing.assert_array_equal(found, x)


def test_a_minimum_is_stayed_at_and_damping_does_not_run_away():
    # The Hessian at the minimum has an eigenvalue of zero, which rounding makes negative.
    rng = np.random.default_rng(0)
    a = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 5))
    b = rng.normal(size=12)
    w = tf.Variable(rng.normal(size=5))
    optimizer, lowest = steps(
        lambda: tf.reduce_sum(tf.square(tf.tanh(tf.linalg.matvec(a, w)) - b)), [w], 80
    )
    last = optimizer.decisions[-1]
    assert np.isfinite(last.damping) and last.loss_after == pytest.approx(lowest, rel=1e-12)
