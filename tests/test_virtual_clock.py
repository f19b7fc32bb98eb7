"""Runs priced after the fact: against the run's own decisions, and against the formulas."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keras_qnewton import Constant, NewtonLog, QNewton, Scheduler, project
from keras_qnewton.run_file import Decisions
from keras_qnewton.scheduling import CGTime, DetailedQLSA, LUTime, cg_time
from keras_qnewton.solvers import QSVT
from keras_qnewton.types import Decision
from keras_qnewton.virtual_clock import projections
from tests.optimizer.models import compiled, fit

LU_TIME = LUTime(coefficients=(1e-10, 1e-9, 1e-6))


def decision(size, kappa, sparsity, **kwargs):
    kwargs = {"step": 0, "block": "b"} | kwargs
    return Decision("lu", "", {}, size, kappa, sparsity, **kwargs)


def scheduler(**kwargs):
    return Scheduler(quantum=QSVT(backend="emulator"), classical_cost=LU_TIME, **kwargs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    # In between what the blocks' κ make cheap and dear.
    own = scheduler(gate_time=2.5e-11)
    model = compiled(QNewton(blocks="layer", scheduler=own))
    fit(model, steps=8, callbacks=[NewtonLog(path)])
    return own, model.optimizer.decisions, path


def test_at_the_runs_gate_time_the_routes_are_the_runs(run):
    own, decisions, path = run
    routes = [d.route for d in decisions]
    assert len(set(routes)) == 2
    for log in (decisions, path):
        priced = project(log, own.gate_time, own)
        assert list(priced.routes) == routes
        predicted = [d.predicted[d.route] for d in decisions]
        np.testing.assert_allclose(priced.seconds["scheduled"], predicted, rtol=1e-12)
        by_lu = [d.predicted["lu"] for d in decisions]
        np.testing.assert_allclose(priced.seconds["lu"], by_lu, rtol=1e-12)


@pytest.mark.parametrize(
    "cost, encoding, named",
    [
        ("asymptotic", "frobenius", None),
        ("detailed", "frobenius", "sparse_oracle"),
        ("circuit", "frobenius", "frobenius"),
        (lambda n, k, d, seconds, alpha=1.0: seconds * k * alpha, "dilation", "dilation"),
    ],
)
def test_the_log_has_the_alpha_that_made_the_price(cost, encoding, named, tmp_path):
    solver = QSVT(backend="emulator", encoding=encoding)
    own = Scheduler(quantum=solver, classical_cost=LU_TIME, cost=cost, gate_time=1e-6)
    model = compiled(QNewton(blocks="layer", scheduler=own))
    path = tmp_path / "run.jsonl"
    fit(model, steps=2, callbacks=[NewtonLog(path)])
    decisions = model.optimizer.decisions
    assert {d.encoding for d in decisions} == {named}
    assert all((d.alpha is None) == (named is None) for d in decisions)
    if named is not None:
        assert all(1 <= d.alpha <= 1.01 * d.size**1.5 for d in decisions)
    if named == "frobenius":
        assert all(d.alpha <= 1.01 * math.sqrt(2 * d.size) for d in decisions)
    # Sizes stay what they were, and files say the same.
    assert all(isinstance(d.size, int) for d in decisions)
    assert list(Decisions.from_jsonl(path)) == list(decisions)
    # Priced again, by the log alone.
    predicted = [d.predicted["qsvt"] for d in decisions]
    again = project(path, own.gate_time, own).seconds["quantum"]
    np.testing.assert_allclose(again, predicted, rtol=1e-5)
    if named == "frobenius":
        # The α of another encoding is of no use.
        other = Scheduler(quantum=QSVT("emulator"), classical_cost=LU_TIME, cost=cost)
        without = [dataclasses.replace(d, alpha=None, encoding=None) for d in decisions]
        np.testing.assert_array_equal(
            project(decisions, 1e-6, other).seconds["quantum"],
            project(without, 1e-6, other).seconds["quantum"],
        )


def saddle(optimizer, steps):
    """Steps on a function of two variables with curvature of either sign."""
    rng = np.random.default_rng(0)
    variables = [tf.Variable(rng.normal(size=size)) for size in (9, 2)]

    def loss_fn():
        a, b = variables
        return tf.reduce_sum(tf.cos(a)) + tf.reduce_sum(a) * tf.reduce_sum(b**3)

    step = tf.function(lambda: optimizer.minimize(loss_fn, variables), autograph=False)
    for _ in range(steps):
        step()


@pytest.mark.slow
def test_routes_of_a_run_that_knew_its_systems_to_be_definite():
    """Cholesky may be chosen only there, which the log says by what was priced."""
    own = Scheduler(
        classical=("cholesky", "lu"),
        quantum=QSVT(backend="emulator"),
        classical_cost={"lu": LU_TIME, "cholesky": LUTime(coefficients=(3e-11, 1e-9, 1e-6))},
        gate_time=1e-9,
    )
    for damping in (Constant(5e-3, definite=True), Constant(5e-3)):
        optimizer = QNewton(0.1, "hessian", "variable", damping, scheduler=own)
        saddle(optimizer, steps=4)
        routes = [d.route for d in optimizer.decisions]
        assert ("cholesky" in routes) == damping.definite
        priced = project(optimizer.decisions, 1e-9, own)
        assert list(priced.routes) == routes


def test_several_gate_times_at_once(run):
    own, decisions, path = run
    times = [1e-6, 1e-9, 1e-15]
    for time, priced in zip(times, projections(path, times, own), strict=True):
        alone = project(decisions, time, own)
        assert priced.gate_time == time
        assert (priced.routes, priced.break_even) == (alone.routes, alone.break_even)
        for plan, seconds in alone.seconds.items():
            np.testing.assert_array_equal(priced.seconds[plan], seconds)


def test_scheduling_is_never_worse_than_lu_and_quantum_time_is_proportional(run):
    own, decisions, _ = run
    gate_times = [10.0**exponent for exponent in range(-18, -5)]
    for gate_time, priced in zip(gate_times, projections(decisions, gate_times, own), strict=True):
        assert priced.total("scheduled") <= priced.total("lu") * (1 + 1e-12)
        assert priced.total("best classical") <= priced.total("lu") * (1 + 1e-12)
        assert 0 <= priced.saved < 1
        assert sum(priced.by_step("lu").values()) == pytest.approx(priced.total("lu"))
        expected = [
            gate_time
            * max(d.sparsity, 1)
            * d.condition_number
            * math.log2(d.size * d.condition_number / 1e-4)
            for d in decisions
        ]
        np.testing.assert_allclose(priced.seconds["quantum"], expected, rtol=1e-9)


@pytest.mark.parametrize("cost", ["asymptotic", DetailedQLSA(readout=True)])
def test_break_even_is_where_the_prices_meet(cost):
    log = [decision(1040, 80.0, 104), decision(272, 1e3, 272, block="c")]
    own = scheduler(cost=cost)
    priced = project(log, 1e-9, own)
    for one, block in zip(log, "bc", strict=True):
        there = project([one], priced.break_even[block], own)
        assert there.total("quantum") == pytest.approx(there.total("lu"), rel=1e-6)


def test_a_dear_model_has_no_break_even():
    class Dear:
        def seconds(self, size, condition_number, sparsity, gate_time):
            return tf.constant(1e9, tf.float64)

    priced = project([decision(64, 10.0, 64)], 1e-9, scheduler(cost=Dear()))
    assert priced.break_even == {"b": 0.0}
    assert priced.routes == ["lu"]


def test_routes_that_are_not_the_schedulers_stay():
    eigen = Decision("eigen", "", {}, 64, 10.0, 64, step=0, block="b")
    priced = project([eigen, decision(64, math.nan, 64, step=1)], 1e-18, scheduler())
    assert priced.routes == ["eigen", "lu"]
    assert priced.seconds["scheduled"][0] == priced.seconds["best classical"][0]
    assert math.isnan(priced.seconds["quantum"][1])
    assert "break-even gate time of b" in priced.summary()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([],), "Argument `log` must have at least one decision"),
        (([decision(4, 2.0, 4)], 0.0), "Argument `gate_time`"),
        (([decision(4, 2.0, 4)], 1e-9, Scheduler(quantum=None)), "must have a quantum solver"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        project(*arguments)


@settings(deadline=None, max_examples=15)
@given(
    size=st.integers(20, 60),
    kappa=st.floats(1.5, 300.0),
    epsilon=st.sampled_from([1e-2, 1e-4]),
    seed=st.integers(0, 10**6),
)
def test_conjugate_gradients_need_no_more_iterations(size, kappa, epsilon, seed):
    """Against the method itself, in the energy norm of the error."""
    rng = np.random.default_rng(seed)
    values = np.geomspace(1.0, kappa, size)
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix, rhs = (vectors * values) @ vectors.T, rng.normal(size=size)
    solution = np.linalg.solve(matrix, rhs)
    model = CGTime(epsilon=epsilon, seconds_per_entry=1e-9)
    iterations = int(model.iterations(size, kappa))
    # Beyond, N iterations suffice in exact arithmetic only.
    assume(iterations < size)
    x, r = np.zeros(size), rhs.copy()
    p = r.copy()
    for _ in range(iterations):
        step = (r @ r) / (p @ matrix @ p)
        x, new = x + step * p, r - step * (matrix @ p)
        p, r = new + (new @ new) / (r @ r) * p, new
    error, start = solution - x, solution
    assert error @ matrix @ error <= epsilon**2 * (start @ matrix @ start)
    assert float(model.seconds(size, kappa)) == pytest.approx(1e-9 * size**2 * iterations)


def test_a_product_takes_the_shortest_reading():
    seconds = itertools.cycle([3.0, 0.5, 7.0])
    looks, now = itertools.count(), [0.0]

    def clock():
        if next(looks) % 2:
            now[0] += next(seconds)
        return now[0]

    assert cg_time.measure(clock) == pytest.approx(0.5 / 1024**2)


def test_conjugate_gradients_are_measured_once():
    model = CGTime()
    assert model.seconds_per_entry > 0
    assert CGTime().seconds_per_entry == model.seconds_per_entry
    assert CGTime.from_config(model.get_config()).seconds_per_entry == model.seconds_per_entry


def test_bad_seconds_per_entry():
    with pytest.raises(ValueError, match="Argument `seconds_per_entry`"):
        CGTime(seconds_per_entry=0.0)
