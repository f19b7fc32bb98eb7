"""The odd polynomial closest to 1/x on [-1, -1/κ] ∪ [1/κ, 1], in closed form.

With a = 1/κ, r = (1 - a)/(1 + a) and y(x) = (2x² - 1 - a²)/(1 - a²), which maps [a, 1] to
[-1, 1], let L(y) = T_n(y) + r T_{n-1}(y). Then

    p(x) = (1 - L(y(x)) / L(y(0))) / x

is an odd polynomial of degree 2n - 1, and no other of that degree has a smaller

    max |p(x) - 1/x| = (1 - a)^n / (a (1 + a)^(n-1))    on a <= |x| <= 1.

Source: Sünderhauf, Németh, Walayat, Patterson & Berntson 2025, "Matrix inversion polynomials
for the quantum singular value transformation", arXiv:2507.15537. It refines the Chebyshev
iteration polynomial of Gribling, Kerenidis & Szilágyi 2021, arXiv:2109.04248, which has T_n
alone in the place of L.

All coefficients are float64 arrays `[degree + 1]` of Chebyshev polynomials of the first kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def inverse_degree(condition_number: float, epsilon: float) -> int:
    """The smallest odd degree whose error against 1/x is at most `epsilon`.

    Args:
        condition_number: κ > 1.
        epsilon: Largest allowed ``|p(x) - 1/x|`` on ``1/κ <= |x| <= 1``; positive.
    """
    check(condition_number, epsilon)
    # (1-a)^n / (a (1+a)^(n-1)) = (κ - 1) exp(-2 (n-1) artanh(a))
    needed = math.log((condition_number - 1) / epsilon) / (2 * math.atanh(1 / condition_number))
    return 2 * max(1, 1 + math.ceil(needed)) - 1


def inverse_error(condition_number: float, degree: int) -> float:
    """The largest ``|p(x) - 1/x|`` on ``1/κ <= |x| <= 1`` at this odd degree."""
    steps = (degree - 1) // 2
    return (condition_number - 1) * math.exp(-2 * steps * math.atanh(1 / condition_number))


def inverse_coefficients(condition_number: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients of p, `[degree + 1]`, zero at even indices.

    Args:
        condition_number: κ > 1.
        degree: An odd number.

    Raises:
        ValueError: If κ is not above 1 or the degree is not odd and positive.
    """
    check(condition_number, 1.0)
    if degree < 1 or degree % 2 == 0:
        raise ValueError(f"Argument `degree` must be odd and positive. Received: degree={degree}")
    a = 1 / condition_number
    n = (degree + 1) // 2
    nodes = 2 * n + 2  # even, so that no node is 0
    theta = (np.arange(nodes) + 0.5) * (math.pi / nodes)
    x = np.cos(theta)
    values = (1 - _remainder(x, np.sin(theta), a, n)) / x
    coefficients = interpolate(values)[: degree + 1]
    coefficients[0::2] = 0
    return coefficients


def _remainder(x: np.ndarray, sine: np.ndarray, a: float, n: int) -> np.ndarray:
    """``L(y(x)) / L(y(0))``, where sine is ``sqrt(1 - x²)``.

    In angles: with cos φ = -y, ``(-1)^n L = cos nφ - r cos (n-1)φ``, and φ is imaginary for
    ``|x| < a``. The half-angle forms of φ lose no digits near x = 0 and x = a, where
    ``arccosh`` of a number close to 1 would lose κ² of them; all exponents are taken relative
    to the denominator's, which overflows at a degree of a few hundred.
    """
    ratio = (1 - a) / (1 + a)
    top = 2 * math.atanh(a)  # the imaginary angle at x = 0; ratio = exp(-top)
    log_denominator = (n - 1) * top + math.log(math.sinh(top))
    out = np.empty_like(x)
    outer = np.abs(x) >= a
    phi = 2 * np.arctan2(np.sqrt((x[outer] - a) * (x[outer] + a)), sine[outer])
    out[outer] = (np.cos(n * phi) - ratio * np.cos((n - 1) * phi)) * math.exp(-log_denominator)
    inner = x[~outer]
    w = 2 * np.arcsinh(np.sqrt((a - inner) * (a + inner) / ((1 - a) * (1 + a))))

    def scaled_cosh(k: int) -> np.ndarray:
        return (np.exp(k * w - log_denominator) + np.exp(-k * w - log_denominator)) / 2

    out[~outer] = scaled_cosh(n) - ratio * scaled_cosh(n - 1)
    return out


def interpolate(values: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients from values at the nodes ``cos((k + 1/2) π / M)``."""
    nodes = len(values)
    spectrum = np.fft.fft(np.concatenate([values, values[::-1]]))[:nodes]
    half_step = np.exp(-0.5j * math.pi * np.arange(nodes) / nodes)
    coefficients = (spectrum * half_step).real / nodes
    coefficients[0] /= 2
    return coefficients


def maximum(coefficients: np.ndarray) -> float:
    """``max |p|`` on [-1, 1], from samples: at most 0.5 % too small.

    With m samples per degree, evenly spaced in the angle, the true maximum is at most
    ``1 / cos(π / 2m)`` times the sampled one (Ehlich & Zeller 1964); m is 16 here.
    """
    samples = 16 * max(len(coefficients) - 1, 1)
    return float(np.max(np.abs(np.fft.fft(coefficients, 2 * samples)[: samples + 1].real)))


def clenshaw(
    coefficients: np.ndarray, multiply: Callable[[np.ndarray], np.ndarray], start: np.ndarray
) -> np.ndarray:
    """``p(A) b`` by Clenshaw's recurrence (1955), from products with A alone.

    Args:
        coefficients: Chebyshev coefficients `[degree + 1]`.
        multiply: From v to ``A v``, the spectrum of A in [-1, 1]. For values of p at points
            x, ``lambda v: x * v``.
        start: b; for values of p, ones like x.

    Returns:
        Array like `start`.
    """
    after = np.zeros_like(start)
    current = coefficients[-1] * start if len(coefficients) > 1 else np.zeros_like(start)
    for coefficient in coefficients[-2:0:-1]:
        current, after = coefficient * start + 2 * multiply(current) - after, current
    return coefficients[0] * start + multiply(current) - after


def check(condition_number: float, epsilon: float) -> None:
    """Raises ValueError unless ``κ > 1`` is finite and `epsilon` positive."""
    if not 1 < condition_number < math.inf:
        raise ValueError(
            "Argument `condition_number` must be finite and above 1. "
            f"Received: condition_number={condition_number!r}"
        )
    if not epsilon > 0:
        raise ValueError(f"Argument `epsilon` must be positive. Received: epsilon={epsilon!r}")
