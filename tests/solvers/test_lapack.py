"""What is particular to the LAPACK route."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers import Lapack

from .systems import relative_error, symmetric, vector

CHOLESKY, LU, SINGULAR = 1, 2, 0


@settings(deadline=None, max_examples=20)
@given(
    size=st.integers(1, 30),
    definite=st.booleans(),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_factors_are_scipys(size, definite, seed, dtype):
    matrix = symmetric(size, 30, definite, seed, dtype)
    state = Lapack().init(matrix)
    factors = state.factors.numpy().T
    if definite:
        assert state.kind == CHOLESKY
        expected = scipy.linalg.cholesky(matrix, lower=True)
        np.testing.assert_allclose(np.tril(factors), expected, atol=1e-5)
    else:
        assert state.kind == LU
        expected, pivots = scipy.linalg.lu_factor(matrix)
        np.testing.assert_allclose(factors, expected, atol=1e-5)
        np.testing.assert_array_equal(state.pivots, pivots)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.ones((3, 3)), np.diag([1.0, 0.0, -1.0])])
def test_a_singular_matrix_is_nan(matrix, graph):
    def solve(matrix, rhs):
        solution = Lapack().solve(matrix, rhs)
        return solution.x, solution.residual

    x, residual = (tf.function(solve) if graph else solve)(matrix, np.ones(3))
    assert np.all(np.isnan(x)) and np.isnan(residual)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_given_to_lapack(bad):
    matrix = symmetric(4)
    matrix[1, 2] = matrix[2, 1] = bad
    state = tf.function(Lapack().init)(tf.constant(matrix))
    assert state.kind == SINGULAR


def test_a_large_finite_matrix_is_not_taken_for_infinite():
    matrix = symmetric(4) * 1e307
    solution = Lapack().solve(matrix, vector(4) * 1e300)
    assert relative_error(solution.x, np.linalg.solve(matrix, vector(4) * 1e300)) <= 1e-10


def test_the_matrix_is_left_as_it_was():
    for definite in (True, False):
        matrix = tf.constant(symmetric(6, definite=definite))
        kept = matrix.numpy().copy()
        Lapack().solve(matrix, vector(6))
        np.testing.assert_array_equal(matrix, kept)


def test_a_size_that_is_not_known_while_tracing():
    signature = [tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None], tf.float64)]

    @tf.function(input_signature=signature)
    def solve(matrix, rhs):
        return Lapack().solve(matrix, rhs).x

    for size in (2, 7):
        matrix, rhs = symmetric(size, definite=False), vector(size)
        assert relative_error(solve(matrix, rhs), np.linalg.solve(matrix, rhs)) <= 1e-12


@pytest.mark.parametrize("refinements", [-1, 0.5])
def test_refinements_are_a_count(refinements):
    with pytest.raises(ValueError, match="Argument `refinements` must be a non-negative integer"):
        Lapack(refinements=refinements)


@settings(deadline=None, max_examples=20)
@given(
    size=st.integers(1, 30),
    definite=st.booleans(),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float32", "float64"]),
    steps=st.integers(0, 2),
)
def test_one_call_gives_what_two_stages_do(size, definite, seed, dtype, steps):
    matrix, rhs = symmetric(size, 1e3, definite, seed, dtype), vector(size, seed, dtype)
    solver = Lapack(refinements=steps, tolerance=0)
    at_once = tf.function(lambda a, b: tuple(vars(solver.solve(a, b)).values())[:2])(matrix, rhs)
    staged = solver.compute(solver.init(matrix), rhs)
    np.testing.assert_array_equal(at_once[0], staged.x)
    np.testing.assert_array_equal(at_once[1], staged.residual)


def test_solve_is_one_host_call():
    traced = tf.function(lambda a, b: Lapack().solve(a, b).x).get_concrete_function(
        tf.TensorSpec([600, 600]), tf.TensorSpec([600])
    )
    calls = [op.type for op in traced.graph.get_operations() if "PyFunc" in op.type]
    assert len(calls) == 1


@pytest.mark.parametrize("size", [1000, 1025])
def test_the_residual_of_a_float32_matrix_is_float64s(size):
    # Larger than the chunks in which the matrix is cast.
    matrix, rhs = symmetric(size, 10, dtype="float32"), vector(size, dtype="float32")
    solution = Lapack(refinements=0).solve(matrix, rhs)
    gap = matrix.astype("float64") @ solution.x.numpy().astype("float64") - rhs
    expected = np.linalg.norm(gap) / np.linalg.norm(rhs.astype("float64"))
    np.testing.assert_allclose(solution.residual, expected, rtol=1e-6)
