"""An even polynomial that is 1 at 0 and small on [Δ, 1]: it picks the kernel of a matrix.

With y(x) = 2 (x² - Δ²)/(1 - Δ²) - 1, which maps [Δ, 1] to [-1, 1],

    R(x) = T_l(y(x)) / T_l(y(0))

has degree 2l, and no other of that degree with R(0) = 1 has a smaller

    η = max |R(x)| = 1 / cosh(2 l artanh Δ)    on Δ <= |x| <= 1,

so that l = ⌈ln(2/η) / 2Δ⌉ is enough. -η <= R <= 1 everywhere on [-1, 1], and (2R - 1 + η)/(1 + η)
is a reflection of what R projects on, but for η.

Source: Lin & Tong 2020, "Optimal polynomial based quantum eigenstate filtering", Quantum 4, 361
(R); Dalzell 2024, arXiv:2406.12086, section 3 (the reflection).

All coefficients are float64 arrays `[degree + 1]` of Chebyshev polynomials of the first kind.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial, interpolate, over, sines
from keras_qnewton.solvers.quantum.inverse_polynomial import check, imaginary_angles, real_angle

# For κ = 1, where any small degree would do: Δ below 1.
LARGEST_GAP = 0.99


def kernel_degree(condition_number: float, ripple: float) -> int:
    """The smallest even degree with ``|R(x)| <= ripple`` on ``1/κ <= |x| <= 1``.

    Args:
        condition_number: κ >= 1, finite.
        ripple: η, in (0, 1).
    """
    check(max(condition_number, 1.01), ripple)
    # A hair less, so that rounding does not make one more of a whole number.
    needed = math.acosh(1 / ripple) / (2 * math.atanh(_gap(condition_number)))
    return 2 * max(1, math.ceil(needed * (1 - 1e-12)))


def kernel_ripple(condition_number: float, degree: int) -> float:
    """η of R of this even degree."""
    return 1 / math.cosh(degree * math.atanh(_gap(condition_number)))


def projection(condition_number: float, degree: int) -> Polynomial:
    """R of this even degree; see `projection_coefficients`."""
    a, steps = _gap(condition_number), degree // 2
    return Polynomial(
        degree,
        lambda x: _values(x, sines(x), a, steps),
        functools.partial(projection_coefficients, condition_number, degree),
    )


def reflection(condition_number: float, degree: int) -> Polynomial:
    """``(2R - 1 + η)/(1 + η)`` of this even degree; see `projection_coefficients`."""
    ripple, inner = kernel_ripple(condition_number, degree), projection(condition_number, degree)
    return Polynomial(
        degree,
        lambda x: (2 * inner.at(x) - 1 + ripple) / (1 + ripple),
        functools.partial(reflection_coefficients, condition_number, degree),
    )


def inverse_by_residual(condition_number: float, degree: int) -> Polynomial:
    """``(1 - R(x))/x`` of this odd degree; see `inverse_by_residual_coefficients`."""
    a, steps = _gap(condition_number), (degree + 1) // 2
    return Polynomial(
        degree,
        lambda x: over(_one_less(x, sines(x), a, steps), x),
        functools.partial(inverse_by_residual_coefficients, condition_number, degree),
        gap=a,
    )


def projection_coefficients(condition_number: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients of R, zero at odd indices.

    Args:
        condition_number: κ >= 1, 1/Δ.
        degree: 2l, positive.

    Raises:
        ValueError: If the degree is not even and positive.
    """
    if degree < 2 or degree % 2:
        raise ValueError(f"Argument `degree` must be even and positive. Received: degree={degree}")
    a, steps = _gap(condition_number), degree // 2
    # T_2k(x) = T_k(2x² - 1): R's values at the nodes of cos 2θ, with x = cos θ.
    half = (np.arange(steps + 1) + 0.5) * (math.pi / (2 * (steps + 1)))
    coefficients = np.zeros(degree + 1)
    coefficients[::2] = interpolate(_values(np.cos(half), np.sin(half), a, steps))
    return coefficients


def reflection_coefficients(condition_number: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients of ``(2R - 1 + η)/(1 + η)``; see `projection_coefficients`."""
    ripple = kernel_ripple(condition_number, degree)
    coefficients = 2 * projection_coefficients(condition_number, degree)
    coefficients[0] -= 1 - ripple
    return coefficients / (1 + ripple)


def inverse_by_residual_coefficients(condition_number: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients of ``p(x) = (1 - R(x))/x``, zero at even indices.

    Its residual ``1 - x p(x)`` is R, the smallest that an odd p of that degree can leave.

    Args:
        condition_number: κ >= 1, 1/Δ.
        degree: 2l - 1.
    """
    nodes = degree + 3  # even, so that no node is 0
    theta = (np.arange(nodes) + 0.5) * (math.pi / nodes)
    x, steps = np.cos(theta), (degree + 1) // 2
    values = over(_one_less(x, np.sin(theta), _gap(condition_number), steps), x)
    coefficients = interpolate(values)[: degree + 1]
    coefficients[0::2] = 0
    return coefficients


def _values(x: np.ndarray, sine: np.ndarray, a: float, steps: int) -> np.ndarray:
    """R, where sine is ``sqrt(1 - x²)``."""
    return 1 - _one_less(x, sine, a, steps)


def _one_less(x: np.ndarray, sine: np.ndarray, a: float, steps: int) -> np.ndarray:
    """``1 - R(x)``, without a loss of digits near x = 0; angles as in `inverse_polynomial`."""
    at_zero = 2 * steps * math.atanh(a)
    # 1 / cosh, of exponents relative to its own: it overflows at a degree of a few hundred.
    scale = 2 * math.exp(-at_zero) / (1 + math.exp(-2 * at_zero))
    out = np.empty_like(x)
    outer = np.abs(x) >= a
    out[outer] = 1 - np.cos(steps * real_angle(x[outer], sine[outer], a)) * scale
    total, fall = imaginary_angles(x[~outer], sine[~outer], a)
    fallen = np.expm1(-steps * total) * np.expm1(-steps * fall)
    out[~outer] = fallen / (1 + math.exp(-2 * at_zero))
    return out


def _gap(condition_number: float) -> float:
    return min(1 / condition_number, LARGEST_GAP)
