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

import functools
import math

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial, interpolate, over, sines


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


def inverse_polynomial(condition_number: float, degree: int) -> Polynomial:
    """p of this odd degree; see `inverse_coefficients`."""
    a, n = 1 / condition_number, (degree + 1) // 2
    return Polynomial(
        degree,
        lambda x: _values(x, sines(x), a, n),
        functools.partial(inverse_coefficients, condition_number, degree),
        gap=a,
    )


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
    values = _values(np.cos(theta), np.sin(theta), a, n)
    coefficients = interpolate(values)[: degree + 1]
    coefficients[0::2] = 0
    return coefficients


def _values(x: np.ndarray, sine: np.ndarray, a: float, n: int) -> np.ndarray:
    """p, where sine is ``sqrt(1 - x²)``.

    In angles: with cos φ = -y, ``(-1)^n L = cos nφ - r cos (n-1)φ``. The half-angle form of φ loses
    no digits near x = a, where ``arccosh`` of a number close to 1 would lose κ² of them. For
    ``|x| < a`` φ is imaginary, and ``L(y(0)) - L(y(x))`` is a product; see `imaginary_angles`. All
    exponents are taken relative to those of L(y(0)), which overflows at a degree of a few hundred.
    """
    ratio, top = (1 - a) / (1 + a), 2 * math.atanh(a)  # ratio = exp(-top)
    log_denominator = (n - 1) * top + math.log(math.sinh(top))
    one_less = np.empty_like(x)  # 1 - L(y(x)) / L(y(0))
    outer = np.abs(x) >= a
    phi = real_angle(x[outer], sine[outer], a)
    left = np.cos(n * phi) - ratio * np.cos((n - 1) * phi)
    one_less[outer] = 1 - left * math.exp(-log_denominator)
    total, fall = imaginary_angles(x[~outer], sine[~outer], a)

    def fallen(k: int) -> np.ndarray:
        """``cosh(k top) - cosh(k w)``, over L(y(0))."""
        scale = math.exp(k * top - log_denominator) / 2
        return scale * np.expm1(-k * total) * np.expm1(-k * fall)

    one_less[~outer] = fallen(n) - ratio * fallen(n - 1)
    return over(one_less, x)


def real_angle(x: np.ndarray, sine: np.ndarray, a: float) -> np.ndarray:
    """φ with ``cos φ = -y(x)``, at ``|x| >= a``; sine is ``sqrt(1 - x²)``."""
    return 2 * np.arctan2(np.sqrt((x - a) * (x + a)), sine)


def imaginary_angles(x: np.ndarray, sine: np.ndarray, a: float) -> tuple[np.ndarray, np.ndarray]:
    """``W + w`` and ``W - w`` with ``cosh w = -y(x)`` and W that at x = 0, at ``|x| <= a``.

    ``cosh kW - cosh kw = 2 sinh(k (W + w)/2) sinh(k (W - w)/2)`` loses no digits near x = 0, where
    both are alike. The two of 1/x nearly cancel, by a factor of κ; no eigenvalue lies there. With
    ``w = 2 arcsinh √((a² - x²)/(1 - a²))``,

        (W - w)/2 = arcsinh(x² / (a √(1 - x²) + √(a² - x²))).
    """
    fall = 2 * np.arcsinh(x * x / (a * sine + np.sqrt((a - x) * (a + x))))
    return 4 * math.atanh(a) - fall, fall


def check(condition_number: float, epsilon: float) -> None:
    """Raises ValueError unless ``κ > 1`` is finite and `epsilon` positive."""
    if not 1 < condition_number < math.inf:
        raise ValueError(
            "Argument `condition_number` must be finite and above 1. "
            f"Received: condition_number={condition_number!r}"
        )
    if not epsilon > 0:
        raise ValueError(f"Argument `epsilon` must be positive. Received: epsilon={epsilon!r}")
