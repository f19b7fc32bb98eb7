import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers.checks import passes, relative_residual, validate

from .systems import symmetric, vector


@pytest.mark.parametrize("kind", [float, tf.constant], ids=["numbers", "tensors"])
@pytest.mark.parametrize(
    "residual, tolerance, expected",
    [
        (1.0, 2.0, True),
        (2.0, 2.0, True),
        (3.0, 2.0, False),
        (np.nan, 2.0, False),
        (1.0, np.nan, False),
        (np.nan, np.nan, False),
        (np.inf, 2.0, False),
    ],
)
def test_a_residual_passes_at_its_tolerance_and_nan_never_does(residual, tolerance, expected, kind):
    assert bool(passes(kind(residual), tolerance)) is expected


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 9), seed=st.integers(0, 10**6), power=st.integers(-250, 250))
def test_residual_is_numpys_at_any_scale(size, seed, power):
    matrix, x = symmetric(size, seed=seed), vector(size, seed)
    rhs = matrix @ x + 0.1 * vector(size, seed + 1)
    expected = np.linalg.norm(matrix @ x - rhs) / np.linalg.norm(rhs)
    scale = 10.0**power
    got = relative_residual(matrix, x * scale, rhs * scale)
    assert got.dtype == tf.float64
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_residual_is_float64_for_float32_input():
    # 1 + 2^-30 is 1 in float32: only a float64 product sees the gap.
    matrix = np.array([[1.0, 2.0**-30], [2.0**-30, 1.0]], np.float32)
    got = relative_residual(matrix, np.ones(2, np.float32), np.ones(2, np.float32))
    np.testing.assert_allclose(got, 2.0**-30, rtol=1e-12)


@pytest.mark.parametrize("x, expected", [([0.0, 0.0], 0.0), ([1.0, 0.0], np.inf)])
def test_residual_of_a_zero_rhs(x, expected):
    for residual in (relative_residual, tf.function(relative_residual)):
        assert residual(np.eye(2), np.array(x), np.zeros(2)).numpy() == expected


def test_residual_passes_nan_on():
    for rhs in (np.zeros(2), np.ones(2)):
        assert np.isnan(relative_residual(np.eye(2), np.array([np.nan, 0.0]), rhs))


BAD = {
    "rectangular": (np.ones((2, 3)), np.ones(2), "`matrix` must be square.*shape \\(2, 3\\)"),
    "vector": (np.ones(2), np.ones(2), "`matrix` must be square.*shape \\(2,\\)"),
    "empty": (np.ones((0, 0)), np.ones(0), "`matrix` must be square.*N >= 1"),
    "integer": (np.eye(2, dtype=int), np.ones(2), "`matrix` must be float32 or float64.*int64"),
    "half": (np.eye(2, dtype=np.float16), np.ones(2), "`matrix` must be float32 or float64"),
    "complex": (np.eye(2, dtype=complex), np.ones(2), "`matrix` must be float32 or float64"),
    "long rhs": (np.eye(2), np.ones(3), "`rhs` must be a vector of shape \\[2\\].*\\(3,\\)"),
    "column": (np.eye(2), np.ones((2, 1)), "`rhs` must be a vector of shape \\[2\\].*\\(2, 1\\)"),
    "dtypes": (np.eye(2), np.ones(2, np.float32), "`rhs` must be float64, like `matrix`.*float32"),
}
BAD_VALUES = {
    "nan": (np.diag([1.0, np.nan]), np.ones(2), "`matrix` must be finite.*1 NaN or Inf in 4"),
    "inf rhs": (np.eye(2), np.array([1.0, np.inf]), "`rhs` must be finite.*1 NaN or Inf in 2"),
    "asymmetric": (np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), "symmetric.*A\\^T\\| = 2"),
}


@pytest.mark.parametrize("case", [*BAD, *BAD_VALUES])
def test_bad_input_is_refused_eagerly(case):
    matrix, rhs, message = {**BAD, **BAD_VALUES}[case]
    with pytest.raises(ValueError, match=message) as error:
        validate(matrix, rhs)
    assert "Received: " in str(error.value)


@pytest.mark.parametrize("case", BAD)
def test_static_faults_are_refused_in_a_graph(case):
    matrix, rhs, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        tf.function(validate)(tf.constant(matrix), tf.constant(rhs))


@pytest.mark.parametrize("case", BAD_VALUES)
def test_values_do_not_raise_in_a_graph(case):
    matrix, rhs, _ = BAD_VALUES[case]
    got, _ = tf.function(validate)(tf.constant(matrix), tf.constant(rhs))
    np.testing.assert_array_equal(got, matrix)


def test_rounding_asymmetry_is_accepted():
    matrix = symmetric(20, dtype="float32")
    matrix[0, 1] += 1e-6
    assert validate(matrix, vector(20, dtype="float32"))[0].dtype == tf.float32


def test_lists_take_the_matrix_dtype():
    _, rhs = validate(np.eye(2), [1.0, 2.0])
    assert rhs.dtype == tf.float64
