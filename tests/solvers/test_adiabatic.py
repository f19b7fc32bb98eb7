"""The adiabatic walk: its operators, its fidelity, and the solution."""

import numpy as np
import pytest

from keras_qnewton import Scheduler
from keras_qnewton.solvers import AdiabaticWalk
from keras_qnewton.solvers.quantum.adiabatic import filtered, schedule, walk

from .systems import relative_error, symmetric, vector


def fidelity(size, condition_number, seed, steps_per_condition):
    matrix = symmetric(size, condition_number, seed % 2 == 0, seed)
    rhs = vector(size, seed) / np.linalg.norm(vector(size, seed))
    data = AdiabaticWalk(steps_per_condition).init(matrix).prepared.data
    x = np.linalg.solve(matrix, rhs)
    direction = np.stack([x, x]) / np.sqrt(2) / np.linalg.norm(x)
    return np.sum(walk(data, rhs) * direction) ** 2


def test_schedule_goes_from_0_to_1_and_slows_down():
    values = np.array([schedule(s, 50.0) for s in np.linspace(0, 1, 101)])
    np.testing.assert_allclose(values[[0, -1]], [0, 1], atol=1e-12)
    steps = np.diff(values)
    assert np.all(steps > 0) and np.all(np.diff(steps) < 0)
    assert schedule(0.3, 1.0) == 0.3


def test_slow_walk_is_adiabatic():
    # The error of the state falls like 1/T, that of the fidelity like 1/T².
    lost = [1 - fidelity(4, 5, 0, steps) for steps in (20, 80, 320)]
    assert lost[1] < lost[0] and lost[2] < lost[1]
    assert lost[2] < 1e-3


def test_filter_is_lin_and_tongs():
    matrix, rhs = symmetric(4, 10, definite=False), vector(4) / np.linalg.norm(vector(4))
    data = AdiabaticWalk(epsilon=1e-3).init(matrix).prepared.data
    both = np.concatenate([rhs, rhs]) / np.sqrt(2)
    a = np.kron([[0, 1], [1, 0]], matrix / np.linalg.norm(matrix, 2))
    square = a @ (np.eye(8) - np.outer(both, both)) @ a
    values, vectors = np.linalg.eigh(square)
    gap = 1 / data.condition_number**2

    def polynomial(y):
        degree = data.half_degree
        return np.polynomial.chebyshev.chebval(y, np.eye(degree + 1)[degree])

    y = -1 + 2 * (values - gap) / (1 - gap)
    expected = polynomial(y) / polynomial(-1 - 2 * gap / (1 - gap))
    state = vector(8, 1)
    found = filtered(data, rhs, state.reshape(2, 4)).reshape(-1)
    np.testing.assert_allclose(found, vectors @ (expected * (vectors.T @ state)), atol=1e-10)
    np.testing.assert_allclose(expected[0], 1, atol=1e-9)
    assert np.max(np.abs(expected[1:])) <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("condition_number", [2, 10, 50])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_fidelity_and_error_bars(size, condition_number):
    fidelities, errors = [], []
    for seed in range(20):
        fidelities.append(fidelity(size, condition_number, seed, 20))
        matrix = symmetric(size, condition_number, seed % 2 == 0, seed)
        rhs = vector(size, seed)
        solution = AdiabaticWalk(max_refinements=0).solve(matrix, rhs)
        errors.append(relative_error(solution.x, np.linalg.solve(matrix, rhs)))
    assert np.median(fidelities) >= 0.97
    assert max(errors) <= 5e-5


@pytest.mark.parametrize("size", [1, 2, 5])
def test_refined_solution(size):
    matrix, rhs = symmetric(size, 10, definite=False), vector(size)
    solution = AdiabaticWalk().solve(matrix, rhs)
    assert solution.residual <= 1e-11
    assert relative_error(solution.x, np.linalg.solve(matrix, rhs)) <= 1e-9
    details = solution.details
    assert details["steps"] % 2 == 0
    once = details["steps"] + details["filter_degree"]
    assert details["queries"] == once * (1 + details["refinements"])
    assert details["qubits"] == AdiabaticWalk().qubits(size)
    assert 0.5 < details["success_probability"] <= 1 + 1e-9


def test_scheduler_takes_it():
    scheduler = Scheduler(quantum=AdiabaticWalk(), gate_time=1e-30)
    assert scheduler.choose(8, 10.0, 8).route == "adiabatic_walk"


def test_matrix_beyond_the_limit_is_refused():
    with pytest.raises(ValueError, match="at most 10, the limit of AdiabaticWalk"):
        AdiabaticWalk(max_steps=100).solve(symmetric(3, 20), vector(3))


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps_per_condition": 0.0},
        {"epsilon": 1.0},
        {"max_steps": 1},
        {"tolerance": -1.0},
        {"max_refinements": -1},
    ],
)
def test_bad_settings_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Arguments? .*`{name}`.*Received: .*{name}="):
        AdiabaticWalk(**arguments)
