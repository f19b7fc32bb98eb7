"""The quantum solver: circuit against polynomial, solution against SciPy, and failures."""

import logging
import warnings

import cirq
import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.backends import Backend, load
from keras_qnewton.solvers.quantum.chebyshev import clenshaw
from keras_qnewton.solvers.quantum.encodings import Dilation
from keras_qnewton.solvers.quantum.transforms import inversion

from .systems import relative_error, symmetric, vector

SIGNS = pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])


def solve_in_graph(solver, matrix, rhs):
    @tf.function
    def solve(matrix, rhs):
        solution = solver.solve(matrix, rhs)
        assert solution.x.shape == rhs.shape and not solution.details
        return solution.x, solution.residual

    return solve(tf.constant(matrix), tf.constant(rhs))


def cells():
    for size in (2, 3, 5, 8, 16, 32, 64):
        for condition_number in (2, 10, 50, 200):
            # Seconds each: a small, a padded and a larger one stay among the fast tests.
            slow = condition_number == 200 and size not in (2, 5, 32)
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(size, condition_number, marks=marks)


@SIGNS
@pytest.mark.parametrize("size, condition_number", list(cells()))
def test_refined_solution_is_scipys(size, condition_number, definite):
    matrix, rhs = symmetric(size, condition_number, definite), vector(size)
    solution = QSVT().solve(matrix, rhs)
    assert relative_error(solution.x, scipy.linalg.solve(matrix, rhs)) <= 1e-9
    assert solution.residual <= 1e-11
    details = solution.details
    np.testing.assert_allclose(details["condition_number"], condition_number, rtol=1e-6)
    np.testing.assert_allclose(details["alpha"], np.linalg.norm(matrix, 2))
    assert 0 < details["success_probability"] < 1
    assert details["queries"] == details["degree"] * (1 + details["refinements"])
    assert details["operations"] == 2 * details["degree"] + 4
    assert 1 <= details["refinements"] <= 5


@SIGNS
@pytest.mark.parametrize("size", [2, 5, 16, 64])
@pytest.mark.parametrize("condition_number", [2, 10, 50])
def test_single_run_in_complex64(size, condition_number, definite):
    matrix, rhs = symmetric(size, condition_number, definite), vector(size)
    solver = QSVT(epsilon=1e-4, max_refinements=0)
    solution = solver.solve(matrix, rhs)
    assert relative_error(solution.x, np.linalg.solve(matrix, rhs)) <= 5e-5
    assert solution.details["refinements"] == 0


@SIGNS
def test_single_run_in_complex128(definite):
    matrix, rhs = symmetric(16, 50, definite), vector(16)
    solver = QSVT(epsilon=1e-8, dtype="complex128", max_refinements=0)
    assert relative_error(solver.solve(matrix, rhs).x, np.linalg.solve(matrix, rhs)) <= 1e-8


@SIGNS
@pytest.mark.parametrize("size, condition_number", [(2, 2.0), (4, 50.0), (16, 10.0)])
def test_amplitudes_are_those_of_the_polynomial(size, condition_number, definite):
    encoding = Dilation(symmetric(size, condition_number, definite))
    plan = inversion(condition_number, 1e-3)
    state = vector(size) / np.linalg.norm(vector(size))
    outcome = load("cirq").run(encoding, plan, state, "complex128")
    corner = encoding.unitary()[:size, :size]
    expected = plan.sign * plan.scale * clenshaw(plan.coefficients, lambda v: corner @ v, state)
    np.testing.assert_allclose(outcome.amplitudes, expected, atol=1e-10)
    np.testing.assert_allclose(outcome.success_probability, expected @ expected, atol=1e-10)


def test_circuit_is_the_one_that_is_run():
    matrix, rhs = symmetric(3, 5.0, definite=False), vector(3)
    solver = QSVT(max_refinements=0, dtype="complex128")
    circuit = solver.circuit(matrix, rhs)
    assert isinstance(circuit, cirq.Circuit)
    solution = solver.solve(matrix, rhs)
    assert len(circuit.all_qubits()) == solution.details["qubits"] == solver.qubits(3)
    assert sum(1 for _ in circuit.all_operations()) == solution.details["operations"]
    # Read by hand: from the unitary of the whole circuit to x.
    encoding, plan = solver.init(matrix).prepared
    amplitudes = cirq.unitary(circuit)[:3, 0].real
    by_hand = plan.sign * amplitudes * np.linalg.norm(rhs) / (plan.scale * encoding.alpha)
    np.testing.assert_allclose(solution.x, by_hand, rtol=1e-9)
    with pytest.raises(ValueError, match="Argument `rhs` must not be zero"):
        solver.circuit(matrix, np.zeros(3))


@pytest.mark.parametrize(
    "size, qubits", [(1, 3), (2, 3), (3, 4), (4, 4), (5, 6), (64, 12), (65, 14)]
)
def test_qubits(size, qubits):
    assert QSVT().qubits(size) == qubits


@pytest.mark.parametrize("value", [-2.5, 4.0])
def test_one_unknown(value):
    solution = QSVT().solve(np.array([[value]]), np.array([3.0]))
    np.testing.assert_allclose(solution.x, [3.0 / value], rtol=1e-11)
    assert solution.details["qubits"] == 3


def test_float32_stops_at_its_own_rounding():
    matrix, rhs = symmetric(8, 10, dtype="float32"), vector(8, dtype="float32")
    solution = QSVT().solve(matrix, rhs)
    exact = QSVT().solve(matrix.astype("float64"), rhs.astype("float64"))
    assert solution.details["queries"] < exact.details["queries"]
    assert solution.residual < 1e-6


def test_loose_tolerance_needs_fewer_runs():
    matrix, rhs = symmetric(8), vector(8)
    solution = QSVT(tolerance=1e-3).solve(matrix, rhs)
    assert solution.residual <= 1e-3
    assert solution.details["refinements"] == 0


def test_zero_rhs_runs_no_circuit():
    solution = QSVT(backend=Failing()).solve(symmetric(3), np.zeros(3))
    assert solution.residual == 0 and solution.details["queries"] == 0


def test_graph_and_eager_agree():
    matrix, rhs = symmetric(5, definite=False), vector(5)
    x, residual = solve_in_graph(QSVT(), matrix, rhs)
    np.testing.assert_array_equal(x, QSVT().solve(matrix, rhs).x)
    assert residual <= 1e-11


def test_phases_are_found_once_for_similar_matrices():
    QSVT(epsilon=0.0123).solve(symmetric(4, 10.0), vector(4))
    misses = inversion.cache_info().misses
    QSVT(epsilon=0.0123).solve(symmetric(4, 10.05, seed=1), vector(4))
    assert inversion.cache_info().misses == misses


class Failing:
    """A backend that never answers."""

    def circuit(self, encoding, phases, state):
        raise MemoryError("no room for the state")

    def run(self, encoding, phases, state, dtype):
        raise MemoryError("no room for the state")


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
class Noisy:
    """Cirq's answer, with noise of a given size on its amplitudes."""

    def __init__(self, noise):
        self.noise = noise
        self.rng = np.random.default_rng(0)

    def circuit(self, encoding, phases, state):
        return load("cirq").circuit(encoding, phases, state)

    def run(self, encoding, phases, state, dtype):
        outcome = load("cirq").run(encoding, phases, state, dtype)
        scale = self.noise * np.linalg.norm(outcome.amplitudes)
        noise = self.rng.normal(size=outcome.amplitudes.shape) * scale
        return outcome._replace(amplitudes=outcome.amplitudes + noise)

    def get_config(self):
        return {"noise": self.noise}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Misshapen(Noisy):
    """A backend that answers for too few amplitudes."""

    def run(self, encoding, phases, state, dtype):
        return super().run(encoding, phases, state, dtype)._replace(amplitudes=np.zeros(1))


class NotANumber(Noisy):
    """A backend whose simulation diverged."""

    def run(self, encoding, phases, state, dtype):
        outcome = super().run(encoding, phases, state, dtype)
        return outcome._replace(amplitudes=outcome.amplitudes * np.nan)


def test_doubles_and_cirq_are_backends():
    assert all(isinstance(b, Backend) for b in (load("cirq"), Failing(), Noisy(0.0)))


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_noise_is_told_by_the_residual(graph):
    matrix, rhs = symmetric(4, 50, definite=False), vector(4)
    solver = QSVT(backend=Noisy(3.0))
    if graph:
        x, residual = solve_in_graph(solver, matrix, rhs)
    else:
        solution = solver.solve(matrix, rhs)
        x, residual = solution.x, solution.residual
    truth = np.linalg.norm(matrix @ x.numpy() - rhs) / np.linalg.norm(rhs)
    np.testing.assert_allclose(residual, truth, rtol=1e-12)
    assert residual > 0.5


def test_refinement_overcomes_a_little_noise():
    matrix, rhs = symmetric(4, 5), vector(4)
    noisy = [QSVT(backend=Noisy(0.03), max_refinements=k).solve(matrix, rhs) for k in (0, 10)]
    assert noisy[0].residual > 1e-3
    assert noisy[1].residual < 1e-6


def test_nan_of_a_backend_is_nan_of_the_solution():
    solution = QSVT(backend=NotANumber(0.0)).solve(symmetric(2), vector(2))
    assert np.isnan(solution.residual) and solution.details["refinements"] == 0


@pytest.mark.parametrize("backend", [Failing(), Misshapen(0.0)])
def test_failure_in_a_graph_is_nan_and_a_warning(backend):
    with pytest.warns(RuntimeWarning, match="'qsvt' failed.*(MemoryError: no room|ValueError)"):
        x, residual = solve_in_graph(QSVT(backend=backend), symmetric(3), vector(3))
    assert np.all(np.isnan(x)) and np.isnan(residual)


def test_failure_in_a_graph_survives_warnings_as_errors(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.ERROR, "keras_qnewton"):
        warnings.simplefilter("error")
        x, _ = solve_in_graph(QSVT(backend=Failing()), symmetric(3), vector(3))
    assert np.all(np.isnan(x))
    assert "no room for the state" in caplog.text


def test_failure_raises_eagerly():
    with pytest.raises(MemoryError, match="no room"):
        QSVT(backend=Failing()).solve(symmetric(3), vector(3))
    with pytest.raises(ValueError, match=r"amplitudes of shape \(4,\).*of shape \(1,\)"):
        QSVT(backend=Misshapen(0.0)).solve(symmetric(3), vector(3))


REFUSED = {
    "singular": (np.diag([1.0, 0.0]), "must not be singular"),
    "zero": (np.zeros((2, 2)), "must not be zero"),
    "ill": (np.diag([1.0, 1e-6]), r"condition number .* 1e\+06, degree .*max_degree"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_matrix_beyond_the_circuit_is_refused(case):
    matrix, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        QSVT().solve(matrix, np.ones(2))
    with pytest.warns(RuntimeWarning, match=message):
        _, residual = solve_in_graph(QSVT(), matrix, np.ones(2))
    assert np.isnan(residual)


def test_init_in_a_graph_says_what_to_call():
    with pytest.raises(ValueError, match=r"inside a tf\.function, call `solve`"):
        tf.function(QSVT().init)(tf.eye(2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend": "abacus"},
        {"backend": object()},
        {"epsilon": 0.0},
        {"epsilon": 1.5},
        {"dtype": "float32"},
        {"tolerance": -1.0},
        {"max_refinements": -1},
        {"max_degree": 0},
    ],
    ids=lambda arguments: str(next(iter(arguments))),
)
def test_bad_settings_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Arguments? .*`{name}`.*Received: .*{name}="):
        QSVT(**arguments)


def test_custom_backend_is_serialised():
    config = keras.saving.serialize_keras_object(QSVT(backend=Noisy(0.25)))
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again.backend, Noisy) and again.backend.noise == 0.25


@pytest.mark.slow
def test_cirq_is_imported_only_when_a_circuit_is_asked_for():
    import subprocess
    import sys

    code = (
        "import sys, keras_qnewton.solvers as s; s.QSVT(); assert 'cirq' not in sys.modules;"
        "s.QSVT().solve([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0]); assert 'cirq' in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
