"""Closed forms of circuits' polynomials against the Chebyshev series that circuits are made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from keras_qnewton.solvers.quantum.chebyshev import Polynomial, maximum
from keras_qnewton.solvers.quantum.damped_polynomial import (
    damped_degree,
    damped_polynomial,
    damped_times_x,
)
from keras_qnewton.solvers.quantum.inverse_polynomial import inverse_degree, inverse_polynomial
from keras_qnewton.solvers.quantum.kernel_polynomial import (
    inverse_by_residual,
    kernel_degree,
    projection,
    reflection,
)
from keras_qnewton.solvers.quantum.transforms import inversion

# From κ and an accuracy to each of them. 1/κ is the damped ones' μ.
POLYNOMIALS = {
    "inverse": lambda kappa, e: inverse_polynomial(kappa, inverse_degree(kappa, e)),
    "inverse by residual": lambda k, e: inverse_by_residual(k, kernel_degree(k, e) - 1),
    "projection": lambda k, e: projection(k, kernel_degree(k, e)),
    "reflection": lambda k, e: reflection(k, kernel_degree(k, e)),
    "damped": lambda k, e: damped_polynomial(1 / k, damped_degree(1 / k, e)),
    "damped, times x": lambda k, e: damped_times_x(1 / k, damped_degree(1 / k, e)),
    "a series": lambda k, e: Polynomial.of(inverse_polynomial(k, 7).coefficients),
}
EVERY = pytest.mark.parametrize("name", list(POLYNOMIALS))
conditions, accuracies = st.floats(1.02, 300), st.floats(1e-7, 0.999)


@EVERY
@settings(deadline=None, max_examples=25)
@given(kappa=conditions, epsilon=accuracies, seed=st.integers(0, 10**6))
def test_values_are_those_of_the_series(name, kappa, epsilon, seed):
    p = POLYNOMIALS[name](kappa, epsilon)
    assert p.coefficients.shape == (p.degree + 1,)
    assert not np.any(p.coefficients[1 - p.degree % 2 :: 2])
    special = [0.0, 1.0, 1 / kappa, np.nextafter(1 / kappa, 0), 1e-3 / kappa, 1e-12, 1e-200]
    inside = np.random.default_rng(seed).uniform(0, 1, 40)
    x = np.array([*special, *inside, *(inside / kappa)])
    x = np.concatenate([x, -x])
    expected = chebyshev.chebval(x, p.coefficients)
    np.testing.assert_allclose(p.at(x), expected, rtol=1e-9, atol=1e-11 * p.largest)


@EVERY
@settings(deadline=None, max_examples=25)
@given(kappa=conditions, epsilon=accuracies)
def test_largest_value_is_half_a_percent_low_at_most(name, kappa, epsilon):
    p = POLYNOMIALS[name](kappa, epsilon)
    dense = np.cos(np.linspace(0, np.pi / 2, 64 * p.degree + 1))
    expected = np.max(np.abs(chebyshev.chebval(dense, p.coefficients)))
    assert p.largest == pytest.approx(expected, rel=6e-3)
    assert p.largest == pytest.approx(maximum(p.coefficients), rel=6e-3)


@EVERY
def test_points_that_rounding_left_beyond_one(name):
    p = POLYNOMIALS[name](20.0, 1e-3)
    beyond = p.at(np.array([1 + 4e-16, -1 - 4e-16]))
    np.testing.assert_allclose(beyond, p.at(np.array([1.0, -1.0])), rtol=1e-9)


def test_a_degree_of_millions_takes_no_series():
    """1/x to the accuracy that was asked for, and what it is scaled by, without coefficients."""
    kappa, epsilon = 1e6, 1e-3
    plan = inversion(kappa, epsilon)
    assert plan.degree > 1e7
    x = np.geomspace(1 / kappa, 1, 1000)
    assert np.max(np.abs(plan.polynomial.at(x) - 1 / x)) <= epsilon * (1 + 1e-3)
    assert plan.scale * np.max(np.abs(plan.polynomial.at(x))) <= 0.905
    assert "coefficients" not in vars(plan.polynomial)
