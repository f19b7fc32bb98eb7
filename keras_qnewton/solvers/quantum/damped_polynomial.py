"""Polynomials for damped least squares, μ²/(x² + μ²) and x/(x² + μ²), by their residual.

p interpolates f(x) = μ²/(x² + μ²) at the 2M zeros of T_2M, so that

    1 - (x² + μ²) p(x)/μ² = T_2M(x) / T_2M(iμ)

is p's error relative to f, and the residual that p leaves of a system with x² + μ². p is even, of
degree 2M - 2, and no other of that degree has a smaller

    η = max |1 - p/f| = 1 / cosh(2M asinh μ)    on [-1, 1]:

the iteration polynomial of Chebyshev (Golub & Varga 1961; Saad 2003, section 12.3) on [μ², 1 + μ²].
So 2M = ⌈ln(2/η) / asinh μ⌉ is enough. x p(x)/μ² has the same relative error of x/(x² + μ²).

All coefficients are float64 arrays `[degree + 1]` of Chebyshev polynomials of the first kind.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial, interpolate


def damped_degree(damping: float, epsilon: float) -> int:
    """The smallest even degree, at least 2, whose relative error is within `epsilon`.

    Args:
        damping: μ, positive and finite.
        epsilon: η, in (0, 1).

    Raises:
        ValueError: If an argument is not in its range.
    """
    if not 0 < damping < math.inf:
        raise ValueError(
            f"Argument `damping` must be positive and finite. Received: damping={damping!r}"
        )
    if not 0 < epsilon < 1:
        raise ValueError(
            f"Argument `epsilon` must be between 0 and 1. Received: epsilon={epsilon!r}"
        )
    # A hair less, so that rounding does not make one more of a whole number.
    needed = math.acosh(1 / epsilon) / (2 * math.asinh(damping)) * (1 - 1e-12)
    return 2 * max(math.ceil(needed), 2) - 2


def damped_error(damping: float, degree: int) -> float:
    """η of p of this even degree."""
    return 1 / math.cosh(min((degree + 2) * math.asinh(damping), 700.0))


def damped_polynomial(damping: float, degree: int) -> Polynomial:
    """p of this even degree; see `damped_coefficients`."""
    return Polynomial(
        degree,
        functools.partial(_values, damping, degree),
        functools.partial(damped_coefficients, damping, degree),
        gap=damping,
    )


def damped_times_x(damping: float, degree: int) -> Polynomial:
    """``x p(x)``, p of this even degree."""
    return Polynomial(
        degree + 1,
        lambda x: x * _values(damping, degree, x),
        lambda: times_x(damped_coefficients(damping, degree)),
        gap=damping,
    )


def _values(damping: float, degree: int, x: np.ndarray) -> np.ndarray:
    """p at x: f less its error. T_2M(sin φ) and T_2M(iμ) have the same sign, (-1)^M."""
    angle = np.arcsin(np.clip(x, -1.0, 1.0))
    error = np.cos((degree + 2) * angle) * damped_error(damping, degree)
    # Scaled, as squares under- and overflow.
    return (1 - error) / (1 + np.square(x / damping))


def damped_coefficients(damping: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients of p, zero at odd indices.

    Args:
        damping: μ, positive.
        degree: An even number, at least 2.
    """
    if degree < 2 or degree % 2:
        raise ValueError(f"Argument `degree` must be even and positive. Received: degree={degree}")
    nodes = degree // 2 + 1
    # T_2k(x) = T_k(2x² - 1): values at the zeros in cos 2θ, with x = cos θ.
    x = np.cos((np.arange(nodes) + 0.5) * (math.pi / (2 * nodes)))
    # Scaled, as squares under- and overflow.
    values = 1 / (1 + np.square(x / damping))
    coefficients = np.zeros(degree + 1)
    coefficients[::2] = interpolate(values)
    return coefficients


def times_x(coefficients: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients `[degree + 2]` of ``x p(x)``, p even: x T_j = (T_j+1 + T_j-1)/2."""
    out = np.zeros(len(coefficients) + 1)
    out[1:] = coefficients / 2
    out[1] += coefficients[0] / 2
    out[:-2] += coefficients[1:] / 2
    return out
