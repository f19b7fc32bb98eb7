"""Polynomial, phases and block encoding: the mathematics under the circuit."""

import cirq
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from keras_qnewton.solvers.quantum.backends.cirq import Backend, first_column
from keras_qnewton.solvers.quantum.chebyshev import clenshaw, maximum
from keras_qnewton.solvers.quantum.encodings import Dilation, pad
from keras_qnewton.solvers.quantum.inverse_polynomial import (
    inverse_coefficients,
    inverse_degree,
    inverse_error,
)
from keras_qnewton.solvers.quantum.phases import find_phases, reflection_phases, response
from keras_qnewton.solvers.quantum.transforms import bucket, inversion

from .systems import symmetric, vector

conditions = st.floats(1.05, 100)
accuracies = st.floats(1e-8, 0.5)


def domain(condition_number):
    """Points of [1/κ, 1], dense at both ends as the error's oscillations are."""
    a = 1 / condition_number
    squares = (1 + a * a - (1 - a * a) * np.cos(np.linspace(0, np.pi, 20_001))) / 2
    return np.sqrt(squares)


@settings(deadline=None, max_examples=30)
@given(condition_number=conditions, epsilon=accuracies)
def test_inverse_polynomial_keeps_its_error_and_no_lower_degree_would(condition_number, epsilon):
    degree = inverse_degree(condition_number, epsilon)
    coefficients = inverse_coefficients(condition_number, degree)
    x = domain(condition_number)
    error = np.max(np.abs(chebyshev.chebval(x, coefficients) - 1 / x))
    assert len(coefficients) == degree + 1
    assert not np.any(coefficients[0::2])
    assert error <= epsilon * (1 + 1e-3)
    np.testing.assert_allclose(error, inverse_error(condition_number, degree), rtol=1e-2)
    if degree > 1:
        assert inverse_error(condition_number, degree - 2) > epsilon


@pytest.mark.parametrize("condition_number, degree", [(2, 7), (10, 21), (50, 151)])
def test_inverse_polynomial_is_optimal(condition_number, degree):
    # The (degree + 1)/2 odd coefficients are optimal if and only if the error reaches its
    # maximum with alternating signs one time more often (de la Vallée Poussin).
    x = domain(condition_number)
    error = chebyshev.chebval(x, inverse_coefficients(condition_number, degree)) - 1 / x
    extremes = np.abs(error) > (1 - 1e-4) * np.max(np.abs(error))
    signs = np.sign(error[extremes])
    assert 1 + np.count_nonzero(np.diff(signs)) == (degree + 1) // 2 + 1


@pytest.mark.parametrize(
    "condition_number, epsilon, degree", [(50, 1e-6, 887), (200, 1e-6, 3823), (10, 1e-6, 161)]
)
def test_degrees(condition_number, epsilon, degree):
    assert inverse_degree(condition_number, epsilon) == degree


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_maximum_is_half_a_percent_low_at_most(size, seed):
    coefficients = vector(size, seed)
    dense = np.max(np.abs(chebyshev.chebval(np.cos(np.linspace(0, np.pi, 50_001)), coefficients)))
    assert 0.995 * dense <= maximum(coefficients) <= dense * (1 + 1e-9) + 1e-5 * dense


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_clenshaw_is_numpys_on_points_and_on_matrices(size, seed):
    coefficients = vector(size, seed)
    x = np.linspace(-1, 1, 31)
    np.testing.assert_allclose(
        clenshaw(coefficients, lambda v: x * v, np.ones_like(x)),
        chebyshev.chebval(x, coefficients),
        atol=1e-10,
    )
    matrix, b = symmetric(5, 10, False, seed, norm=1.0), vector(5, seed)
    values, vectors = np.linalg.eigh(matrix)
    expected = vectors @ (chebyshev.chebval(values, coefficients) * (vectors.T @ b))
    np.testing.assert_allclose(
        clenshaw(coefficients, lambda v: matrix @ v, b), expected, atol=1e-10
    )


@settings(deadline=None, max_examples=40)
@given(degree=st.integers(0, 60), seed=st.integers(0, 10**6), height=st.floats(0.01, 0.95))
def test_phases_reproduce_any_polynomial(degree, seed, height):
    coefficients = vector(degree + 1, seed)
    coefficients[degree - 1 :: -2] = 0
    if degree == 0:
        coefficients = np.array([1.0])
    coefficients *= height / maximum(coefficients)
    x = np.linspace(-1, 1, 101)
    got = response(find_phases(coefficients), x)
    np.testing.assert_allclose(got.imag, chebyshev.chebval(x, coefficients), atol=1e-12)


@pytest.mark.parametrize("condition_number, epsilon", [(2, 1e-3), (50, 1e-6), (200, 1e-6)])
def test_phases_of_the_inverse(condition_number, epsilon):
    plan = inversion(condition_number, epsilon)
    psi = find_phases(plan.scale * plan.coefficients)
    x = np.linspace(-1, 1, 201)
    expected = plan.scale * chebyshev.chebval(x, plan.coefficients)
    np.testing.assert_allclose(response(psi, x).imag, expected, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(half=st.integers(0, 12), seed=st.integers(0, 10**6))
def test_reflection_phases_give_the_real_part(half, seed):
    degree = 2 * half + 1
    coefficients = vector(degree + 1, seed)
    coefficients[0::2] = 0
    coefficients *= 0.8 / maximum(coefficients)
    psi = find_phases(coefficients)
    kept = psi.copy()
    phi, sign = reflection_phases(psi)
    np.testing.assert_array_equal(psi, kept)
    for x in np.linspace(-1, 1, 7):
        s = np.sqrt(1 - x * x)
        product = np.diag(np.exp([1j * phi[0], -1j * phi[0]]))
        for angle in phi[1:]:
            reflection = np.array([[x, s], [s, -x]])
            product = product @ reflection @ np.diag(np.exp([1j * angle, -1j * angle]))
        expected = sign * chebyshev.chebval(x, coefficients)
        np.testing.assert_allclose(product[0, 0].real, expected, atol=1e-12)


def test_phases_refuse_what_has_none():
    with pytest.raises(ValueError, match="definite parity"):
        find_phases(np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"below 1.*reaches 1\.5"):
        find_phases(np.array([0.0, 1.5]))


@pytest.mark.parametrize("arguments", [(1.0, 0.1), (np.inf, 0.1), (np.nan, 0.1), (2.0, 0.0)])
def test_polynomial_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"Argument `(condition_number|epsilon)` must be"):
        inverse_degree(*arguments)


@pytest.mark.parametrize("degree", [0, 2, -1])
def test_polynomial_degree_is_odd(degree):
    with pytest.raises(ValueError, match="Argument `degree` must be odd"):
        inverse_coefficients(2.0, degree)


@settings(deadline=None, max_examples=50)
@given(condition_number=st.floats(1, 1e6))
def test_bucket_rounds_up_by_a_tenth_at_most(condition_number):
    rounded = bucket(condition_number)
    assert condition_number * (1 - 1e-9) <= rounded <= max(1.1 * condition_number, 1.1)
    assert bucket(rounded) == rounded


def test_inversions_are_shared_and_cannot_be_spoilt():
    plan = inversion(10.0, 1e-3)
    assert inversion(10.0, 1e-3) is plan
    with pytest.raises(ValueError, match="read-only"):
        plan.phases[0] = 0


@settings(deadline=None, max_examples=20)
@given(qubits=st.integers(1, 4), definite=st.booleans(), seed=st.integers(0, 10**6))
def test_dilation_by_its_matrix(qubits, definite, seed):
    matrix = symmetric(2**qubits, 30, definite, seed)
    encoding = Dilation(matrix)
    u = encoding.unitary()
    size = len(matrix)
    np.testing.assert_allclose(u @ u, np.eye(2 * size), atol=1e-13)
    np.testing.assert_allclose(u, u.T, atol=1e-14)
    assert np.linalg.norm(matrix - encoding.alpha * u[:size, :size], 2) <= encoding.epsilon
    assert encoding.epsilon < 1e-12
    np.testing.assert_allclose(encoding.alpha, np.linalg.norm(matrix, 2))
    np.testing.assert_allclose(encoding.condition_number, np.linalg.cond(matrix))
    assert (encoding.ancillas, encoding.system_qubits) == (1, qubits)


@pytest.mark.parametrize("size", [2, 16, 64])
def test_dilation_by_cirqs_unitary_of_the_circuits_operation(size):
    matrix = symmetric(size, 50, definite=False)
    encoding = Dilation(matrix)
    plan = inversion(2.0, 0.1)
    circuit = Backend().circuit(encoding, plan, np.eye(size)[0])
    qubits = cirq.LineQubit.range(2 + encoding.system_qubits)
    # (For one system qubit the ZZ rotations are as wide as the encoding.)
    calls = [op for op in circuit.all_operations() if isinstance(op.gate, cirq.MatrixGate)]
    encodes = [op for op in calls if op.qubits == tuple(qubits[1:])]
    assert len(encodes) == plan.degree
    u = cirq.unitary(encodes[0])
    np.testing.assert_allclose(u @ u.conj().T, np.eye(2 * size), atol=1e-12)
    error = np.linalg.norm(u[:size, :size] - matrix / np.linalg.norm(matrix, 2), 2)
    assert error <= 1e-12


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 17), definite=st.booleans(), seed=st.integers(0, 10**6))
def test_padding_changes_neither_norm_nor_condition_number(size, definite, seed):
    matrix = symmetric(size, 30, definite, seed)
    padded = pad(matrix)
    assert len(padded) >= 2 and np.log2(len(padded)) % 1 == 0
    np.testing.assert_array_equal(padded[:size, :size], matrix)
    np.testing.assert_allclose(np.linalg.norm(padded, 2), np.linalg.norm(matrix, 2))
    np.testing.assert_allclose(np.linalg.cond(padded), np.linalg.cond(matrix))


@settings(deadline=None, max_examples=30)
@given(size=st.sampled_from([2, 4, 8]), seed=st.integers(0, 10**6), tilt=st.floats(-20, 0))
def test_preparation_is_orthogonal_and_exact_near_a_basis_vector(size, seed, tilt):
    state = vector(size, seed) * 10**tilt
    state[0] = np.sign(state[0])
    state /= np.linalg.norm(state)
    gate = first_column(state)
    np.testing.assert_allclose(gate @ gate.T, np.eye(size), atol=1e-14)
    np.testing.assert_allclose(gate[:, 0], state, rtol=1e-13, atol=1e-300)
