"""The shortcut: polynomial, encoding, the circuit's unitary, its count, and its solution."""

import cirq
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.scheduling import CircuitQLSA, ShortcutQLSA
from keras_qnewton.scheduling.cost import preparation_depth
from keras_qnewton.solvers import QSVT, Shortcut, Shots
from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.encodings import ENCODINGS
from keras_qnewton.solvers.quantum.encodings.kernel import Kernel
from keras_qnewton.solvers.quantum.kernel_polynomial import (
    kernel_degree,
    kernel_ripple,
    projection_coefficients,
    reflection_coefficients,
)
from keras_qnewton.solvers.quantum.phases import find_phases, response
from keras_qnewton.solvers.quantum.solution_norm import find_norm
from keras_qnewton.solvers.quantum.transforms import kernel_reflection

from .systems import relative_error, symmetric, vector

SIGNS = pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])


@settings(deadline=None, max_examples=30)
@given(kappa=st.floats(1.0, 300), ripple=st.floats(1e-6, 0.5))
def test_polynomial_is_one_at_zero_and_small_beyond_the_gap(kappa, ripple):
    degree = kernel_degree(kappa, ripple)
    coefficients = projection_coefficients(kappa, degree)
    assert not np.any(coefficients[1::2])
    assert chebyshev.chebval(0.0, coefficients) == pytest.approx(1.0, abs=1e-10)
    beyond = np.linspace(1 / kappa, 1, 4000)
    largest = np.max(np.abs(chebyshev.chebval(beyond, coefficients)))
    assert largest == pytest.approx(kernel_ripple(kappa, degree), rel=2e-3, abs=1e-10)
    assert largest <= ripple * (1 + 1e-6) + 1e-10
    everywhere = chebyshev.chebval(np.linspace(-1, 1, 4001), coefficients)
    assert np.all((everywhere <= 1 + 1e-10) & (everywhere >= -ripple - 1e-10))
    # No smaller degree does, and the published one is a bound: 2 ⌈ln(2/η) κ/2⌉.
    assert degree == 2 or kernel_ripple(kappa, degree - 2) > ripple
    assert degree <= 2 * np.ceil(np.log(2 / ripple) / (2 * min(1 / kappa, 0.99)))


@pytest.mark.parametrize("kappa, ripple", [(1.0, 0.1), (7.0, 1e-3), (60.0, 1e-4)])
def test_phases_are_those_of_the_reflection(kappa, ripple):
    plan = kernel_reflection(kappa, ripple)
    x = np.linspace(-1, 1, 501)
    expected = plan.scale * chebyshev.chebval(x, plan.coefficients)
    got = response(find_phases(plan.scale * plan.coefficients), x).imag
    np.testing.assert_allclose(got, expected, atol=1e-9)
    assert np.max(np.abs(expected)) <= plan.scale * (1 + 1e-9)
    np.testing.assert_allclose(
        reflection_coefficients(kappa, plan.degree), plan.coefficients, atol=0
    )


def kernel(name, size, definite=False):
    matrix = symmetric(size, 5.0, definite)
    side = vector(size)
    return Kernel(ENCODINGS[name](matrix), side / np.linalg.norm(side))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", ENCODINGS)
def test_corner_of_the_encoding_is_the_matrix_with_the_kernel(name, size):
    encoding = kernel(name, size)
    qubits = cirq.LineQubit.range(encoding.qubits)
    made = cirq.Circuit(operations(encoding.gates(), qubits, encoding.angles))
    unitary = made.unitary(qubit_order=qubits)
    matrix = encoding.inner.matrix
    expected = (np.eye(size) - np.outer(encoding.side, encoding.side)) @ matrix
    bar = encoding.epsilon + 1e-12
    np.testing.assert_allclose(encoding.alpha * unitary[:size, :size], expected, atol=bar)
    np.testing.assert_allclose(encoding.matrix, expected, atol=1e-14)
    whole = encoding.unitary()
    np.testing.assert_allclose(whole @ whole.T, np.eye(len(whole)), atol=1e-10)
    np.testing.assert_allclose(encoding.alpha * whole[:size, :size], expected, atol=bar)


def reflected(encoding, plan, state):
    """By NumPy's decomposition of the matrix with the kernel."""
    _, values, right = np.linalg.svd(encoding.matrix / encoding.alpha)
    numbers = plan.scale * plan.sign * chebyshev.chebval(values, plan.coefficients)
    return right.T @ (numbers * (right @ state))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["dilation", "frobenius", "sparse"])
def test_unitary_of_the_circuit_reflects(name, size):
    """A system of N = 3 fills 2 qubits; one of 2 is padded there."""
    matrix, rhs = symmetric(size, 2.0, definite=False), vector(size)
    solver = Shortcut(backend="cirq", encoding=name, epsilon=0.2)
    circuit = solver.circuit(matrix, rhs)
    encoding, plan, start = solver._first_circuit(solver.init(matrix), rhs)
    unitary = circuit.unitary(qubit_order=sorted(circuit.all_qubits()))
    amplitudes = unitary[: len(start), 0]
    np.testing.assert_allclose(amplitudes.imag, 0, atol=1e-7)
    np.testing.assert_allclose(amplitudes.real, reflected(encoding, plan, start), atol=1e-7)
    expected = scipy.linalg.solve(matrix, rhs)
    found = amplitudes.real[:size] / np.linalg.norm(amplitudes[:size])
    expected = expected / np.linalg.norm(expected)
    assert min(np.linalg.norm(found - expected), np.linalg.norm(found + expected)) <= 0.25


@SIGNS
@pytest.mark.parametrize("size", [2, 5, 16, 40])
def test_emulated_reflection_is_the_decompositions(size, definite):
    solver = Shortcut(backend="emulator")
    matrix, rhs = symmetric(size, 20, definite), vector(size)
    encoding, plan, start = solver._first_circuit(solver.init(matrix), rhs)
    found = plan.scale * plan.sign * encoding.transformed(plan.polynomial, start)
    np.testing.assert_allclose(found, reflected(encoding, plan, start), atol=1e-11)


@pytest.mark.parametrize("kappa, published", [(10, 102.5), (50, 512.5), (200, 2050.0)])
@SIGNS
def test_queries_of_a_run_are_those_of_the_cost_model(kappa, published, definite):
    matrix, rhs = symmetric(8, kappa, definite), vector(8)
    x = scipy.linalg.solve(matrix, rhs)
    solver = Shortcut(epsilon=1e-4, max_refinements=0, backend="emulator")
    solution = solver.solve(matrix, rhs, norm=np.linalg.norm(x))
    assert float(ShortcutQLSA().queries(kappa)) == pytest.approx(published, abs=0.05)
    assert abs(solution.details["queries"] - published) <= 2
    assert solution.details["probes"] == 0
    assert solution.details["success_probability"] == pytest.approx(0.98, abs=0.002)
    assert solution.details["norm_ratio"] == pytest.approx(1.0, abs=1e-3)
    found = solution.x / np.linalg.norm(solution.x)
    assert relative_error(found, x / np.linalg.norm(x)) <= 1e-4


@pytest.mark.parametrize("ratio", [0.2, 0.5, 2.0, 6.0])
def test_a_wrong_norm_costs_success_as_published(ratio):
    matrix = symmetric(8, 50)
    # A length in the middle, of a solution between the ends of the spectrum.
    ends = np.linalg.eigh(matrix)[1][:, [0, -1]]
    rhs = ends @ [0.14, 0.99]
    norm = np.linalg.norm(scipy.linalg.solve(matrix, rhs))
    solver = Shortcut(epsilon=1e-5, max_refinements=0, backend="emulator")
    right = solver.solve(matrix, rhs, norm=norm).details
    wrong = solver.solve(matrix, rhs, norm=norm / ratio).details
    assert wrong["norm_ratio"] == pytest.approx(ratio, rel=1e-3)
    factor = (1 + ratio**2) ** 2 / (4 * ratio**2)
    got = right["success_probability"] / wrong["success_probability"]
    assert got == pytest.approx(factor, rel=1e-3)
    charged = [float(ShortcutQLSA(norm_ratio=r).queries(50)) for r in (1.0, ratio)]
    assert charged[1] / charged[0] == pytest.approx(factor)


@settings(deadline=None, max_examples=60)
@given(kappa=st.floats(2.5, 1e6), share=st.floats(0, 1), off=st.floats(-0.015, 0.015))
def test_norm_is_found(kappa, share, off):
    """Amplitudes as a projection leaves them, off by less than its ripple."""
    norm = kappa**share

    def probe(guess, number):
        assert number >= 1 and 1 <= guess <= kappa
        r = norm / guess
        return (r / (1 + r * r) + off) ** 2, (1 / (1 + r * r) - off) ** 2

    found = find_norm(probe, 1.0, kappa)
    assert 1 / 1.45 <= found.norm / norm <= 1.45
    assert found.probes <= 2 + np.log2(np.log(kappa))


@SIGNS
@pytest.mark.parametrize("condition_number", [2, 10, 50])
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_refined_solution_is_scipys_sign_included(size, condition_number, definite):
    for seed in range(20):
        matrix = symmetric(size, condition_number, definite, seed=seed)
        rhs = vector(size, seed)
        solution = Shortcut(backend="emulator").solve(matrix, rhs)
        assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 1e-9
        details = solution.details
        assert details["success_probability"] > 0.8
        assert details["queries"] >= (1 + details["refinements"]) * details["degree"]


@SIGNS
@pytest.mark.parametrize("encoding", ["dilation", "frobenius"])
@pytest.mark.parametrize("backend", ["cirq", "tfq"])
def test_circuits_solve_as_the_emulator(backend, encoding, definite):
    if backend == "tfq":
        pytest.importorskip("tensorflow_quantum")
    matrix, rhs = symmetric(4, 5, definite), vector(4)
    solution = Shortcut(backend=backend, encoding=encoding).solve(matrix, rhs)
    assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 1e-9
    emulated = Shortcut(backend="emulator", encoding=encoding).solve(matrix, rhs).details
    for key in ("degree", "qubits"):
        assert solution.details[key] == emulated[key]
    got = solution.details["success_probability"]
    assert got == pytest.approx(emulated["success_probability"], abs=1e-4)


def test_shots_read_the_sign_of_an_indefinite_system():
    matrix, rhs = symmetric(4, 10, definite=False), vector(4)
    solver = Shortcut(backend="emulator", readout=Shots(20_000, seed=1), tolerance=1e-3)
    solution = solver.solve(matrix, rhs)
    assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 1e-2
    assert solution.residual <= 1e-3
    details = solution.details
    runs = 1 + details["refinements"]
    # A search takes a thousand shots, a reading its twenty.
    assert details["shots"] == 20_000 * runs + 1000 * details["probes"]
    other = QSVT(backend="emulator", readout=Shots(20_000, seed=1), tolerance=1e-3)
    assert (
        details["success_probability"]
        > 5 * (other.solve(matrix, rhs).details["success_probability"])
    )


@pytest.mark.parametrize("name, size", [("dilation", 3), ("dilation", 8), ("frobenius", 7)])
def test_price_is_that_of_the_circuit_that_ran(name, size):
    matrix, rhs = symmetric(size, 10, definite=False), vector(size)
    solver = Shortcut(encoding=name, backend="emulator")
    solution = solver.solve(matrix, rhs)
    norm = tf.constant(np.linalg.norm(matrix, 2))
    measured = solver.measured(tf.constant(matrix), norm, tf.constant(10.0, tf.float64))
    alpha = float(measured["alpha"])
    depth = float(solver.circuit_depth(size, 10.0, size, alpha=alpha))
    rows = 1 << (size).bit_length()
    built = solution.details["resources"].depth - float(preparation_depth(rows))
    assert depth == pytest.approx(built, rel=0.1)
    resources = solution.details["resources"]
    assert resources.qubits <= solver.qubits(size)
    seconds = CircuitQLSA(solver, preparation=False).seconds(size, 10.0, size, 1e-9, alpha=alpha)
    assert float(seconds) == pytest.approx(1e-9 * depth / 0.9)


def test_price_of_reading_is_of_the_shots_that_are_used():
    matrix, rhs = symmetric(7, 10, definite=False), vector(7)
    shots = 2000
    solver = Shortcut(backend="emulator", readout=Shots(shots, seed=0), tolerance=1e-3)
    details = solver.solve(matrix, rhs).details
    once, read = (
        float(CircuitQLSA(solver, readout=readout).seconds(7, 10.0, 7, 1e-9, alpha=1.0))
        for readout in (False, True)
    )
    # A state takes 1/p runs, a reading all of its shots.
    priced = read / (once * 0.9)
    assert 1 / 3 <= priced / (shots * (1 + details["refinements"])) <= 3


def test_sparse_price_counts_the_augmented_pattern():
    matrix = np.diag(np.linspace(1, 3, 7)) + np.diag(np.full(6, 0.3), 1) + np.diag([0.3] * 6, -1)
    solver = Shortcut(encoding="sparse", backend="emulator")
    resources = solver.solve(matrix, np.ones(7)).details["resources"]
    norm, smallest = np.linalg.norm(matrix, 2), np.linalg.norm(matrix, -2)
    kappa = tf.constant(norm / smallest)
    measured = solver.measured(tf.constant(matrix), tf.constant(norm), kappa)
    depth = float(solver.circuit_depth(7, kappa, 3, **measured))
    assert depth == pytest.approx(resources.depth, rel=0.2)


def test_a_step_of_training_takes_it():
    weights = tf.Variable([1.0, 2.0, -0.5], name="weights")
    scheduler = Scheduler(quantum="shortcut", cost="circuit", gate_time=1e-18)
    optimizer = QNewton(scheduler=scheduler)
    matrix = tf.constant(symmetric(3, 4, dtype="float32"))
    for _ in range(3):
        optimizer.minimize(
            lambda: tf.reduce_sum(tf.cosh(tf.linalg.matvec(matrix, weights))), [weights]
        )
    assert {decision.solved_by for decision in optimizer.decisions} == {"shortcut"}
    assert max(decision.residual for decision in optimizer.decisions) < 1e-5


def test_bad_arguments():
    matrix, rhs = symmetric(3), vector(3)
    for norm in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="Argument `norm` must be a positive number"):
            Shortcut().solve(matrix, rhs, norm=norm)
    with pytest.raises(ValueError, match=r"must be None inside a tf\.function"):
        tf.function(lambda: Shortcut().solve(matrix, rhs, norm=1.0).x)()
    with pytest.raises(ValueError, match="must not be singular"):
        Shortcut().solve(np.diag([1.0, 0.0]), np.ones(2))
    with pytest.raises(ValueError, match="well enough for a polynomial of degree 10"):
        Shortcut(max_degree=10).solve(matrix, rhs)
