"""The strong Wolfe line search."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize._dcsrch import DCSRCH

from keras_qnewton.quasi_newton.line_search import Point, StrongWolfe
from tests.quasi_newton.functions import MORE_THUENTE, on_a_ray

UNIT = {tf.float32: 2.0**-21, tf.float64: 2.0**-50}


def scalar(value):
    return tf.constant(value, tf.float64)


def searched(function, first=1.0, error=0.0, policy=None, dtype=tf.float64):
    """What the search found on `function`, its start, and all the points that it evaluated."""
    evaluate, points = on_a_ray(function, dtype), []

    def recorded(step):
        points.append(evaluate(step))
        return points[-1]

    start = evaluate(scalar(0.0))
    search = (policy or StrongWolfe()).along(recorded, start, scalar(first), scalar(error))
    out = search.found()
    return out, start, points


def holds(point, start, policy):
    """Whether the strong Wolfe conditions hold, by the losses."""
    change = float(point.value - start.value)
    sufficient = change <= policy.sufficient_decrease * float(point.step * start.slope)
    return sufficient and abs(float(point.slope)) <= policy.curvature * abs(float(start.slope))


# MINPACK-2's search ends where the search here does, on a trial that is taken. Where it ends with a
# warning, it evaluates the best point once more, which is left out here.
@pytest.mark.parametrize("first", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("name", MORE_THUENTE)
def test_trials_are_those_of_minpack_2(name, first):
    function, sufficient_decrease, curvature = MORE_THUENTE[name]
    evaluate, theirs = on_a_ray(function), []

    def value(step):
        theirs.append(step)
        return float(evaluate(scalar(step)).value)

    search = DCSRCH(
        value,
        lambda step: float(evaluate(scalar(step)).slope),
        sufficient_decrease,
        curvature,
        1e-14,
        0.0,
        1e10 * first,
    )
    start = evaluate(scalar(0.0))
    taken, *_ = search(first, float(start.value), float(start.slope))
    policy = StrongWolfe(sufficient_decrease, curvature, max_evaluations=100)
    out, _, points = searched(function, first, policy=policy)
    np.testing.assert_allclose([float(p.step) for p in points], theirs, rtol=1e-10)
    assert float(out.point.step) == pytest.approx(taken, rel=1e-10) and bool(out.satisfied)


def quartic(c1, c2, c3, c4):
    return lambda a: c4 * a**4 + c3 * a**3 + c2 * a**2 - c1 * a


def log_sum_exp(c1, c2, c3, c4):
    """Slope -c₁ at 0, up to the weights of the terms, and lines on both sides."""
    rates = tf.constant([-c1, c2, 1 + c4], tf.float64)
    offsets = tf.constant([0.0, -1 - abs(c3), -3.0], tf.float64)
    return lambda a: tf.reduce_logsumexp(rates * a + offsets)


def waves(c1, c2, c3, c4):
    return lambda a: tf.sin(c2 * a) * abs(c3) - c1 * a + c4 * a**2


COEFFICIENT = st.floats(-10, 10)


@settings(deadline=None)
@given(
    st.sampled_from([quartic, log_sum_exp, waves]),
    st.floats(1e-2, 10),
    COEFFICIENT,
    COEFFICIENT,
    st.floats(1e-2, 10),
    st.floats(-3, 3),
    st.booleans(),
)
def test_what_is_satisfied_is_strong_wolfe_and_nothing_rises(
    kind, c1, c2, c3, c4, decade, rounding
):
    function, policy = kind(c1, c2, c3, c4), StrongWolfe()
    start = on_a_ray(function)(scalar(0.0))
    error = rounding * UNIT[tf.float64] * abs(float(start.value))
    out, start, _ = searched(function, 10.0**decade, error, policy)
    assert float(out.point.value) <= float(start.value)
    if out.satisfied:
        assert holds(out.point, start, policy)


@settings(deadline=None)
@given(st.floats(1e-2, 10), COEFFICIENT, COEFFICIENT, st.floats(1e-2, 10), st.floats(-3, 3))
def test_a_function_that_is_bounded_below_is_satisfied(c1, c2, c3, c4, decade):
    out, *_ = searched(quartic(c1, c2, c3, c4), 10.0**decade)
    assert out.satisfied


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-3, 3))
@example(1.0, 0.0)  # the first trial is on the wall
def test_a_barrier_is_not_crossed(wall, decade):
    def barrier(a):
        return -tf.math.log(wall - a) - 3 * a / wall

    out, start, _ = searched(barrier, wall * 10.0**decade)
    assert out.satisfied and float(out.point.step) < wall
    assert float(out.point.value) < float(start.value)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_too_long(value):
    out, *_ = searched(lambda a: (a - 0.4) ** 2 if a < 0.5 else value * a)
    assert out.satisfied and float(out.point.step) < 0.5


def test_unbounded_below_ends_at_the_longest_step():
    policy = StrongWolfe(max_evaluations=100)
    out, _, points = searched(lambda a: -a, 0.5, policy=policy)
    assert float(out.point.step) == 0.5e10 and not out.satisfied
    assert int(out.evaluations) == len(points) < 25


def test_evaluations_are_limited_and_the_best_point_is_kept():
    # Trials on the way down a line, and too few of them to meet a rise.
    out, start, points = searched(lambda a: -a + 1e-9 * a**2, policy=StrongWolfe(max_evaluations=3))
    assert int(out.evaluations) == len(points) == 3 and not out.satisfied
    assert float(out.point.value) == min(float(p.value) for p in points) < float(start.value)


def test_the_start_is_kept_if_nothing_is_lower():
    out, start, _ = searched(lambda a: tf.where(a > 0, 1 + a, -a), policy=StrongWolfe())
    assert float(out.point.step) == 0 and not out.satisfied
    assert out.point.gradient is start.gradient or float(out.point.slope) == float(start.slope)


@pytest.mark.parametrize("first", [1.0, 0.0, -1.0, np.nan, np.inf])
def test_of_a_ray_that_rises_or_a_first_step_that_is_none_nothing_is_taken(first):
    rises = first == 1.0
    out, *_ = searched(lambda a: a if rises else -a, first)
    assert int(out.evaluations) == 0 and float(out.point.step) == 0 and not out.satisfied


def test_one_evaluation_where_the_first_trial_is_good():
    out, _, points = searched(lambda a: (a - 1) ** 2, 0.9)
    assert len(points) == int(out.evaluations) == 1 and float(out.point.step) == 0.9


@settings(deadline=None)
@given(st.floats(0.05, 20), st.integers(0, 2**31), st.floats(1e-9, 1e-7))
def test_a_change_below_the_rounding_is_judged_by_slopes(minimiser, seed, curvature):
    # A parabola whose fall is below the last digit of a float32 loss. The rounding has the losses
    # rise and fall at random.
    noise = np.random.default_rng(seed)

    def evaluate(step):
        a = float(step)
        value = np.float32(1 + 2.0**-23 * noise.integers(-1, 2) if a else 1 + 2.0**-23)
        slope = scalar(curvature * (a - minimiser))
        return Point(step, scalar(float(value)), slope, tf.reshape(slope, [1]))

    policy, start = StrongWolfe(), evaluate(scalar(0.0))
    out = policy.along(evaluate, start, scalar(1.0), scalar(UNIT[tf.float32])).found()
    assert float(out.point.value) <= float(start.value)
    if out.satisfied:
        approximate = (2 * policy.sufficient_decrease - 1) * float(start.slope)
        assert float(out.point.slope) <= approximate * (1 - 1e-12)
        assert abs(float(out.point.slope)) <= policy.curvature * abs(float(start.slope))


def test_losses_that_refuse_what_slopes_take_end_the_search_soon():
    def evaluate(step):
        slope = 1e-9 * (step - 1.0)
        value = tf.where(step > 0, 1 + 2.0**-23, tf.ones_like(step))
        return Point(step, value, slope, tf.reshape(slope, [1]))

    start = evaluate(scalar(0.0))
    out = StrongWolfe().along(evaluate, start, scalar(0.9), scalar(UNIT[tf.float32])).found()
    assert float(out.point.step) == 0 and int(out.evaluations) <= 5
    # The trial that slopes took still tells the curvature.
    assert float(out.pair.step) > 0
    assert abs(float(out.pair.slope)) <= 0.9 * abs(float(start.slope))


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_a_rounding_larger_than_it_was_said_to_be_is_found_out(seed):
    # The loss falls by 1e-6 at most; it is exact to 1e-4, and said to be exact to 1e-8.
    noise = np.random.default_rng(seed)

    def evaluate(step):
        a = float(step)
        slope = scalar(1e-6 * (a - 1))
        value = 1 + 1e-6 * (a * a / 2 - a) + (1e-4 * noise.uniform(-1, 1) if a else 0.0)
        return Point(step, scalar(value), slope, tf.reshape(slope, [1]))

    start = evaluate(scalar(0.0))
    out = StrongWolfe().along(evaluate, start, scalar(1e-3), scalar(1e-8)).found()
    assert 1e-8 < float(out.value_error) <= 1e-4
    assert float(out.point.value) <= 1
    # By slopes, not by where losses happen to be low.
    if out.satisfied:
        assert abs(float(out.point.slope)) <= 0.9e-6
    else:
        assert int(out.evaluations) < 25 and abs(float(out.pair.slope)) <= 0.9e-6


def test_an_error_that_is_right_stays_what_it_is():
    out, *_ = searched(lambda a: (a - 1) ** 4, 1e-3, error=1e-15)
    assert float(out.value_error) == 1e-15 and out.satisfied


@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_evaluates_in_two_places(compiled):
    traces = []
    evaluate = on_a_ray(lambda a: (a - 1) ** 4)

    def counted(step):
        traces.append(step)
        return evaluate(step)

    @tf.function(jit_compile=compiled)
    def search(first):
        return StrongWolfe().along(counted, evaluate(scalar(0.0)), first, scalar(0.0)).found()

    out = search(scalar(100.0))
    assert len(traces) == 2 and int(out.evaluations) > 2
    eager, *_ = searched(lambda a: (a - 1) ** 4, 100.0)
    assert float(out.point.step) == pytest.approx(float(eager.point.step), rel=1e-12)


def test_float32_gradients_stay_what_they_are():
    out, *_ = searched(lambda a: (a - 3) ** 2, dtype=tf.float32, error=9 * UNIT[tf.float32])
    assert out.point.gradient.dtype == tf.float32 and out.point.gradient.shape == [1]


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"curvature": 1.0}, "curvature"),
        ({"sufficient_decrease": 0.0}, "sufficient_decrease"),
        ({"sufficient_decrease": 0.5, "curvature": 0.4}, "sufficient_decrease"),
        ({"max_evaluations": 0}, "max_evaluations"),
        ({"max_evaluations": True}, "max_evaluations"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"Argument `{name}` must be"):
        StrongWolfe(**arguments)


def test_it_is_made_again_from_its_config():
    policy = StrongWolfe(1e-3, 0.5, 7)
    config = keras.saving.serialize_keras_object(policy)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == policy.get_config()
