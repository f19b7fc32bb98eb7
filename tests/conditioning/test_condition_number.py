"""Condition number estimators against spectra that were built in."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.conditioning import condition_number, log_condition_number

METHODS = ("norm_det", "lanczos", "exact")


def with_eigenvalues(eigenvalues, seed=0):
    eigenvalues = np.asarray(eigenvalues, float)
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = (q * eigenvalues) @ q.T
    return (matrix + matrix.T) / 2


def hessian_like(n, kappa, seed=0, indefinite=True):
    """A few large eigenvalues, a bulk spread over the decades below, as training gives."""
    rng = np.random.default_rng(seed)
    magnitudes = np.geomspace(1, 1 / kappa, n)
    signs = rng.choice([-1.0, 1.0], n) if indefinite else np.ones(n)
    return with_eigenvalues(magnitudes * signs, seed)


def piazza_politi(matrix):
    """The bound as the paper prints it; overflows beyond small n, hence small n only."""
    n = len(matrix)
    t = (n / np.sum(matrix**2)) ** n * np.linalg.det(matrix) ** 2
    return (1 + math.sqrt(1 - t)) / math.sqrt(t)


@pytest.mark.parametrize("method", ["lanczos", "exact"])
@pytest.mark.parametrize("dtype, kappa", [("float32", 1e3), ("float64", 1e3), ("float64", 1e8)])
@pytest.mark.parametrize("n", [2, 7, 40, 300])
@pytest.mark.parametrize("indefinite", [False, True])
def test_close_to_the_true_one(method, dtype, kappa, n, indefinite):
    matrix = hessian_like(n, kappa, seed=n, indefinite=indefinite).astype(dtype)
    estimate = condition_number(matrix, method)
    assert estimate.dtype == tf.float64 and estimate.shape == ()
    assert float(estimate) == pytest.approx(kappa, rel=0.05 if method == "lanczos" else 1e-3)


def test_lanczos_of_a_training_hessian():
    """Gauss-Newton matrix of random features, damped: clustered ends, a long tail."""
    rng = np.random.default_rng(3)
    jacobian = rng.normal(size=(200, 400)) * np.geomspace(1, 1e-3, 400)
    matrix = jacobian.T @ jacobian / 200 + 1e-3 * np.eye(400)
    eigenvalues = np.linalg.eigvalsh(matrix)
    true = eigenvalues[-1] / eigenvalues[0]
    assert float(condition_number(matrix, "lanczos")) == pytest.approx(true, rel=0.05)


def test_lanczos_finds_the_smallest_of_either_sign():
    matrix = with_eigenvalues([-10.0, -3.0, -0.01, 2.0, 5.0, 7.0])
    assert float(condition_number(matrix, "lanczos")) == pytest.approx(1000.0, rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_norm_det_is_the_papers_formula(n):
    matrix = hessian_like(n, 30.0, seed=n)
    assert float(condition_number(matrix, "norm_det")) == pytest.approx(
        piazza_politi(matrix), rel=1e-6
    )


@pytest.mark.parametrize("n", [1, 2, 30, 400])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 3e120])
def test_norm_det_of_an_orthogonal_matrix_is_one_from_above(n, scale):
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    bound = float(condition_number(scale * with_eigenvalues(signs), "norm_det"))
    assert 1.0 <= bound < 1.0 + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 24),
    log_kappa=st.floats(0, 9),
    seed=st.integers(0, 10**6),
    tight=st.booleans(),
)
def test_norm_det_is_never_below_the_true_one(n, log_kappa, seed, tight):
    kappa = 10.0**log_kappa
    rng = np.random.default_rng(seed)
    if tight:  # the spectrum for which the bound is attained
        middle = np.full(n - 2, math.sqrt((1 + kappa**-2) / 2))
    else:
        middle = kappa ** -rng.uniform(size=n - 2)
    eigenvalues = np.concatenate([[1.0], middle, [1 / kappa]]) * rng.choice([-1.0, 1.0], n)
    matrix = with_eigenvalues(eigenvalues, seed)
    # The matrix itself has the wanted eigenvalues to rounding only.
    magnitudes = np.abs(np.linalg.eigvalsh(matrix))
    true = magnitudes.max() / magnitudes.min()
    bound = float(condition_number(matrix, "norm_det"))
    assert bound >= true * (1 - 1e-15 * n * kappa)
    if tight and kappa < 1e5:
        assert bound <= true * (1 + 1e-3)


@pytest.mark.parametrize(
    "n",
    [
        50,
        200,
        600,
        pytest.param(1024, marks=pytest.mark.slow),
        pytest.param(2000, marks=pytest.mark.slow),
    ],
)
def test_norm_det_neither_overflows_nor_underflows(n):
    kappa = 1e4
    matrix = hessian_like(n, kappa, seed=1)
    log_bound = float(log_condition_number(matrix, "norm_det"))
    assert math.log(kappa) <= log_bound < math.inf
    bound = float(condition_number(matrix, "norm_det"))
    assert kappa <= bound < math.inf
    if n >= 600:  # beyond float64: saturated, and the logarithm says how far beyond
        assert bound == np.finfo(np.float64).max and log_bound > 710


def test_norm_det_is_looser_the_larger_the_matrix():
    logs = [float(log_condition_number(hessian_like(n, 1e4), "norm_det")) for n in (4, 16, 64)]
    assert math.log(1e4) < logs[0] < logs[1] / 2 < logs[2] / 4


SINGULAR = {
    "zero": np.zeros((3, 3)),
    "ones": np.ones((4, 4)),
    "dead unit": np.diag([1.0, 0.0, 2.0]),
    "zero, N = 1": np.zeros((1, 1)),
    "indefinite": np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_is_infinite_and_raises_nowhere(name, method, dtype):
    matrix = tf.constant(SINGULAR[name], dtype)
    assert float(condition_number(matrix, method)) == math.inf
    in_graph = tf.function(lambda a: condition_number(a, method))
    assert float(in_graph(matrix)) == math.inf


@pytest.mark.parametrize("method", ["lanczos", "exact"])
def test_singular_to_working_precision_is_infinite(method):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(40, 39))
    assert float(condition_number(factor @ factor.T, method)) == math.inf


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite_in_a_graph_is_nan(method, value):
    matrix = np.eye(4)
    matrix[1, 2] = matrix[2, 1] = value
    assert math.isnan(tf.function(lambda a: condition_number(a, method))(tf.constant(matrix)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-290, 1e-3, 1e290])
def test_the_scale_does_not_matter(method, scale):
    matrix = hessian_like(12, 50.0)
    assert float(condition_number(scale * matrix, method)) == pytest.approx(
        float(condition_number(matrix, method)), rel=1e-9
    )


@pytest.mark.parametrize("method", METHODS)
def test_one_by_one(method):
    assert float(condition_number([[-4.0]], method)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_graph_and_eager_agree_and_repeat_to_the_bit(method):
    matrix = tf.constant(hessian_like(30, 1e3))
    eager = float(condition_number(matrix, method))
    assert eager == float(condition_number(matrix, method))
    in_graph = tf.function(lambda a: condition_number(a, method))
    assert float(in_graph(matrix)) == pytest.approx(eager, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_same_shapes_do_not_trace_again(method):
    from keras_qnewton.conditioning.condition_number import _log_condition_number

    for n in (5, 6, 7):
        condition_number(hessian_like(n, 10.0), method)
    traced = _log_condition_number.experimental_get_tracing_count()
    for n in (5, 6, 8, 9):
        condition_number(hessian_like(n, 20.0), method)
    assert _log_condition_number.experimental_get_tracing_count() == traced


def test_exact_compiles():
    compiled = tf.function(lambda a: condition_number(a, "exact"), jit_compile=True)
    assert float(compiled(tf.constant(hessian_like(8, 100.0)))) == pytest.approx(100.0, rel=1e-6)


@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.zeros((2, 3)), r"`matrix` must be square.*shape \(2, 3\)"),
        (np.zeros(4), "`matrix` must be square"),
        (np.zeros((0, 0)), "`matrix` must be square and not empty"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "`matrix` must be symmetric"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "`matrix` must be finite"),
        (np.eye(2, dtype=int), "`matrix` must be float32 or float64.*int64"),
    ],
)
def test_bad_matrix(matrix, message):
    with pytest.raises(ValueError, match="Argument " + message):
        condition_number(matrix)


def test_unknown_method():
    with pytest.raises(ValueError, match="Argument `method` must be one of 'exact', 'lanczos'"):
        condition_number(np.eye(2), method="svd")
