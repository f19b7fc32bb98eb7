"""Training with several classical routes: who takes over from whom, what is logged and saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Adaptive, Constant, QNewton, Scheduler
from keras_qnewton.directions import FIXED_ROUTES
from keras_qnewton.scheduling import LUTime, SolverTime
from keras_qnewton.solvers import Cholesky
from tests.blocks import ScheduledBlock

from .models import compiled, fit, regression_data

ROUTES = ("lapack", "cholesky", "lu")


def chooser(first="cholesky", classical=ROUTES, **arguments):
    """`first` is the cheapest; the others cost the more the later they are named."""
    costs = {
        name: SolverTime(
            name, table=dict.fromkeys((1, 100), 1e-6 if name == first else (k + 1) * 1e-4)
        )
        for k, name in enumerate(classical)
    }
    return Scheduler(classical=classical, quantum=None, classical_cost=costs, **arguments)


def solver(scheduler, damping, semidefinite, shift=1e-3):
    """From a matrix to one block's step and its right side; traced once for each size."""

    @tf.function
    def run(matrix, rhs):
        block = ScheduledBlock(matrix, rhs, semidefinite, damping=damping, scheduler=scheduler)
        return block.solve(tf.constant(shift, tf.float64))

    def solved(matrix):
        rhs = np.random.default_rng(1).normal(size=len(matrix)).astype("float32")
        return run(tf.constant(matrix), tf.constant(rhs)), rhs

    return solved


def solve(matrix, *arguments, **keywords):
    return solver(*arguments, **keywords)(matrix)


def leaves_graph(concrete):
    """Whether a host call is in the traced function or in one that it calls."""
    definition = concrete.graph.as_graph_def()
    bodies = [definition.node, *(function.node_def for function in definition.library.function)]
    return any(node.op in ("PyFunc", "PyFuncStateless") for body in bodies for node in body)


def names(step, scheduler):
    routes = (*FIXED_ROUTES, *scheduler.routes)
    return routes[int(step.route)], routes[int(step.solved_by)]


def indefinite(size=6, seed=0):
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    values = np.linspace(1, 2, size) * np.where(np.arange(size) % 2, 1, -1)
    return ((vectors * values) @ vectors.T).astype("float32")


@pytest.mark.parametrize("first", ["lapack", "cholesky", "lu"])
def test_the_chosen_route_solves(first):
    scheduler = chooser(first)
    matrix = indefinite() @ indefinite().T
    step, rhs = solve(matrix, scheduler, Adaptive(), semidefinite=True)
    assert names(step, scheduler) == (first, first)
    system = matrix.astype("float64") + 1e-3 * np.eye(6)
    np.testing.assert_allclose(step.x, np.linalg.solve(system, rhs), rtol=2e-2)
    assert step.residual < 1e-10 and step.predicted.shape == (3,)


TWO_ROUTES = chooser(classical=("cholesky", "lu"))
UNDAMPED = {
    semidefinite: solver(TWO_ROUTES, Constant(epsilon=0.0), semidefinite)
    for semidefinite in (True, False)
}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_lu_takes_over_where_cholesky_meets_an_indefinite_matrix(seed):
    # Said to be semidefinite, which it is not.
    matrix = indefinite(seed=seed)
    step, rhs = UNDAMPED[True](matrix)
    assert names(step, TWO_ROUTES) == ("cholesky", "lu")
    np.testing.assert_allclose(step.x, np.linalg.solve(matrix.astype("float64"), rhs), rtol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cholesky_is_not_asked_of_what_is_not_known_to_be_definite(seed):
    step, _ = UNDAMPED[False](indefinite(seed=seed))
    assert names(step, TWO_ROUTES) == ("lu", "lu")
    assert np.isnan(step.predicted).all()


def test_a_singular_matrix_goes_to_the_last_resort():
    scheduler = chooser()
    matrix = np.diag([1.0, 0.0, 2.0]).astype("float32")
    step, _ = solve(matrix, scheduler, Constant(epsilon=0.0), semidefinite=True)
    assert names(step, scheduler) == ("cholesky", "eigen")


tried = []


class Watched(Cholesky):
    def solve(self, matrix, rhs):
        tf.py_function(lambda: tried.append(self.name), [], [])
        return super().solve(matrix, rhs)


WATCHED = Scheduler(classical=Watched(), quantum=None)
DAMPED = solver(WATCHED, Constant(epsilon=1e-3), semidefinite=False)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ldl_takes_a_system_that_is_not_definite(seed):
    """By the default scheduler, which has Cholesky alone; that is not even tried."""
    matrix = indefinite(60, seed)
    step, rhs = DAMPED(matrix)
    assert names(step, WATCHED) == ("cholesky", "ldl")
    assert "cholesky" not in tried
    system = matrix + 1e-3 * np.abs(matrix).max() * np.eye(60)
    np.testing.assert_allclose(
        step.x, np.linalg.solve(system.astype("float64"), rhs), rtol=1e-3, atol=1e-6
    )
    assert step.residual < 1e-6


def test_an_eigendecomposition_takes_what_has_no_factorisation():
    scheduler = Scheduler(classical="cholesky", quantum=None)
    coupling = indefinite(96)
    zeros = np.zeros_like(coupling)
    matrix = np.block([[zeros, coupling], [coupling, zeros]])
    step, rhs = solve(matrix, scheduler, Constant(epsilon=0.0), semidefinite=False)
    assert names(step, scheduler) == ("cholesky", "eigen")
    np.testing.assert_allclose(step.x, np.linalg.solve(matrix.astype("float64"), rhs), rtol=1e-3)


class Wrong:
    """A solver that is told by its residual: half of the solution."""

    host = False

    def __init__(self, name):
        self.name = name

    def solve(self, matrix, rhs):
        solution = keras.saving.get_registered_object("keras_qnewton>Cholesky")().solve(matrix, rhs)
        return type(solution)(solution.x / 2, tf.constant(0.5, tf.float64), self.name)


class ByKappa:
    """Cheap at a low κ."""

    def seconds(self, size, condition_number, sparsity, gate_time):
        return 1e-3 * condition_number


@pytest.mark.parametrize(
    "cost", [LUTime(table={1: 1e-9}), ByKappa()], ids=["known when traced", "known when run"]
)
def test_a_finite_residual_that_rounding_does_not_explain_fails(cost):
    scheduler = Scheduler(
        classical=(Wrong("wrong"), "cholesky"),
        quantum=None,
        classical_cost={"wrong": cost, "cholesky": LUTime(table={1: 1.0})},
    )
    matrix = np.diag([1.0, 2.0, 3.0]).astype("float32")
    step, rhs = solve(matrix, scheduler, Adaptive(), semidefinite=True)
    assert names(step, scheduler) == ("wrong", "cholesky")
    np.testing.assert_allclose(step.x, rhs / (np.diag(matrix) + 1e-3), rtol=1e-5)


def test_a_run_where_lu_takes_over_is_logged():
    # The Gauss-Newton matrix without a shift: semidefinite, but for rounding.
    optimizer = QNewton(
        learning_rate=1e-9,
        curvature="gauss_newton",
        damping=Constant(epsilon=0.0),
        scheduler=chooser(classical=("cholesky", "lu")),
    )
    x, y = regression_data(n=8)  # 26 weights: rank 8
    model = compiled(optimizer)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, shuffle=False)
    assert len(optimizer.decisions) == 3
    for d in optimizer.decisions:
        assert d.route == "cholesky" and d.fallback and d.solved_by in ("lu", "eigen")
        assert d.reason.startswith("cholesky: 1e-06 s predicted, lu: 0.0002 s (N = 26")
        assert d.reason.endswith(f"; cholesky failed its residual check, {d.solved_by} took over")
        assert set(d.predicted) == {"cholesky", "lu"}
    assert "lu" in {d.solved_by for d in optimizer.decisions}


@pytest.fixture(scope="module")
def by_lu():
    """A model after three steps where LU is the cheapest, and their losses."""
    model = compiled(QNewton(curvature="gauss_newton", scheduler=chooser("lu")))
    return model, fit(model, 3)


# Cholesky is in the graph, as LU is; LAPACK is called on the host.
@pytest.mark.parametrize("first", ["lapack", pytest.param("cholesky", marks=pytest.mark.slow)])
def test_every_route_trains_alike_and_the_log_says_which(first, by_lu):
    optimizer = QNewton(curvature="gauss_newton", scheduler=chooser(first))
    losses = fit(compiled(optimizer), 3)
    assert {(d.route, d.solved_by) for d in optimizer.decisions} == {(first, first)}
    assert all(set(d.predicted) == set(ROUTES) for d in optimizer.decisions)
    np.testing.assert_allclose(losses, by_lu[1], rtol=1e-4)


@pytest.mark.slow
def test_saved_and_loaded_with_several_routes(tmp_path, by_lu):
    model, optimizer = by_lu[0], by_lu[0].optimizer
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    assert again.optimizer.scheduler.routes == ROUTES
    assert again.optimizer.decisions == optimizer.decisions
    np.testing.assert_allclose(fit(again, 3), fit(model, 3), rtol=1e-5)
    assert [d.step for d in again.optimizer.decisions] == [0, 1, 2, 3, 4, 5]
    assert {d.solved_by for d in again.optimizer.decisions} == {"lu"}


@pytest.mark.parametrize("classical, host", [("auto", False), (ROUTES, True)])
def test_auto_has_no_host_call(classical, host):
    optimizer = QNewton(
        curvature="gauss_newton",
        scheduler=Scheduler(
            classical=classical, quantum=None, classical_cost=LUTime(table={1: 1e-3})
        ),
    )
    model = compiled(optimizer)
    x, y = (tf.constant(a) for a in regression_data())
    optimizer.build(model.trainable_variables)
    step = tf.function(
        lambda: optimizer.minimize(
            lambda: tf.reduce_mean((model(x) - y) ** 2), model.trainable_variables
        )
    ).get_concrete_function()
    assert leaves_graph(step) == host


@pytest.mark.parametrize("classical, host", [(("lapack", "lu"), True), ("lu", False)])
def test_where_the_ends_of_a_large_indefinite_block_come_from(classical, host):
    """By as many products on the host as they take where a route is there; else in the graph."""
    size = 600
    values = np.concatenate([-np.linspace(0.1, 0.5, 20), np.linspace(0, 1, size - 21) ** 4, [5.0]])
    normal = np.random.default_rng(0).normal(size=size)
    reflection = np.eye(size) - 2 * np.outer(normal, normal) / (normal @ normal)
    matrix = ((reflection * values) @ reflection).astype("float32")
    scheduler = chooser("lu", classical) if host else Scheduler(classical="lu", quantum=None)
    assert scheduler.leaves_graph(size) == host

    @tf.function
    def run(matrix):
        damping = Adaptive(negative_curvature="shift")
        block = ScheduledBlock(matrix, tf.ones([size]), damping=damping, scheduler=scheduler)
        strength = tf.constant(0.01, tf.float64)
        return block.solve(strength), *block.estimate(strength)

    assert leaves_graph(run.get_concrete_function(tf.TensorSpec([size, size]))) == host
    step, kappa, shift = run(tf.constant(matrix))
    shifted = np.linalg.eigvalsh(matrix.astype("float64")) + float(shift)
    assert shifted[0] >= 0.01 and step.residual < 1e-9
    np.testing.assert_allclose(kappa, shifted[-1] / shifted[0], rtol=0.1)
    # In full products in float64: halves of the matrix in float32, or the whole of it.
    assert step.products <= 40 * (0.25 if host else 0.5)
