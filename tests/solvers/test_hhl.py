"""HHL: the circuit's errors, what refinement makes of them, and the scheduler."""

import cirq
import numpy as np
import pytest

from keras_qnewton import Scheduler
from keras_qnewton.solvers import HHL

from .systems import relative_error, symmetric, vector


def errors(condition_number, sizes, seeds, **options):
    out = []
    for size in sizes:
        for seed in seeds:
            matrix = symmetric(size, condition_number, seed % 2 == 0, seed)
            rhs = vector(size, seed)
            solution = HHL(max_refinements=0, **options).solve(matrix, rhs)
            out.append(relative_error(solution.x, np.linalg.solve(matrix, rhs)))
    return np.array(out)


def test_a_clock_that_hits_every_eigenvalue_makes_no_error():
    # Multiples of ||A|| / (2^(m-1) - 1): 2, 4, -3 and 7 of 7.
    matrix, rhs = np.diag([2.0, 4.0, -3.0, 7.0]), vector(4)
    solution = HHL(clock_qubits=4, dtype="complex128", max_refinements=0).solve(matrix, rhs)
    assert HHL(clock_qubits=5).max_condition_number == 8
    assert relative_error(solution.x, rhs / np.diag(matrix)) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("condition_number, bar", [(2, 0.08), (10, 0.06), (50, 0.25)])
def test_errors_of_an_eight_bit_clock(condition_number, bar):
    found = errors(condition_number, (2, 4, 8), range(20))
    assert np.max(found) <= bar
    assert np.median(found) >= bar / 10  # the docstring's figures are not overcautious


def test_two_more_clock_qubits_help():
    few, many = (np.median(errors(10, (4,), range(4), clock_qubits=m)) for m in (6, 9))
    assert many < few / 2


@pytest.mark.parametrize("size, condition_number", [(2, 10), (5, 10), (8, 5)])
def test_refined_solution(size, condition_number):
    matrix, rhs = symmetric(size, condition_number, definite=False), vector(size)
    solution = HHL().solve(matrix, rhs)
    assert solution.residual <= 1e-11
    assert relative_error(solution.x, np.linalg.solve(matrix, rhs)) <= 1e-9
    details = solution.details
    assert details["qubits"] == HHL().qubits(size) == 9 + int(np.ceil(np.log2(size)))
    np.testing.assert_allclose(details["condition_number"], condition_number, rtol=1e-6)
    assert 0 < details["success_probability"] < 1
    assert details["queries"] == 2 * 255 * (1 + details["refinements"])


def test_circuit_is_the_one_that_is_run():
    matrix, rhs = symmetric(2, 3, definite=False), vector(2)
    solver = HHL(clock_qubits=4, dtype="complex128", max_refinements=0)
    solution = solver.solve(matrix, rhs)
    circuit = solver.circuit(matrix, rhs)
    assert len(circuit.all_qubits()) == solution.details["qubits"] == 6
    column = cirq.unitary(circuit)[:, 0].reshape(2, 16, 2)[1, 0]
    np.testing.assert_allclose(
        np.sum(np.abs(column) ** 2), solution.details["success_probability"], rtol=1e-9
    )
    ratio = column.real / solution.x.numpy()
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    with pytest.raises(ValueError, match="Argument `rhs` must not be zero"):
        solver.circuit(matrix, np.zeros(2))


def test_scheduler_takes_it():
    scheduler = Scheduler(quantum=HHL(), gate_time=1e-30)
    assert scheduler.choose(8, 10.0, 8).route == "hhl"
    decision = scheduler.choose(8, 100.0, 8)
    assert decision.route == "lu" and "the solver's own max_condition_number" in decision.reason


@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.diag([1.0, 0.0]), "must not be singular"),
        (np.zeros((2, 2)), "must not be zero"),
        (
            np.diag([1.0, 1e-3]),
            r"at most 64, the limit of HHL\(.*Received: condition number",
        ),
    ],
)
def test_matrix_beyond_the_clock_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        HHL().solve(matrix, np.ones(2))


@pytest.mark.parametrize(
    "arguments",
    [{"clock_qubits": 2}, {"dtype": "float32"}, {"tolerance": -1.0}, {"max_refinements": -1}],
)
def test_bad_settings_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Arguments? .*`{name}`.*Received: .*{name}="):
        HHL(**arguments)
