"""Steihaug's truncated conjugate gradients against SciPy's trust-ncg subproblem."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize._trustregion_ncg import CGSteihaugSubproblem

from keras_qnewton.solvers import ConjugateGradient

from .systems import relative_error, symmetric, vector


def model(matrix, gradient, step):
    return gradient @ step + step @ matrix @ step / 2


def cauchy_point(matrix, gradient, radius):
    """Nocedal and Wright 2006, equations 4.11 and 4.12."""
    norm, curvature = np.linalg.norm(gradient), gradient @ matrix @ gradient
    tau = 1.0 if curvature <= 0 else min(1.0, norm**3 / (radius * curvature))
    return -tau * radius / norm * gradient


def scipys(matrix, gradient, radius):
    problem = CGSteihaugSubproblem(
        np.zeros_like(gradient),
        lambda x: model(matrix, gradient, x),
        lambda x: gradient + matrix @ x,
        lambda x: matrix,
        lambda x, v: matrix @ v,
    )
    # Its tolerance, an absolute one: as tight for the small gradients as for the large.
    norm = np.linalg.norm(gradient)
    return (*problem.solve(radius), min(0.5, np.sqrt(norm)))


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(1, 12),
    definite=st.booleans(),
    power=st.floats(-3, 2),
    seed=st.integers(0, 10**6),
)
def test_step_is_scipys(size, definite, power, seed):
    matrix = symmetric(size, 20, definite, seed=seed)
    gradient = vector(size, seed) * 1e-3
    # Never exactly a Newton step's length, where rounding would decide on the boundary.
    radius = 10.0**power * np.linalg.norm(gradient) / 3.1
    expected, boundary, tolerance = scipys(matrix, gradient, radius)
    solution = ConjugateGradient(tolerance).solve(matrix, gradient, radius=radius)
    step = -solution.x.numpy()
    assert solution.details["hit_boundary"] is boundary
    assert relative_error(step, expected) <= 1e-6
    assert np.linalg.norm(step) <= radius * (1 + 1e-6)
    if boundary:
        np.testing.assert_allclose(np.linalg.norm(step), radius, rtol=1e-9)
    reached = model(matrix, gradient, step)
    cauchy = model(matrix, gradient, cauchy_point(matrix, gradient, radius))
    assert reached <= cauchy + 1e-12 * abs(cauchy)


@pytest.mark.parametrize("power", [-30, -6, 0, 10, 30])
@pytest.mark.parametrize("definite", [True, False])
def test_step_stays_in_the_region_in_float32(definite, power):
    matrix = symmetric(30, 100, definite, dtype="float32")
    rhs = vector(30, dtype="float32")
    radius = 10.0**power
    solution = ConjugateGradient().solve(matrix, rhs, radius=radius)
    length = np.linalg.norm(solution.x.numpy().astype("float64"))
    assert length <= radius * (1 + 1e-6)
    # An indefinite quadratic has no minimum inside.
    assert solution.details["hit_boundary"] is (not definite or power <= 0)


@settings(deadline=None, max_examples=10)
@given(size=st.integers(1, 10), definite=st.booleans(), seed=st.integers(0, 10**6))
def test_a_large_region_changes_nothing_for_a_definite_matrix(size, definite, seed):
    matrix, rhs = symmetric(size, 20, definite, seed=seed), vector(size, seed)
    free = ConjugateGradient(1e-10).solve(matrix, rhs)
    bounded = ConjugateGradient(1e-10).solve(matrix, rhs, radius=1e9)
    assert "hit_boundary" not in free.details
    if free.details["negative_curvature"]:
        np.testing.assert_allclose(np.linalg.norm(bounded.x), 1e9, rtol=1e-9)
    else:
        np.testing.assert_array_equal(bounded.x, free.x)
        assert not bounded.details["hit_boundary"]


def test_the_lower_end_is_taken_at_negative_curvature():
    # The second direction's near end is the worse: p and -p both lead down in the end.
    matrix, rhs, radius = np.diag([7.0, -8.0]), 1e-6 * np.array([8.0, 1.0]), 1.5e-6
    solution = ConjugateGradient().solve(matrix, rhs, radius=radius)
    expected, _, _ = scipys(matrix, rhs, radius)
    assert solution.details["negative_curvature"] and solution.details["hit_boundary"]
    assert relative_error(-solution.x.numpy(), expected) <= 1e-12


def test_zero_rhs_stays_at_the_origin():
    solution = ConjugateGradient().solve(-np.eye(3), np.zeros(3), radius=1.0)
    np.testing.assert_array_equal(solution.x, np.zeros(3))
    assert solution.details["hit_boundary"] is False


def test_nan_products_give_no_step():
    solution = ConjugateGradient().solve_operator(lambda v: v * np.nan, np.ones(3), radius=1.0)
    assert np.isnan(solution.residual)
    assert solution.details["hit_boundary"] is False


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph_with_a_tensor_radius(jit_compile):
    matrix, rhs = symmetric(6, definite=False), vector(6)

    @tf.function(jit_compile=jit_compile)
    def solve(rhs, radius):
        solution = ConjugateGradient().solve_operator(
            lambda v: tf.linalg.matvec(tf.constant(matrix), v), rhs, radius
        )
        return solution.x, solution.details["hit_boundary"]

    for radius in (0.01, 3.0):
        x, boundary = solve(tf.constant(rhs), tf.constant(radius, tf.float64))
        expected = ConjugateGradient().solve(matrix, rhs, radius=radius)
        np.testing.assert_allclose(x, expected.x, rtol=1e-9)
        assert bool(boundary) is expected.details["hit_boundary"]


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, np.inf])
def test_radius_must_be_a_size(radius):
    with pytest.raises(ValueError, match=r"Argument `radius` must be .*Received: radius="):
        ConjugateGradient().solve(np.eye(2), np.ones(2), radius=radius)


def test_radius_must_be_a_scalar():
    with pytest.raises(ValueError, match=r"Argument `radius` must be .*shape \(2,\)"):
        ConjugateGradient().solve(np.eye(2), np.ones(2), radius=np.ones(2))
