"""Systems made sparser and better conditioned: never beyond the bound, and for a reason."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Adaptive, QNewton, Scheduler
from keras_qnewton.scheduling import LUTime, Reshape
from tests.blocks import ScheduledBlock

TABLE = LUTime(table={1: 1e3})  # never LU: (d, κ) have a price


def quick(reshape, **arguments):
    settings = {"quantum": "qsvt", "gate_time": 1e-9, "classical_cost": TABLE}
    return Scheduler(reshape=reshape, **{**settings, **arguments})


def matrix_of(kind, size, spread, seed):
    """Random symmetric, with a diagonal of `spread` decades over the rest."""
    rng = np.random.default_rng([seed, size])
    noise = rng.normal(size=(size, size)) * 10.0**-spread
    matrix = noise @ noise.T if kind == "definite" else (noise + noise.T) / 2
    signs = 1.0 if kind == "definite" else rng.choice([-1, 1], size=size)
    return matrix + np.diag(signs * rng.uniform(0.5, 2, size=size))


def step_function(semidefinite, scheduler):
    @functools.partial(tf.function, autograph=False)
    def run(matrix, gradient, damping):
        damped = Adaptive(negative_curvature="shift")
        block = ScheduledBlock(matrix, gradient, semidefinite, damping=damped, scheduler=scheduler)
        return block.solve(damping), block.estimate(damping)[1]

    return run


# Classical, so that a circuit's own error is not in the way; each kind is traced once.
SIZE, BOUND = 10, 0.2
PRICED = Scheduler(
    classical=("cholesky", "lu"),
    quantum=None,
    classical_cost={
        "cholesky": lambda n, kappa, d, gate_time: 1e-6 * kappa * d,
        "lu": lambda n, kappa, d, gate_time: 1e-3 * kappa * d,
    },
    reshape=Reshape(bound=BOUND, sparsities=(0.3, 0.6), shifts=2),
)
RUN = {kind: step_function(kind == "definite", PRICED) for kind in ("definite", "indefinite")}
taken = []


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["definite", "indefinite"]),
    spread=st.floats(0, 4),
    log_damping=st.floats(-6, 1),
    seed=st.integers(0, 10**6),
)
def test_never_beyond_its_bound(kind, spread, log_damping, seed):
    matrix = matrix_of(kind, SIZE, spread, seed)
    gradient = np.random.default_rng([seed, 1]).normal(size=SIZE)
    damping = tf.constant(10.0**log_damping, tf.float64)
    step, shift = RUN[kind](tf.constant(matrix), tf.constant(gradient), damping)
    expected = np.linalg.solve(matrix + float(shift) * np.eye(SIZE), gradient)
    error = np.linalg.norm(step.x - expected) / np.linalg.norm(expected)
    if np.isnan(step.sparsity_before):
        assert error <= 1e-9
    else:
        taken.append(kind)
        assert error <= float(step.error_bound) * (1 + 1e-9) + 1e-12 <= BOUND * (1 + 1e-8) + 1e-12
        assert float(step.sparsity) <= float(step.sparsity_before)
        assert float(step.added_shift) >= 0


def test_both_kinds_were_reshaped_in_the_property_test():
    assert set(taken) == {"definite", "indefinite"}


@pytest.mark.parametrize("reshape", [True, pytest.param(0.25, marks=pytest.mark.slow)])
def test_predicted_time_falls_and_the_decision_says_what_was_traded(reshape):
    # A dominant diagonal: most of each row is worth nothing.
    matrix = matrix_of("definite", 16, 2.5, 3)
    gradient = np.random.default_rng(0).normal(size=16)
    decisions = {}
    for how in (False, reshape):
        weights = tf.Variable(np.zeros(16))
        optimizer = QNewton(
            scheduler=quick(how),
            curvature="hessian",
            damping=Adaptive(negative_curvature="shift"),
        )

        def loss(weights=weights):
            bend = tf.tensordot(weights, tf.linalg.matvec(tf.constant(matrix), weights), 1)
            return bend / 2 - tf.tensordot(weights, tf.constant(gradient), 1)

        optimizer.minimize(loss, [weights])
        decisions[bool(how)] = optimizer.decisions[0]
    plain, reshaped = decisions[False], decisions[True]
    assert plain.route == reshaped.route == "qsvt"
    assert reshaped.predicted["qsvt"] < plain.predicted["qsvt"]
    assert plain.sparsity_before is None and plain.error_bound is None
    assert reshaped.sparsity_before == 16 >= reshaped.sparsity
    assert reshaped.added_shift >= 0
    assert 0 < reshaped.error_bound <= quick(reshape).reshape.bound
    assert f"reshaped: d 16 → {reshaped.sparsity}, ε = " in reshaped.reason
    assert "error of the step at most" in reshaped.reason


def test_a_failed_check_solves_the_system_as_it_is(monkeypatch):
    monkeypatch.setattr(Reshape, "checked_error", lambda *_: tf.constant(float("inf"), tf.float64))
    matrix = matrix_of("definite", 8, 2.5, 3)
    step, shift = step_function(True, PRICED)(
        tf.constant(matrix), tf.ones([8], tf.float64), tf.constant(0.1, tf.float64)
    )
    expected = np.linalg.solve(matrix + float(shift) * np.eye(8), np.ones(8))
    np.testing.assert_allclose(step.x, expected, rtol=1e-9)
    assert np.isnan(step.sparsity_before) and float(step.error_bound) == float("inf")


def test_nothing_is_traded_where_no_price_depends_on_it():
    scheduler = Scheduler(classical="auto", quantum=None, reshape=True, classical_cost=TABLE)
    step, _ = step_function(True, scheduler)(
        tf.constant(matrix_of("definite", 8, 3, 0)),
        tf.ones([8], tf.float64),
        tf.constant(0.1, tf.float64),
    )
    assert np.isnan(step.sparsity_before) and np.isnan(step.error_bound)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 10),
    scale=st.floats(0, 0.999),  # at 1 the changed matrix can be singular
    shift=st.floats(0, 2),
    seed=st.integers(0, 10**6),
)
def test_the_perturbation_bound_holds(size, scale, shift, seed):
    rng = np.random.default_rng([seed, size])
    root = rng.normal(size=(size, size))
    matrix = root @ root.T + 0.1 * np.eye(size)
    smallest = np.linalg.eigvalsh(matrix)[0]
    change = rng.normal(size=(size, size))
    change = change + change.T
    change *= scale * smallest / np.linalg.norm(change, 2)
    rhs = rng.normal(size=size)
    x = np.linalg.solve(matrix, rhs)
    shift = shift * smallest
    near = np.linalg.solve(matrix + change + shift * np.eye(size), rhs)
    policy = Reshape()
    numbers = [tf.constant(v, tf.float64) for v in (smallest, scale * smallest, shift)]
    error = np.linalg.norm(near - x) / np.linalg.norm(x)
    assert error <= float(policy.error_bound(*numbers)) * (1 + 1e-9) + 1e-12
    checked = policy.checked_error(numbers[0], tf.constant(rhs - matrix @ near), tf.constant(near))
    assert error <= float(checked) * (1 + 1e-9) + 1e-12
    # The largest ε within the bound is at the bound.
    within = policy.shifts_for(numbers[0], numbers[1])
    if float(within[-1]) > 0:
        at = policy.error_bound(numbers[0], numbers[1], within[-1])
        assert float(at) == pytest.approx(policy.bound, rel=2e-3) and at <= policy.bound


@pytest.mark.parametrize("reshape", [False, True, 0.3, Reshape(0.2, (0.5,), 3)])
def test_config_round_trip(reshape):
    original = quick(reshape)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == original.get_config()
    assert (again.reshape is None) is (reshape is False)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bound": 0}, "`bound` must be a relative error"),
        ({"bound": True}, "`bound` must be a relative error"),
        ({"sparsities": (0.5, 1.5)}, "`sparsities` must be fractions"),
        ({"shifts": -1}, "`shifts` must be a non-negative integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Argument {message}.*Received"):
        Reshape(**arguments)
    with pytest.raises(ValueError, match=r"Argument `reshape` must be True.*Received"):
        Scheduler(reshape="yes")
