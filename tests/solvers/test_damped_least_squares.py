"""(UᵀU + λI)⁻¹ g by a circuit that encodes U: polynomial, encodings, circuit, solution, price."""

import dataclasses
import json

import cirq
import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from keras_qnewton.curvature.low_rank import FormedRows, LowRank, RowFactors
from keras_qnewton.directions import BlockProblem, direction, woodbury
from keras_qnewton.scheduling.cost import preparation_depth
from keras_qnewton.solvers import DampedLeastSquares, Shots
from keras_qnewton.solvers.quantum.backends import load
from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.damped_depth import Shape, damped_depth
from keras_qnewton.solvers.quantum.damped_depth import damped_degree as degree_in_graph
from keras_qnewton.solvers.quantum.damped_polynomial import (
    damped_coefficients,
    damped_degree,
    damped_error,
    times_x,
)
from keras_qnewton.solvers.quantum.encodings.rectangular import RECTANGULAR
from keras_qnewton.solvers.quantum.transforms import damped, damped_from_residuals
from tests.blocks import settings_of

from .systems import relative_error

ENCODINGS = pytest.mark.parametrize("name", RECTANGULAR)
STARTS = pytest.mark.parametrize("residuals", [False, True], ids=["gradient", "residuals"])


def rows_of(rows, columns, seed=0):
    """Singular values over two orders of magnitude."""
    rng = np.random.default_rng([rows, columns, seed])
    return rng.normal(size=(rows, columns)) * np.geomspace(3, 0.03, columns)


@settings(deadline=None, max_examples=40)
@given(damping=st.floats(1e-2, 3), epsilon=st.floats(1e-8, 0.5))
def test_polynomial_leaves_the_smallest_residual(damping, epsilon):
    degree = damped_degree(damping, epsilon)
    coefficients = damped_coefficients(damping, degree)
    x = np.cos(np.linspace(0, np.pi, 8 * degree + 401))
    residual = 1 - (x**2 + damping**2) * chebyshev.chebval(x, coefficients) / damping**2
    rounding = 1e-14 / damping**2
    error = damped_error(damping, degree)
    assert np.max(np.abs(residual)) == pytest.approx(error, rel=1e-2, abs=rounding)
    assert error <= epsilon
    # Zeros of T_2M are zeros of the residual: an equal ripple, and no smaller degree does.
    assert degree == 2 or damped_error(damping, degree - 2) > epsilon
    assert degree <= max(2, np.ceil(np.log(2 / epsilon) / np.arcsinh(damping)))
    assert degree == int(degree_in_graph(damping, epsilon))
    odd = chebyshev.chebval(x, times_x(coefficients))
    np.testing.assert_allclose(odd, x * chebyshev.chebval(x, coefficients), atol=1e-12)


def corner(encoding):
    qubits = cirq.LineQubit.range(encoding.qubits)
    made = cirq.Circuit(operations(encoding.gates(), qubits, encoding.angles))
    size = 1 << encoding.system_qubits
    return encoding.alpha * made.unitary(qubit_order=qubits)[:size, :size]


@pytest.mark.parametrize(
    "shape", [(1, 2), (2, 2), (2, 3), (3, 2), (1, 4), (4, 1), (4, 4), (3, 8), (7, 5)]
)
@ENCODINGS
def test_corner_of_the_encoding_is_the_matrix(name, shape):
    rows = rows_of(*shape)
    encoding = RECTANGULAR[name](rows)
    expected = np.zeros_like(encoding.matrix)
    expected[: shape[0], : shape[1]] = rows
    np.testing.assert_allclose(corner(encoding), expected, atol=encoding.epsilon + 1e-12)
    norms = {"dilation": np.linalg.norm(rows, 2), "frobenius": np.linalg.norm(rows)}
    assert encoding.alpha == pytest.approx(norms[name])
    whole = encoding.unitary()
    size = len(expected)
    np.testing.assert_allclose(whole @ whole.T, np.eye(len(whole)), atol=1e-10)
    np.testing.assert_allclose(encoding.alpha * whole[:size, :size], expected, atol=1e-12)


def by_decomposition(rows, function):
    """A function of the rows' singular values: by right vectors, or from rows to weights."""
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    return (right.T * function(values)) @ left.T


@STARTS
@ENCODINGS
def test_unitary_of_the_circuit_has_the_function_in_its_corner(name, residuals):
    rows, size = rows_of(3, 2), 4
    given_rows = rows.T if residuals else rows
    encoding = RECTANGULAR[name](given_rows)
    damping = 0.2 / encoding.alpha
    plan = (damped_from_residuals if residuals else damped)(damping, 1e-3)
    start = np.eye(size)[0]
    circuit = load("cirq").circuit(encoding, plan, start)
    unitary = circuit.unitary(qubit_order=cirq.LineQubit.range(1 + encoding.qubits))
    found = unitary[:size, 0].real / (plan.sign * plan.scale)
    values = np.linalg.svd(given_rows, compute_uv=False) / encoding.alpha
    assert plan.degree == damped_degree(damping, 1e-3) + residuals
    expected = np.zeros(size)
    if residuals:
        exact = rows.T @ np.linalg.inv(rows @ rows.T + 0.04 * np.eye(3))
        expected[:2] = exact[:, 0] * 0.04 / encoding.alpha
    else:
        expected[:2] = 0.04 * np.linalg.inv(rows.T @ rows + 0.04 * np.eye(2))[:, 0]
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected) + 1e-7
    assert len(values) == 2


@STARTS
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (12, 5), (5, 12), (40, 17), (9, 33)])
@ENCODINGS
def test_solution_is_scipys(name, shape, residuals):
    solver = DampedLeastSquares(backend="emulator", encoding=name)
    for seed in range(4):
        rows, rng = rows_of(*shape, seed), np.random.default_rng(seed)
        damping = float(10 ** rng.uniform(-4, 0))
        if residuals:
            right = rng.normal(size=shape[0])
            solution, rhs = solver.solve_residuals(rows, right, damping), rows.T @ right
        else:
            rhs = rng.normal(size=shape[1])
            solution = solver.solve(rows, rhs, damping)
        exact = scipy.linalg.solve(rows.T @ rows + damping * np.eye(shape[1]), rhs)
        assert relative_error(solution.x, exact) <= 1e-9
        assert solution.residual <= 1e-10


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    power=st.integers(-3, 1),
    epsilon=st.sampled_from([0.3, 1e-2, 1e-4]),
    units=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
)
def test_one_run_leaves_the_residual_that_was_asked_for(rows, columns, power, epsilon, units):
    u, g = rows_of(rows, columns), np.random.default_rng(columns).normal(size=columns)
    u, g, damping = u * 10.0 ** units[0], g * 10.0 ** units[1], 10.0 ** (power + 2 * units[0])
    solver = DampedLeastSquares(backend="emulator", epsilon=epsilon, max_refinements=0)
    solution = solver.solve(u, g, damping)
    x = solution.x.numpy()
    assert np.linalg.norm(u.T @ (u @ x) + damping * x - g) <= 1.001 * epsilon * np.linalg.norm(g)
    # What is measured is λx/‖g‖, scaled.
    share = damping * np.linalg.norm(x) / np.linalg.norm(g)
    p = solution.details["success_probability"]
    assert p == pytest.approx((damped(solution.details["damping"], epsilon).scale * share) ** 2)


@STARTS
@ENCODINGS
@pytest.mark.parametrize("backend", ["cirq", "tfq"])
def test_circuits_solve_as_the_emulator(backend, name, residuals):
    if backend == "tfq":
        pytest.importorskip("tensorflow_quantum")
    rows, damping = rows_of(3, 4), 0.5
    right = np.random.default_rng(0).normal(size=3 if residuals else 4)

    def solved(backend):
        solver = DampedLeastSquares(backend=backend, encoding=name)
        return (solver.solve_residuals if residuals else solver.solve)(rows, right, damping)

    solution, emulated = solved(backend), solved("emulator")
    assert relative_error(solution.x, emulated.x) <= 1e-9
    for key in ("degree", "qubits", "alpha"):
        assert solution.details[key] == emulated.details[key]
    p = emulated.details["success_probability"]
    assert solution.details["success_probability"] == pytest.approx(p, rel=1e-3)


def test_shots_are_refined():
    rows, rhs = rows_of(6, 4), np.random.default_rng(1).normal(size=4)
    solver = DampedLeastSquares("emulator", readout=Shots(20_000, seed=0), tolerance=1e-4)
    solution = solver.solve(rows, rhs, 0.1)
    exact = np.linalg.solve(rows.T @ rows + 0.1 * np.eye(4), rhs)
    assert relative_error(solution.x, exact) <= 1e-2
    assert solution.residual <= 1e-3


@STARTS
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (4, 4), (3, 5), (5, 3), (12, 7), (2, 16)])
@ENCODINGS
def test_price_is_that_of_the_circuit_that_ran(name, shape, residuals):
    rows = rows_of(*shape)
    right = np.ones(shape[0] if residuals else shape[1])
    solver = DampedLeastSquares(backend="emulator", encoding=name)
    details = (solver.solve_residuals if residuals else solver.solve)(rows, right, 0.3).details
    resources = details["resources"]
    built = resources.depth - float(preparation_depth(1 << resources.encoding.system_qubits))
    root = details["damping"]
    depth = float(damped_depth(name, Shape(*shape), root, solver.epsilon, residuals))
    assert depth == pytest.approx(built, rel=1e-12)
    assert resources.qubits <= solver.qubits(shape[1], shape[0])
    # Residuals of the system are refined from |g⟩, by a degree of one less.
    later = details["degree"] - residuals
    assert details["queries"] == details["degree"] + later * details["refinements"]


def trained(examples, noise):
    """(U, λ, g, Woodbury's step) of ten Levenberg-Marquardt steps, which those steps make."""
    rng = np.random.default_rng([examples, int(100 * noise)])
    x = rng.uniform(-1, 1, size=(examples, 2))
    y = np.sin(3 * x[:, 0]) * x[:, 1] + noise * rng.normal(size=examples)
    weights = rng.normal(size=WEIGHTS)

    @tf.function
    def residuals(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            hidden = tf.tanh(x @ tf.reshape(w[:10], [2, 5]) + w[10:15])
            r = (tf.linalg.matvec(hidden, w[15:20]) + w[20] - y) * np.sqrt(2 / examples)
        return r, tape.jacobian(r, w)

    damping, out = 0.1, []
    for _ in range(10):
        r, u = (value.numpy() for value in residuals(tf.constant(weights)))
        g = u.T @ r
        step = woodburys(u, g, damping).numpy()
        out.append((u, damping, g, step))
        after = residuals(tf.constant(weights - step))[0].numpy()
        better = after @ after < r @ r
        weights, damping = (weights - step, damping / 3) if better else (weights, 8 * damping)
        damping = max(damping, 1e-5 * np.linalg.norm(u, 2) ** 2)
    return out


WEIGHTS = 21


@tf.function(
    input_signature=[
        tf.TensorSpec([None, WEIGHTS], tf.float64),
        tf.TensorSpec([WEIGHTS], tf.float64),
        tf.TensorSpec([], tf.float64),
    ]
)
def woodburys(u, g, damping):
    factors = RowFactors(
        tf.constant(True), lambda: LowRank([[FormedRows(u[:, None])]], [WEIGHTS]), 100
    )
    problem = BlockProblem.of_matrix(tf.eye(WEIGHTS, dtype=tf.float64), g, semidefinite=True)
    problem = dataclasses.replace(problem, low_rank=factors)
    by_rows = direction(problem, settings_of())
    assert isinstance(by_rows, woodbury.Woodbury)
    return by_rows.solve(problem, by_rows.init(problem), damping).x


@pytest.mark.parametrize("examples, noise", [(12, 0.0), (60, 0.3)])
def test_steps_of_training_are_woodburys(examples, noise):
    """Ten of fewer rows than weights, which fit, and ten of more, whose residuals stay."""
    solver = DampedLeastSquares(backend="emulator", max_degree=10_000)
    for u, damping, g, step in trained(examples, noise):
        assert relative_error(solver.solve(u, g, damping).x, step) <= 1e-9


def test_config_round_trip():
    solver = DampedLeastSquares("emulator", "frobenius", epsilon=0.1, readout=Shots(7, seed=1))
    stored = json.dumps(keras.saving.serialize_keras_object(solver))
    again = keras.saving.deserialize_keras_object(json.loads(stored))
    assert again.get_config() == solver.get_config()


def test_zeros_run_no_circuit():
    solution = DampedLeastSquares().solve(np.ones((2, 3)), np.zeros(3), 1.0)
    assert solution.details["queries"] == 0 and not np.any(solution.x) and solution.residual == 0


@pytest.mark.parametrize(
    "rows, rhs, damping, message",
    [
        (np.ones(3), np.ones(3), 1.0, "`rows` must be a float32 or float64 matrix"),
        (np.ones((2, 3), int), np.ones(3), 1.0, "`rows` must be a float32 or float64 matrix"),
        (np.ones((2, 3)), np.ones(2), 1.0, "`rhs` must be a vector of length 3"),
        (np.ones((2, 3)), np.ones(3, "float32"), 1.0, "`rhs` must be a vector of length 3"),
        (np.ones((2, 3)), np.ones(3), 0.0, "`damping` must be positive"),
        (np.ones((2, 3)), np.ones(3), np.nan, "`damping` must be positive"),
        (np.ones((2, 3)), np.ones(3), 1e-14, "`damping` must be large enough"),
        (np.full((2, 3), np.inf), np.ones(3), 1.0, "`rows` must be finite"),
        (np.zeros((2, 3)), np.ones(3), 1.0, "`rows` must not be zero"),
    ],
)
def test_bad_arguments(rows, rhs, damping, message):
    with pytest.raises(ValueError, match=message):
        DampedLeastSquares().solve(rows, rhs, damping)


def test_bad_settings():
    with pytest.raises(ValueError, match="Argument `encoding` must be one of"):
        DampedLeastSquares(encoding="sparse")
    with pytest.raises(ValueError, match="`tolerance` must be a number, 0 or more"):
        DampedLeastSquares(tolerance=-1.0)
    with pytest.raises(ValueError, match="Argument `backend` must be one of"):
        DampedLeastSquares(backend="none")


def test_a_damping_out_of_range_of_the_rows():
    rows, rhs = np.full([3, 2], 1e-160), np.ones(2)
    with pytest.raises(ValueError, match="`damping` must be within the range"):
        DampedLeastSquares().solve(rows, rhs, 0.1)
