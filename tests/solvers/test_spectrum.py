"""The eigendecomposition that simulations share: against NumPy's of the whole matrix."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.encodings import pad
from keras_qnewton.solvers.quantum.spectrum import spectrum_of


def symmetric(size, alone, seed):
    """A random symmetric matrix, of which some rows have nothing beside the diagonal."""
    rng = np.random.default_rng(seed)
    entries = rng.normal(size=(size, size))
    matrix = entries + entries.T
    rows = rng.permutation(size)[:alone]
    diagonal = np.diag(matrix)[rows]
    matrix[rows], matrix[:, rows] = 0, 0
    matrix[rows, rows] = diagonal
    return matrix


@pytest.fixture
def decompositions(monkeypatch):
    """Sizes of the matrices that NumPy decomposes."""
    sizes, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (sizes.append(len(a)), eigh(a))[1])
    return sizes


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_functions_of_the_matrix(size, alone, seed):
    matrix = symmetric(size, min(alone, size), seed)
    spectrum = spectrum_of(matrix)
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(np.sort(spectrum.values), values, atol=1e-12 * size)
    assert spectrum.ends == pytest.approx((np.abs(values).min(), np.abs(values).max()), abs=1e-12)
    vector = np.random.default_rng(seed).normal(size=size)
    expected = vectors @ (np.tanh(values) * (vectors.T @ vector))
    np.testing.assert_allclose(
        spectrum.applied(np.tanh(spectrum.values), vector), expected, atol=1e-11 * size
    )
    whole = spectrum.matrix()
    np.testing.assert_allclose((whole * spectrum.values) @ whole.T, matrix, atol=1e-12 * size)


@given(st.integers(2, 12), st.floats(-1e3, 1e3), st.integers(0, 2**32 - 1))
def test_a_shifted_matrix_has_shifted_eigenvalues(size, shift, seed):
    matrix = symmetric(size, 0, seed)
    spectrum_of(matrix)
    shifted = matrix + shift * np.eye(size)
    expected = np.linalg.eigvalsh(shifted)
    atol = 1e-12 * size * max(1, abs(shift))
    np.testing.assert_allclose(np.sort(spectrum_of(shifted).values), expected, atol=atol)


def test_one_decomposition_serves_shifts_padding_and_rows_alone(decompositions):
    matrix = symmetric(100, 10, seed=1)
    for shift in (0.0, 0.3, 5.0):
        spectrum_of(pad(matrix + shift * np.eye(100)))
    assert decompositions == [90]


@pytest.mark.parametrize(("change", "seed"), [("entry", 4), ("diagonal", 5), ("factor", 6)])
def test_another_matrix_is_decomposed(decompositions, change, seed):
    matrix = symmetric(20, 0, seed)
    spectrum_of(matrix)
    other = 2 * matrix if change == "factor" else matrix.copy()
    if change == "entry":
        other[3, 7] = other[7, 3] = 1.0
    elif change == "diagonal":
        other[3, 3] += 1.0
    np.testing.assert_allclose(
        np.sort(spectrum_of(other).values), np.linalg.eigvalsh(other), atol=1e-12
    )
    assert len(decompositions) == 2


def test_solves_with_other_shifts_share_it(decompositions):
    matrix = symmetric(40, 0, seed=3)
    matrix = matrix @ matrix
    # One power of two above all of these: solvers work in such units.
    largest = 2.0 ** np.ceil(np.log2(np.abs(matrix).max()))
    rhs = np.ones(40)
    for shift in (0.2, 0.25):
        shifted = matrix + shift * largest * np.eye(40)
        solution = QSVT(backend="emulator").solve(tf.constant(shifted), tf.constant(rhs))
        np.testing.assert_allclose(solution.x, np.linalg.solve(shifted, rhs), rtol=1e-9)
    assert decompositions == [40]


def test_a_much_larger_shift_is_no_reference(decompositions):
    matrix = symmetric(5, 0, seed=7)
    spectrum_of(matrix + 1e16 * np.eye(5))
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(np.sort(spectrum_of(matrix).values), expected, atol=1e-12)
    assert len(decompositions) == 2


def test_what_is_used_is_kept(decompositions):
    matrices = [symmetric(6, 0, seed=100 + k) for k in range(12)]
    for k, matrix in enumerate(matrices):
        spectrum_of(matrix)
        spectrum_of(matrices[0] + k * np.eye(6))
    assert len(decompositions) == 12
