"""Saddle-free steps by circuits: polynomial, phases, amplitudes, solution, training."""

import cirq
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy.special import ellipk

from keras_qnewton import Adaptive, QNewton, Scheduler
from keras_qnewton.solvers import QSVT, Eigen
from keras_qnewton.solvers.quantum.backends import load
from keras_qnewton.solvers.quantum.backends.cirq import Backend
from keras_qnewton.solvers.quantum.encodings import BlockEncoding, Dilation
from keras_qnewton.solvers.quantum.phases import find_phases, reflection_phases
from keras_qnewton.solvers.quantum.smoothed import (
    smallest_damping,
    smoothed_coefficients,
    smoothed_degree,
)
from keras_qnewton.solvers.quantum.transforms import smoothed_inverse_magnitude

from .systems import NORM, relative_error, symmetric, vector


def root(x, damping):
    return 1 / np.sqrt(x * x + damping * damping)


def series(theta, coefficients):
    return np.cos(np.outer(theta, np.arange(len(coefficients)))) @ coefficients


def exact(matrix, rhs, damping):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ (root(values, damping) * (vectors.T @ rhs))


@settings(deadline=None, max_examples=40)
@given(log_damping=st.floats(-2, 1), log_epsilon=st.floats(-11, -0.5))
@example(log_damping=-0.6640625, log_epsilon=-0.65625)  # of few terms, largest at x = 1
def test_polynomial_keeps_its_error_and_no_shorter_series_would(log_damping, log_epsilon):
    damping, epsilon = 10**log_damping, 10**log_epsilon
    degree = smoothed_degree(damping, epsilon)
    coefficients = smoothed_coefficients(damping, degree)
    theta = np.linspace(0, np.pi / 2, max(200, 2 * degree))
    f = root(np.cos(theta), damping)
    assert len(coefficients) == degree + 1 and degree % 2 == 0
    assert not np.any(coefficients[1::2])
    assert np.max(np.abs(series(theta, coefficients) / f - 1)) <= epsilon + 1e-13
    if degree > 2:
        assert np.max(np.abs(series(theta, coefficients[:-2]) / f - 1)) > epsilon - 1e-13


def test_first_coefficient_is_an_elliptic_integral():
    for damping in (0.01, 0.3, 4.0):
        m = 1 / (1 + damping**2)
        expected = 2 / np.pi * ellipk(m) * np.sqrt(m)
        np.testing.assert_allclose(smoothed_coefficients(damping, 4)[0], expected, rtol=1e-13)


@pytest.mark.parametrize("damping, epsilon, degree", [(0.1, 1e-8, 168), (0.005, 1e-8, 3356)])
def test_degrees(damping, epsilon, degree):
    assert smoothed_degree(damping, epsilon) == degree


@pytest.mark.parametrize("max_degree, epsilon", [(2, 1e-3), (99, 1e-3), (3000, 1e-8)])
def test_smallest_damping(max_degree, epsilon):
    damping = smallest_damping(max_degree, epsilon)
    assert smoothed_degree(damping, epsilon) <= max_degree
    assert smoothed_degree(damping * 0.99, epsilon) >= max_degree - 1


@pytest.mark.parametrize("arguments", [(0.0, 0.1), (np.nan, 0.1), (np.inf, 0.1), (1.0, 0.0)])
def test_polynomial_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"Argument `(damping|epsilon)` must be"):
        smoothed_degree(*arguments)


@pytest.mark.parametrize("degree", [0, 3, -2])
def test_polynomial_degree_is_even(degree):
    with pytest.raises(ValueError, match="Argument `degree` must be even"):
        smoothed_coefficients(1.0, degree)


@settings(deadline=None, max_examples=40)
@given(degree=st.integers(0, 25), seed=st.integers(0, 10**6))
def test_reflection_phases_of_either_parity(degree, seed):
    coefficients = vector(degree + 1, seed)
    coefficients[degree - 1 :: -2] = 0
    if degree == 0:
        coefficients = np.array([1.0])
    coefficients *= 0.8 / np.sum(np.abs(coefficients))
    phi, sign = reflection_phases(find_phases(coefficients))
    for x in np.linspace(-1, 1, 7):
        s = np.sqrt(1 - x * x)
        product = np.diag(np.exp([1j * phi[0], -1j * phi[0]]))
        for angle in phi[1:]:
            reflection = np.array([[x, s], [s, -x]])
            product = product @ reflection @ np.diag(np.exp([1j * angle, -1j * angle]))
        expected = sign * chebyshev.chebval(x, coefficients)
        np.testing.assert_allclose(product[0, 0].real, expected, atol=1e-12)


def worst_phase_error(degree, seed):
    """Against the series, both in extended precision: at this degree, x itself matters."""
    coefficients = vector(degree + 1, seed)
    coefficients[degree - 1 :: -2] = 0
    rng = np.random.default_rng(seed)
    coefficients *= rng.uniform(0.3, 0.95) / (
        np.abs(np.fft.fft(coefficients, 32 * (degree + 1)).real).max()
    )
    phases = find_phases(coefficients)
    theta = rng.uniform(0, np.pi, 16).astype(np.longdouble)
    x, s = np.cos(theta), np.sin(theta) * np.clongdouble(1j)
    turns = np.exp(np.clongdouble(1j) * phases.astype(np.longdouble))
    p, q = np.full(theta.shape, turns[0]), np.zeros(theta.shape, np.clongdouble)
    expected = np.zeros(theta.shape, np.longdouble) + coefficients[0]
    for k in range(1, degree + 1):
        p, q = (p * x + q * s) * turns[k], (p * s + q * x) / turns[k]
        if coefficients[k]:
            expected += coefficients[k] * np.cos(k * theta)
    return float(np.max(np.abs(p.imag - expected)))


@settings(deadline=None, max_examples=20)
@given(degree=st.integers(2, 1000), seed=st.integers(0, 10**6))
def test_phases_of_random_polynomials(degree, seed):
    assert worst_phase_error(degree, seed) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("degree", [2000, 5001, 9998, 14_999, 20_000])
@pytest.mark.parametrize("seed", range(2))
def test_phases_of_random_polynomials_of_high_degree(degree, seed):
    assert worst_phase_error(degree, seed) <= 1e-12


class Skewed(BlockEncoding):
    """A dilation followed by a rotation where the ancilla is 1: the same corner, U not U†."""

    name = "skewed"
    dense = True
    ancillas = 1
    angles = np.zeros(0)

    def __init__(self, matrix):
        super().__init__(matrix)
        self.alpha, self.epsilon = Dilation(matrix).alpha, 1e-12

    @classmethod
    def max_ancillas(cls, system_qubits):
        return 1

    def unitary(self):
        size = len(self.matrix)
        turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
        u = Dilation(self.matrix).unitary()
        u[size:] = turn @ u[size:]
        return u


@pytest.mark.parametrize("encoding_class", [Dilation, Skewed])
@pytest.mark.parametrize("damping, epsilon", [(1.0, 0.5), (0.5, 0.1), (0.3, 1e-4)])
def test_cirqs_unitary_of_the_whole_circuit(encoding_class, damping, epsilon):
    matrix = symmetric(4, 10, definite=False)
    encoding = encoding_class(matrix)
    plan = smoothed_inverse_magnitude(damping, epsilon)
    state = vector(4) / np.linalg.norm(vector(4))
    amplitudes = cirq.unitary(Backend().circuit(encoding, plan, state))[:4, 0].real
    values, vectors = np.linalg.eigh(matrix / encoding.alpha)
    polynomial = (vectors * chebyshev.chebval(values, plan.coefficients)) @ vectors.T
    np.testing.assert_allclose(amplitudes, plan.sign * plan.scale * polynomial @ state, atol=1e-12)


def check_bars(solver, size, relative, seeds):
    for seed in seeds:
        matrix, rhs = symmetric(size, 1e4, seed % 4 == 0, seed), vector(size, seed)
        solution = solver.solve_absolute(matrix, rhs, relative * NORM)
        assert relative_error(solution.x, exact(matrix, rhs, relative * NORM)) <= 1e-8
        assert solution.residual <= 1e-8


SINGLE = {"epsilon": 2e-9, "max_refinements": 0}


@pytest.mark.parametrize("options", [{}, SINGLE], ids=["refined", "single"])
@pytest.mark.parametrize("backend, size", [("cirq", 3), ("cirq", 16), ("emulator", 64)])
def test_solution_is_numpys(backend, size, options):
    check_bars(QSVT(backend=backend, **options), size, 0.05, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("relative", [0.1, 0.02, 0.005])
@pytest.mark.parametrize("options", [{}, SINGLE], ids=["refined", "single"])
@pytest.mark.parametrize(
    "backend, size", [("cirq", 2), ("cirq", 8), ("cirq", 16), ("emulator", 32), ("emulator", 64)]
)
def test_solution_is_numpys_at_small_damping(backend, size, options, relative):
    check_bars(QSVT(backend=backend, **options), size, relative, range(20))


def test_details_and_check():
    matrix, rhs = symmetric(8, 100, definite=False), vector(8)
    loose = QSVT(epsilon=1e-2, max_refinements=0).solve_absolute(matrix, rhs, 0.3 * NORM)
    x = exact(matrix, rhs, 0.3 * NORM)
    assert 1e-5 < relative_error(loose.x, x) <= 1e-2
    # Applied twice, the error counts twice.
    assert relative_error(loose.x, x) < loose.residual <= 2.1e-2
    details = loose.details
    assert details["queries"] == 2 * details["degree"] and details["refinements"] == 0
    expected = np.hypot(1, 0.3) / np.hypot(0.01, 0.3)
    np.testing.assert_allclose(details["condition_number"], expected, rtol=1e-6)
    assert 0 < details["success_probability"] < 1
    refined = QSVT(epsilon=1e-2).solve_absolute(matrix, rhs, 0.3 * NORM)
    assert relative_error(refined.x, x) <= 1e-12
    runs = 4 * refined.details["refinements"] + 3
    assert refined.details["queries"] == runs * refined.details["degree"]


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
class Negated:
    """A backend whose answers have the wrong sign: applied twice, it looks right."""

    def circuit(self, *arguments):
        return load("emulator").circuit(*arguments)

    def run(self, *arguments):
        outcome = load("emulator").run(*arguments)
        return outcome._replace(amplitudes=-outcome.amplitudes)

    def get_config(self):
        return {}


def test_wrong_sign_is_found():
    solution = QSVT(backend=Negated()).solve_absolute(symmetric(4), vector(4), 1.0)
    assert solution.residual == np.inf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_zero_rhs_at_next_to_no_damping(dtype, scale):
    """One over λ is not finite in single precision, where λ is a double."""
    matrix = np.zeros([3, 3], dtype)
    matrix[0, 0] = scale
    found = Eigen().solve_absolute(matrix, np.zeros(3, dtype), 1e-304 if not scale else 1e-44)
    np.testing.assert_array_equal(found.x, np.zeros(3))


def test_singular_matrix_and_zero_rhs():
    matrix, rhs = np.diag([2.0, 0.0, -1.0]), np.ones(3)
    solution = QSVT().solve_absolute(matrix, rhs, 0.5)
    np.testing.assert_allclose(solution.x, root(np.diag(matrix), 0.5), rtol=1e-10)
    zero = QSVT(backend=Negated()).solve_absolute(matrix, np.zeros(3), 0.5)
    assert zero.residual == 0 and not np.any(zero.x)


def test_graph_and_eager_agree():
    matrix, rhs, damping = symmetric(5, definite=False), vector(5), 0.7

    @tf.function
    def traced(matrix, rhs, damping):
        solution = QSVT().solve_absolute(matrix, rhs, damping)
        assert solution.x.shape == rhs.shape and not solution.details
        return solution.x, solution.residual

    x, residual = traced(tf.constant(matrix), tf.constant(rhs), tf.constant(damping, tf.float64))
    eager = QSVT().solve_absolute(matrix, rhs, damping)
    np.testing.assert_array_equal(x, eager.x)
    assert residual == eager.residual <= 1e-11
    with pytest.warns(RuntimeWarning, match="'qsvt' failed.*`damping` must be positive"):
        x, residual = traced(tf.constant(matrix), tf.constant(rhs), tf.constant(0.0, tf.float64))
    assert np.all(np.isnan(x)) and np.isnan(residual)


@pytest.mark.parametrize("damping", [0.0, -1.0, np.nan, 1e-9])
def test_damping_is_refused(damping):
    with pytest.raises(ValueError, match=r"Argument `damping` must be .*Received: damping="):
        QSVT().solve_absolute(symmetric(3), vector(3), damping)


def test_largest_condition_number_is_the_one_that_is_refused():
    solver = QSVT(backend="emulator", max_degree=500)
    damping = 1 / np.sqrt(solver.max_absolute_condition_number**2 - 1)
    matrix, rhs = np.diag([1.0, -0.3]), np.ones(2)
    solver.solve_absolute(matrix, rhs, damping * 1.001)
    with pytest.raises(ValueError, match=r"500 .`max_degree`"):
        solver.solve_absolute(matrix, rhs, damping * 0.999)


# --- in training --------------------------------------------------------------------------------

L = keras.layers


def train(scheduler, steps, blocks="layer", units=8):
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    # 4 x 4 pixels: blocks of the size that a test can afford.
    x = (x / 16).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16).astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((16,)), L.Dense(units, activation="tanh"), L.Dense(10)])
    optimizer = QNewton(
        curvature="hessian",
        blocks=blocks,
        damping=Adaptive(negative_curvature="absolute"),
        scheduler=scheduler,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    history = model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0, shuffle=False)
    return history.history["loss"], optimizer.decisions


def by_circuit(**options):
    solver = QSVT(**{"backend": "emulator", "max_degree": 200_000} | options)
    return Scheduler(quantum=solver, gate_time=1e-30, max_condition_number=1e6)


def check_training(steps, **options):
    losses, decisions = train(by_circuit(), steps, **options)
    reference, eigen = train(Scheduler(quantum=None), steps, **options)
    assert {d.route for d in eigen} == {"eigen"}
    assert {(d.route, d.solved_by, d.fallback) for d in decisions} == {("qsvt", "qsvt", False)}
    np.testing.assert_allclose(losses, reference, rtol=1e-2)
    assert losses[-1] < losses[0]
    for d in decisions:
        assert d.residual <= 1e-6
        assert d.reason.startswith("saddle-free") and "qsvt: " in d.reason
    return losses


@pytest.mark.slow
def test_training_by_circuits_is_training_by_eigendecomposition():
    check_training(2, units=3)


@pytest.mark.slow
def test_training_on_digits_whole_hessian():
    losses = check_training(10, blocks="full")
    assert losses[-1] < 0.3


def test_small_damping_is_left_to_the_eigendecomposition():
    _, decisions = train(by_circuit(max_degree=50), 2, units=3)
    for d in decisions:
        if d.route == "eigen":
            assert "above the solver's own max_absolute_condition_number = " in d.reason
    assert "eigen" in {d.route for d in decisions}


@pytest.mark.slow
def test_failed_check_is_solved_by_eigendecomposition():
    _, decisions = train(by_circuit(backend=Negated()), 2, units=3)
    for d in decisions:
        assert (d.route, d.solved_by, d.fallback) == ("qsvt", "eigen", True)
        assert "qsvt failed its residual check, eigen took over" in d.reason
