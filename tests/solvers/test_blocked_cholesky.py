"""The blocked factorisation against SciPy's LAPACK."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from keras_qnewton.solvers import Cholesky
from keras_qnewton.solvers.blocked_cholesky import (
    blocked_cholesky,
    blocked_cholesky_solve,
    panel_width,
)

from .systems import relative_error, vector

# One block, twice; a last panel that is narrower than the others; two groups; the wide panels.
SIZES = [1, 384, 385, 700, 1000, 1025]
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


def gauss_newton(size, condition_number, dtype, seed=0):
    """A damped ``J^T J / N``, cheaper to make than a matrix of given eigenvalues."""
    rows = np.random.default_rng([seed, size]).normal(size=(size // 2 + 1, size))
    matrix = rows.T @ rows / len(rows)
    largest = 1.0 if size == 1 else (1 + np.sqrt(2)) ** 2
    return (matrix + largest / condition_number * np.eye(size)).astype(dtype)


def assembled(factor):
    """L from its block rows."""
    sizes = [block.shape[0] for block in factor.diagonal]
    out, start = np.zeros((sum(sizes), sum(sizes))), 0
    for k, size in enumerate(sizes):
        out[start : start + size, start : start + size] = factor.diagonal[k]
        if k < len(factor.right):
            out[start + size :, start : start + size] = np.transpose(factor.right[k])
        start += size
    return out


def backward_error(matrix, lower):
    product = np.tril(lower).astype("float64") @ np.tril(lower).astype("float64").T
    return np.linalg.norm(product - matrix) / np.linalg.norm(matrix)


@pytest.mark.parametrize("dtype, condition_number", [("float32", 1e4), ("float64", 1e10)])
@pytest.mark.parametrize("size", SIZES)
def test_backward_error_is_lapacks(size, dtype, condition_number):
    matrix = gauss_newton(size, condition_number, dtype)
    factor = tf.function(blocked_cholesky)(tf.constant(matrix))
    assert factor.definite
    lower = assembled(factor)
    lapack = scipy.linalg.cholesky(matrix, lower=True)
    mine = backward_error(matrix.astype("float64"), lower)
    # The products' sums are taken in another order: equal but for a small factor.
    assert mine <= 4 * backward_error(matrix.astype("float64"), lapack) + UNIT_ROUNDOFF[dtype]
    assert np.all(np.diag(lower) > 0)


@pytest.mark.parametrize("size", [5, 385, 700])
def test_a_shift_is_that_of_the_matrix(size):
    matrix = gauss_newton(size, 1e8, "float64")
    factor = tf.function(blocked_cholesky)(tf.constant(matrix), 0.5)
    lapack = scipy.linalg.cholesky(matrix + 0.5 * np.eye(size), lower=True)
    np.testing.assert_allclose(np.tril(assembled(factor)), lapack, atol=1e-12)


@pytest.mark.parametrize("group", [1, 2, 3], ids="{} panels".format)
def test_many_groups_are_one_factor(group):
    """Groups of whatever length, the last one shorter."""
    matrix = gauss_newton(700, 1e4, "float64")
    factor = tf.function(blocked_cholesky)(tf.constant(matrix), group=group * panel_width(700))
    lapack = scipy.linalg.cholesky(matrix, lower=True)
    np.testing.assert_allclose(np.tril(assembled(factor)), lapack, atol=1e-12)


@pytest.mark.parametrize("count", [5, 390])
def test_some_rows_and_columns(count):
    matrix = gauss_newton(600, 1e6, "float64")
    live = np.random.default_rng(count).permutation(600)[:count].astype(np.int32)
    factor = tf.function(blocked_cholesky)(tf.constant(matrix), 0.5, tf.constant(live))
    system = matrix[np.ix_(live, live)] + 0.5 * np.eye(count)
    lapack = scipy.linalg.cholesky(system, lower=True)
    np.testing.assert_allclose(np.tril(assembled(factor)), lapack, atol=1e-12)


@pytest.mark.parametrize("dtype, condition_number", [("float32", 1e3), ("float64", 1e8)])
@pytest.mark.parametrize("size", SIZES)
def test_substitution_is_scipys(size, dtype, condition_number):
    matrix, rhs = gauss_newton(size, condition_number, dtype), vector(size, dtype=dtype)
    factor = blocked_cholesky(tf.constant(matrix))
    x = blocked_cholesky_solve(factor, tf.constant(rhs))
    assert x.dtype == dtype and x.shape == rhs.shape
    expected = scipy.linalg.solve(matrix.astype("float64"), rhs, assume_a="pos")
    assert relative_error(x, expected) <= 4 * condition_number * UNIT_ROUNDOFF[dtype]


@pytest.mark.parametrize("bad", [0, 127, 128, 255, 399], ids="row {}".format)
@pytest.mark.parametrize("pivot", [0.0, -1.0, np.nan, np.inf])
def test_a_bad_pivot_in_any_panel_of_a_group_is_told_and_does_not_raise(bad, pivot):
    matrix = np.eye(400)
    matrix[bad, bad] = pivot
    factor = tf.function(blocked_cholesky)(tf.constant(matrix), group=2 * panel_width(400))
    assert not factor.definite
    blocked_cholesky_solve(factor, tf.constant(vector(400)))


@pytest.mark.parametrize("bad", [0, 255, 399], ids="row {}".format)
def test_a_matrix_that_is_not_definite_has_a_solution_of_nan(bad):
    matrix = np.eye(400)
    matrix[bad, bad] = -1.0

    @tf.function
    def solve(matrix, rhs):
        solution = Cholesky().solve(matrix, rhs)
        return solution.x, solution.residual

    x, residual = solve(tf.constant(matrix), tf.constant(vector(400)))
    assert np.all(np.isnan(x)) and np.isnan(residual)


def test_an_indefinite_schur_complement_is_told():
    # Every diagonal block is positive definite; the matrix is not.
    matrix = np.eye(400)
    matrix[0, 399] = matrix[399, 0] = 1.5
    assert not blocked_cholesky(tf.constant(matrix)).definite
    matrix[0, 399] = matrix[399, 0] = 0.5
    assert blocked_cholesky(tf.constant(matrix)).definite


@pytest.mark.parametrize("size", [5, 400])
def test_a_size_that_is_not_known_while_tracing(size):
    matrix, rhs = gauss_newton(size, 1e4, "float64"), vector(size)
    signature = [tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None], tf.float64)]

    @tf.function(input_signature=signature)
    def solve(matrix, rhs):
        solution = Cholesky().solve(matrix, rhs)
        return solution.x, solution.residual

    x, residual = solve(matrix, rhs)
    assert relative_error(x, np.linalg.solve(matrix, rhs)) <= 1e-11
    assert residual < 1e-11
    assert np.isnan(solve(-matrix, rhs)[1])


def test_compiles_with_xla():
    matrix, rhs = gauss_newton(400, 1e4, "float64"), vector(400)

    @tf.function(jit_compile=True)
    def solve(matrix, rhs):
        solution = Cholesky().solve(matrix, rhs)
        return solution.x, solution.residual

    x, residual = solve(tf.constant(matrix), tf.constant(rhs))
    assert relative_error(x, np.linalg.solve(matrix, rhs)) <= 1e-11
    assert residual < 1e-11
    assert np.isnan(solve(tf.constant(-matrix), tf.constant(rhs))[1])


def test_exports(tmp_path):
    matrix, rhs = gauss_newton(400, 1e4, "float64"), vector(400)
    module = tf.Module()
    module.solve = tf.function(
        lambda matrix, rhs: Cholesky().solve(matrix, rhs).x,
        input_signature=[tf.TensorSpec([400, 400], tf.float64), tf.TensorSpec([400], tf.float64)],
    )
    tf.saved_model.save(module, str(tmp_path))
    x = tf.saved_model.load(str(tmp_path)).solve(tf.constant(matrix), tf.constant(rhs))
    assert relative_error(x, np.linalg.solve(matrix, rhs)) <= 1e-11


@pytest.mark.parametrize("size, limit", [(384, 20), (1482, 220), (4096, 700)])
def test_graph_stays_small(size, limit):
    traced = tf.function(blocked_cholesky).get_concrete_function(tf.TensorSpec([size, size]))
    assert len(traced.graph.get_operations()) <= limit
