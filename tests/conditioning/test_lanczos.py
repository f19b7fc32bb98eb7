"""Lanczos against NumPy's eigenvalues, and where it has nothing left to do."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.conditioning import Spectrum, extremal_eigenvalues
from keras_qnewton.conditioning.host_lanczos import extremal_eigenvalues_on_host
from keras_qnewton.conditioning.lanczos import largest_eigenvalue, rounding


def on_host(matrix, iterations=100, seed=0):
    return extremal_eigenvalues_on_host(tf.convert_to_tensor(matrix), iterations, seed)


both = pytest.mark.parametrize("ends", [extremal_eigenvalues, on_host])


def symmetric(n, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    return (matrix + matrix.T) / 2


def numbers(spectrum):
    assert all(x.dtype == tf.float64 and x.shape == () for x in spectrum)
    return Spectrum(*(float(x) for x in spectrum))


def assert_close(found, expected, **tolerances):
    assert tuple(numbers(found)) == pytest.approx(tuple(numbers(expected)), **tolerances)


@both
@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), iterations=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_ritz_values_and_their_residuals(ends, n, iterations, seed):
    matrix = symmetric(n, seed)
    true = np.linalg.eigvalsh(matrix)
    found = numbers(ends(matrix, iterations=iterations))
    slack = 1e-12 * n
    assert found.products <= min(n, iterations)
    assert true[0] - slack <= found.lambda_min <= found.lambda_max <= true[-1] + slack
    # Some eigenvalue lies within the residual of each Ritz value.
    assert np.abs(true - found.lambda_min).min() <= found.residual_min + slack
    assert np.abs(true - found.lambda_max).min() <= found.residual_max + slack
    if found.products == n:
        assert found.lambda_min == pytest.approx(true[0], abs=1e-10)
        assert found.lambda_max == pytest.approx(true[-1], abs=1e-10)


@both
@pytest.mark.parametrize("n", [200, 500])
def test_bounds_enclose_the_spectrum(ends, n):
    matrix = symmetric(n)
    true = np.linalg.eigvalsh(matrix)
    found = numbers(ends(matrix, iterations=30))
    assert found.lambda_min - found.residual_min <= true[0]
    assert found.lambda_max + found.residual_max >= true[-1]
    assert found.lambda_max == pytest.approx(true[-1], rel=0.02)
    assert found.lambda_min == pytest.approx(true[0], rel=0.02)


BREAKDOWNS = {
    "zero": np.zeros((6, 6)),
    "identity": 3.0 * np.eye(6),
    "N = 1": np.array([[-2.0]]),
    "two eigenvalues": np.diag([1.0] * 5 + [-4.0] * 4),
    "rank one": np.ones((20, 20)),
    "zero, N = 1": np.zeros((1, 1)),
}


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BREAKDOWNS)
def test_invariant_subspaces(ends, name, dtype):
    matrix = BREAKDOWNS[name].astype(dtype)
    true = np.linalg.eigvalsh(BREAKDOWNS[name])
    for run in (ends, tf.function(ends)):
        found = numbers(run(matrix))
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        assert found.lambda_min == pytest.approx(true[0], abs=tolerance * 20)
        assert found.lambda_max == pytest.approx(true[-1], abs=tolerance * 20)
        # The recurrence's own, and what a product is said to round by.
        allowed = tolerance + rounding(tf.as_dtype(dtype)) * np.abs(true).max()
        assert 0 <= found.residual_min <= allowed and 0 <= found.residual_max <= allowed


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), iterations=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_largest_eigenvalue_and_its_residual(n, iterations, seed):
    matrix = symmetric(n, seed)
    true = np.linalg.eigvalsh(matrix)
    found = largest_eigenvalue(tf.constant(matrix), iterations)
    value, residual = float(found.lambda_max), float(found.residual_max)
    slack = 1e-12 * n
    assert true[0] - slack <= value <= true[-1] + slack
    assert np.abs(true - value).min() <= residual + slack
    if iterations <= n:  # without ghosts, the very same numbers
        expected = extremal_eigenvalues(matrix, iterations=min(iterations, 8))
        same = largest_eigenvalue(tf.constant(matrix), min(iterations, 8))
        assert float(same.lambda_max) == pytest.approx(float(expected.lambda_max), rel=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("name", BREAKDOWNS)
def test_largest_eigenvalue_of_invariant_subspaces(name, dtype, tolerance):
    matrix = tf.constant(BREAKDOWNS[name].astype(dtype))
    true = np.linalg.eigvalsh(BREAKDOWNS[name])[-1]
    for run in (largest_eigenvalue, tf.function(largest_eigenvalue)):
        found = run(matrix)
        assert float(found.lambda_max) == pytest.approx(true, abs=tolerance * 20)
        assert float(found.residual_max) <= tolerance * 20
    assert np.all(np.isnan(largest_eigenvalue(matrix * np.nan)))


def test_largest_eigenvalue_of_what_ghosts_would_fill():
    """Beyond convergence in float32: copies of the largest eigenvalue, nothing above it."""
    eigenvalues = np.concatenate([[1e6], np.linspace(1, 2, 79)]).astype("float32")
    found = largest_eigenvalue(tf.constant(np.diag(eigenvalues)), 60)
    assert float(found.lambda_max) == pytest.approx(1e6, rel=1e-5)


@both
def test_ghosts_are_kept_out(ends):
    """An isolated eigenvalue converges at once; without reorthogonalisation its copies
    would fill T and the other end would come late."""
    eigenvalues = np.concatenate([[1e6], np.linspace(1, 2, 79), [-5.0]])
    found = numbers(ends(np.diag(eigenvalues), iterations=60))
    assert found.lambda_max == pytest.approx(1e6, rel=1e-12)
    assert found.lambda_min == pytest.approx(-5.0, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    negative=st.floats(-1, 0),
    decay=st.floats(0.5, 4),
    damping=st.floats(-6, 0),
)
def test_condition_number_of_a_shifted_training_hessian(seed, negative, decay, damping):
    """A few large eigenvalues, a bulk that decays to zero, and negative ones that do."""
    bulk = np.linspace(0, 1, 280) ** (2 * decay)
    true = np.concatenate([bulk, -(10**negative) * 0.9 ** np.arange(60), [3.0, 5.0, 20.0]])
    normal = np.random.default_rng(seed).normal(size=len(true))
    reflection = np.eye(len(true)) - 2 * np.outer(normal, normal) / (normal @ normal)
    found = numbers(on_host(((reflection * true) @ reflection).astype("float32")))
    lowest = found.lambda_min - found.residual_min
    assert lowest <= true.min()
    shift = 10**damping - lowest
    kappa = (true.max() + shift) / (true.min() + shift)
    assert (found.lambda_max + shift) / (found.lambda_min + shift) == pytest.approx(kappa, rel=0.1)


def test_products_on_the_host_end_where_they_tell_nothing_new():
    """An isolated smallest eigenvalue takes fewer than one in a dense bulk."""
    bulk = np.linspace(-1, 1, 600)
    alone, dense = (np.diag(np.append(bulk, end)).astype("float32") for end in (-3.0, 0.0))
    assert numbers(on_host(alone)).products < numbers(on_host(dense)).products <= 100
    assert all(math.isnan(x) for x in on_host(alone * np.float32(math.nan)))


def test_matrix_free_eager_and_in_a_graph():
    matrix = tf.constant(symmetric(25), tf.float64)
    products = []

    def product(vector):
        products.append(vector)
        return tf.linalg.matvec(matrix, vector)

    dense = extremal_eigenvalues(matrix, iterations=10)
    free = extremal_eigenvalues(product, size=25, iterations=10, dtype="float64")
    assert_close(free, dense, rel=1e-12)
    assert len(products) == 10  # one product an iteration, not one more
    in_graph = tf.function(lambda: extremal_eigenvalues(product, 25, 10, dtype="float64"))
    assert_close(in_graph(), dense, rel=1e-12)


def test_hessian_vector_product_with_tapes_in_the_loop_body():
    weights = tf.Variable([0.3, -0.2, 0.8])

    def product(vector):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_sum(tf.sin(weights)) + tf.reduce_prod(weights)
            gradient = inner.gradient(loss, weights)
            slope = tf.reduce_sum(gradient * tf.stop_gradient(vector))
        return outer.gradient(slope, weights)

    w = weights.numpy().astype(float)
    hessian = np.diag(-np.sin(w))
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        hessian[i, j] = hessian[j, i] = w[k]
    true = np.linalg.eigvalsh(hessian)
    found = numbers(tf.function(lambda: extremal_eigenvalues(product, 3))())
    assert found.lambda_min == pytest.approx(true[0], rel=1e-5)
    assert found.lambda_max == pytest.approx(true[-1], rel=1e-5)


def test_compiles():
    matrix = tf.constant(symmetric(12))
    compiled = tf.function(lambda a: extremal_eigenvalues(a, iterations=8), jit_compile=True)
    # The start vector is the same to XLA's accuracy of the inverse error function.
    assert_close(compiled(matrix), extremal_eigenvalues(matrix, iterations=8), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_product_that_explodes_is_nan_and_does_not_raise(value):
    found = tf.function(lambda: extremal_eigenvalues(lambda v: v * value, size=5))()
    assert all(math.isnan(x) for x in found)


def test_unknown_size_in_the_graph():
    signature = [tf.TensorSpec([None, None], tf.float64)]
    run = tf.function(extremal_eigenvalues, input_signature=signature)
    for n in (1, 3, 40):
        matrix = tf.constant(symmetric(n))
        assert_close(run(matrix), extremal_eigenvalues(matrix), rel=1e-9, abs=1e-12)


def test_bad_arguments():
    with pytest.raises(ValueError, match="Argument `iterations` must be a positive integer"):
        extremal_eigenvalues(np.eye(2), iterations=0)
    with pytest.raises(ValueError, match="Argument `size` must be given"):
        extremal_eigenvalues(lambda v: v)
