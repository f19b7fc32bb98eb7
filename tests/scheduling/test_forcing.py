"""Inexact Newton: the forcing term, and trainings whose circuits are solved no better than it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.polynomial import chebyshev

from keras_qnewton import QNewton, Scheduler, Solution
from keras_qnewton.scheduling import CircuitQLSA, Forcing
from keras_qnewton.scheduling.cost import preparation_depth
from keras_qnewton.solvers import QSVT, Shortcut
from keras_qnewton.solvers.quantum.inverse_polynomial import inverse_degree
from keras_qnewton.solvers.quantum.kernel_polynomial import inverse_by_residual_coefficients

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 5)), RNG.integers(0, 2, size=(60, 1))


def f64(value):
    return tf.constant(value, tf.float64)


def test_terms_are_eisenstat_and_walkers():
    forcing = Forcing(factor=0.9, power=2.0, first=0.5, largest=0.9)
    norms, expected, last_norm, last = [8.0, 4.0, 3.0, 0.03, 3e-4], [], 0.0, 0.0
    for norm in norms:
        found = float(forcing.term(f64(norm), f64(last_norm), f64(last)))
        if last_norm == 0:
            exact = 0.5
        else:
            exact = 0.9 * (norm / last_norm) ** 2
            if 0.9 * last**2 > 0.1:
                exact = max(exact, 0.9 * last**2)
            exact = min(exact, 0.9)
        expected.append(exact)
        assert found == pytest.approx(exact)
        last_norm, last = norm, found
    # The safeguard holds η up once, and lets it go.
    assert expected[1] == pytest.approx(0.225)
    assert expected[3] == pytest.approx(0.9 * expected[2] ** 2) and expected[-1] < 1e-3


def test_a_gradient_that_is_lost_starts_anew():
    for last_norm in (0.0, np.nan, np.inf):
        assert 0 < float(Forcing().term(f64(1.0), f64(last_norm), f64(0.1))) <= 0.1
    assert float(Forcing().term(f64(np.nan), f64(1.0), f64(0.1))) == 0.1


@pytest.mark.parametrize("kappa, tolerance", [(10.0, 0.1), (40.0, 0.2), (300.0, 0.01)])
def test_polynomial_of_the_residual(kappa, tolerance):
    solver = QSVT().at(tolerance)
    degree = solver._degree(kappa)
    coefficients = inverse_by_residual_coefficients(kappa, degree)
    x = np.linspace(1 / kappa, 1, 5000)
    residual = 1 - x * chebyshev.chebval(x, coefficients)
    assert np.max(np.abs(residual)) <= tolerance
    assert not np.any(coefficients[::2])
    # About κ ln(2/η), where 1/x itself takes κ ln(κ/ε).
    assert degree <= 1.12 * kappa * np.log(4 / tolerance) + 2
    assert degree < 0.7 * inverse_degree(kappa, 1e-3)


@pytest.mark.parametrize("tolerance", [0.3, 0.1, 1e-3, 1e-7])
@pytest.mark.parametrize("kind", [QSVT, Shortcut])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_no_more_is_solved_than_is_asked_for(kind, tolerance, graph):
    rng = np.random.default_rng(1)
    vectors = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    matrix = (vectors * np.geomspace(-1, -1 / 40, 6)) @ vectors.T
    matrix, rhs = (matrix + matrix.T) / 2, rng.normal(size=6)
    solver = kind("emulator")

    def solve(tolerance):
        solution = solver.solve_to(tf.constant(matrix), tf.constant(rhs), tolerance)
        return solution.x, solution.residual

    x, residual = (tf.function(solve) if graph else solve)(f64(tolerance))
    found = np.linalg.norm(matrix @ x.numpy() - rhs) / np.linalg.norm(rhs)
    assert found <= tolerance
    assert float(residual) == pytest.approx(found, abs=1e-14)
    # A coarse solution is not an exact one, and costs less.
    assert found > 1e-6 * tolerance
    coarse = solver.at(tolerance).solve(matrix, rhs).details["queries"]
    assert coarse < solver.solve(matrix, rhs).details["queries"]
    assert solver.tolerance == 1e-12 and solver.epsilon == 1e-3


def model_of(forcing, solver, **settings):
    """A model whose loss has a lowest value."""
    penalised = keras.regularizers.L2(0.01)
    model = keras.Sequential(
        [keras.layers.Input((5,)), keras.layers.Dense(1, "tanh", kernel_regularizer=penalised)]
    )
    model.set_weights([np.full((5, 1), 0.5), np.zeros(1)])
    optimizer = QNewton(
        scheduler=Scheduler(quantum=solver, gate_time=1e-30, forcing=forcing, **settings)
    )
    model.compile(optimizer, "mean_squared_error")
    return model


def trained_on(model, steps):
    """Losses before each step."""
    losses = []
    for _ in range(steps):
        losses.append(float(model.train_on_batch(X, Y)))
        model.reset_metrics()
    return losses


def trained(forcing, steps, solver, **settings):
    """Losses before each step, and the optimizer."""
    model = model_of(forcing, solver, **settings)
    return trained_on(model, steps), model.optimizer


@pytest.mark.parametrize("kind", [QSVT, Shortcut])
def test_training_goes_on_as_with_exact_steps(kind):
    def solver():
        return kind("emulator", max_degree=10**6)

    exact_losses, exact = trained(False, 4, solver())
    losses, optimizer = trained(True, 4, solver())
    assert losses[-1] <= exact_losses[-1] * 1.01
    residuals = [decision.residual for decision in optimizer.decisions]
    # Systems are solved coarsely, by circuits, and none is solved again.
    assert max(residuals) > 1e-4 and max(residuals) <= 0.1
    assert all(decision.solved_by == kind.name for decision in optimizer.decisions)
    assert max(decision.residual for decision in exact.decisions) < 1e-6
    # What is kept for the next step: the last η, which followed the gradient down.
    (kept,) = (v.numpy() for v in optimizer.variables if v.path.endswith("forced"))
    assert kept[0] > 0 and 1e-6 <= kept[1] <= 0.1


@pytest.mark.parametrize("kind", [QSVT, Shortcut])
@pytest.mark.parametrize("encoding", ["dilation", "frobenius"])
@pytest.mark.parametrize("tolerance", [0.3, 0.1, 1e-2, 1e-5])
def test_the_price_is_of_the_circuit_that_the_tolerance_takes(kind, encoding, tolerance):
    rng = np.random.default_rng(2)
    vectors = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    matrix = (vectors * np.geomspace(1, 1 / 30, 8)) @ vectors.T
    matrix = (matrix + matrix.T) / 2
    solver = kind("emulator", encoding=encoding)
    coarse = solver.at(tolerance)
    resources = coarse.solve(matrix, rng.normal(size=8)).details["resources"]
    given = [f64(value) for value in (matrix, 1.0, 30.0)]
    alpha = solver.measured(*given)["alpha"]
    depth = float(solver.circuit_depth(8, 30.0, 8, alpha=alpha, tolerance=tolerance))
    rows = 1 << resources.encoding.system_qubits
    assert depth == pytest.approx(resources.depth - float(preparation_depth(rows)), rel=0.1)
    assert depth == float(coarse.circuit_depth(8, 30.0, 8, alpha=alpha))
    if tolerance > 1e-3:
        assert depth < float(solver.circuit_depth(8, 30.0, 8, alpha=alpha))


def test_routes_follow_the_tolerance_that_is_asked_for():
    """At a gate time between the prices of both, a forcing term sends systems to circuits."""
    exact = trained(False, 1, QSVT("emulator"), cost=CircuitQLSA())[1].decisions[0]
    asked = trained(True, 1, QSVT("emulator"), cost=CircuitQLSA())[1].decisions[0]
    assert asked.predicted["qsvt"] < 0.8 * exact.predicted["qsvt"]
    between = (asked.predicted["qsvt"] * exact.predicted["qsvt"]) ** 0.5
    flat = {"lu": lambda *_: between}
    for forcing, route in ((False, "lu"), (True, "qsvt")):
        decision = trained(forcing, 1, QSVT("emulator"), cost=CircuitQLSA(), classical_cost=flat)[
            1
        ].decisions[0]
        assert decision.route == decision.solved_by == route


def test_a_function_is_told_the_tolerance_where_it_asks():
    seen = []

    def price(size, condition_number, sparsity, gate_time, tolerance=None):
        seen.append(tolerance)
        return gate_time * condition_number / (1.0 if tolerance is None else 10 * tolerance)

    def plain(size, condition_number, sparsity, gate_time):
        return gate_time * condition_number

    for forcing, told in ((True, True), (False, False)):
        seen.clear()
        decisions = trained(forcing, 1, QSVT("emulator"), cost=price)[1].decisions
        assert any(value is not None for value in seen) == told
        kappa = decisions[0].condition_number
        assert decisions[0].predicted["qsvt"] == pytest.approx(1e-30 * kappa)
    assert trained(True, 1, QSVT("emulator"), cost=plain)[1].decisions[0].route == "qsvt"


def test_another_solver_is_solved_as_it_is():
    """One that knows of no tolerance, and leaves the graph by itself."""

    class Exactly:
        name, host = "exactly", True

        def qubits(self, size):
            return 1

        def solve(self, matrix, rhs):
            return Solution(np.linalg.solve(matrix, rhs), 0.0, self.name)

    losses, optimizer = trained(True, 2, Exactly())
    assert {decision.solved_by for decision in optimizer.decisions} == {"exactly"}
    assert losses[1] < losses[0]


def test_state_without_it_is_that_of_earlier_versions():
    names = [v.path for v in trained(False, 1, QSVT("emulator"))[1].variables]
    assert not any("forced" in name for name in names)


def test_a_saved_run_goes_on_as_an_unbroken_one(tmp_path):
    unbroken = model_of(True, QSVT("emulator"))
    losses = trained_on(unbroken, 4)
    broken = model_of(True, QSVT("emulator"))
    before = trained_on(broken, 2)
    broken.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.scheduler.forcing.get_config() == Forcing().get_config()
    assert before + trained_on(again, 2) == losses
    (kept,) = (v.numpy() for v in again.optimizer.variables if v.path.endswith("forced"))
    (expected,) = (v.numpy() for v in unbroken.optimizer.variables if v.path.endswith("forced"))
    np.testing.assert_array_equal(kept, expected)


def test_config_round_trip():
    for given in (False, True, Forcing(factor=0.5, power=1.6, first=0.3, largest=0.4)):
        scheduler = Scheduler(forcing=given)
        stored = json.dumps(keras.saving.serialize_keras_object(scheduler))
        again = keras.saving.deserialize_keras_object(json.loads(stored))
        assert again.get_config() == scheduler.get_config()
    assert Scheduler().forcing is None and Scheduler(forcing=True).forcing.largest == 0.1


@pytest.mark.parametrize(
    "arguments",
    [
        {"factor": 0.0},
        {"factor": 2.0},
        {"power": 1.0},
        {"power": 3},
        {"first": 0},
        {"largest": 2},
    ],
)
def test_bad_arguments(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Argument `{name}` must be"):
        Forcing(**arguments)
    with pytest.raises(ValueError, match="Argument `forcing` must be"):
        Scheduler(forcing=0.1)
