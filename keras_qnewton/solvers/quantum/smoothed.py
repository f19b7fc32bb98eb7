"""The even polynomial for 1/√(x² + λ²) on [-1, 1]: saddle-free Newton's function of a Hessian.

With x = cos θ and χ = 1 + 2λ², x² + λ² = (χ + cos 2θ)/2, and Heine's identity (1881; Cohl &
Tohline 1999, The Astrophysical Journal 527, 86, equation 15) is its Chebyshev series:

    1/√(x² + λ²) = (2/π) Σ_n ε_n (-1)^n Q_{n-1/2}(χ) T_2n(x),    ε_0 = 1, ε_n = 2,

Q the Legendre functions of the second kind of half-integer degree, all positive. The function
is analytic inside the Bernstein ellipse through its branch points ±iλ, so the coefficients of
T_2n fall like ρ^(-2n), ρ = λ + √(1 + λ²) (Trefethen 2013, Approximation Theory and
Approximation Practice, theorem 8.2). No gap in the spectrum is needed: only λ > 0.

p is the truncated series. What is left out is nearly a geometric series of ratio -ρ^-2 e^(2iθ),
of the size |a| / |1 + ρ^-2 e^(2iθ)| with a its first coefficient: that is proportional to the
function itself. So the error *relative to the function* is nearly the same on all of [-1, 1]; it
is largest at an end: x = 0, where the terms have one sign, or x = 1, where they alternate.
"""

from __future__ import annotations

import functools
import math

import numpy as np


@functools.lru_cache(maxsize=64)
def smoothed_degree(damping: float, epsilon: float) -> int:
    """The smallest even degree whose relative error is within `epsilon`, about log(1/ε)/λ.

    Args:
        damping: λ, positive and finite.
        epsilon: Largest allowed ``|p(x) √(x² + λ²) - 1|`` on [-1, 1], in (0, 1).

    Raises:
        ValueError: If an argument is not in its range.
    """
    if not 0 < epsilon < 1:
        raise ValueError(
            f"Argument `epsilon` must be between 0 and 1. Received: epsilon={epsilon!r}"
        )
    magnitudes = _magnitudes(damping, epsilon)
    alternating = magnitudes.copy()
    alternating[1::2] *= -1
    # Sums from term n on, over f at x = 0 and x = 1.
    zero = _sums_from(magnitudes) * damping
    one = np.abs(_sums_from(alternating)) * math.hypot(1.0, damping)
    too_large = np.maximum(zero, one) > epsilon
    return 2 * max(1, int(np.count_nonzero(too_large)) - 1)


def _sums_from(terms: np.ndarray) -> np.ndarray:
    return np.cumsum(terms[::-1])[::-1]


@functools.lru_cache(maxsize=64)
def smallest_damping(max_degree: int, epsilon: float) -> float:
    """The smallest λ, to 0.1 %, that a polynomial of degree `max_degree` resolves to `epsilon`."""
    low, high = 1e-9, 1.0
    while smoothed_degree(high, epsilon) > max_degree:
        low, high = high, 2 * high
        if high > 1e9:
            return math.inf
    # Where the degree would take long to compute, its leading term is enough.
    low = max(low, min(0.1, -0.2 * math.log(epsilon)) / max_degree)
    while high > 1.001 * low:
        middle = math.sqrt(low * high)
        if smoothed_degree(middle, epsilon) > max_degree:
            low = middle
        else:
            high = middle
    return high


def smoothed_coefficients(damping: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients of p, float64 `[degree + 1]`, zero at odd indices.

    Args:
        damping: λ, positive and finite.
        degree: An even number.

    Raises:
        ValueError: If λ is not positive, or the degree is not even and positive.
    """
    if degree < 2 or degree % 2:
        raise ValueError(f"Argument `degree` must be even and positive. Received: degree={degree}")
    # Bound of the terms left out, in a series that falls by ρ² from term to term.
    epsilon = math.exp(-min(degree * math.asinh(damping), 600.0)) if damping > 0 else 1.0
    coefficients = np.zeros(degree + 1)
    magnitudes = _magnitudes(damping, epsilon)[: degree // 2 + 1]
    coefficients[0 : 2 * len(magnitudes) : 2] = magnitudes
    coefficients[2::4] *= -1
    return coefficients


def _magnitudes(damping: float, epsilon: float) -> np.ndarray:
    """``(2/π) ε_n Q_{n-1/2}(1 + 2λ²)``, n = 0, 1, … until the rest is far below `epsilon`/λ.

    Q is the solution of Legendre's recurrence in the degree (DLMF 14.10.3) that falls: computed
    downwards from an arbitrary start (Miller's algorithm, DLMF 3.6(iii)) and normalised by the
    sum of the series at x = 0, 1/λ. With differences d_n = Q_{n-3/2} - Q_{n-1/2} it is

        (n - 1/2) d_n = (n + 1/2) d_{n+1} + 4 n λ² Q_{n-1/2},

    sums of positive numbers alone: no digits are lost.
    """
    if not 0 < damping < math.inf:
        raise ValueError(
            f"Argument `damping` must be positive and finite. Received: damping={damping!r}"
        )
    fall = 2 * math.asinh(damping)  # -log of the ratio of neighbours
    last = 4 + math.ceil((40 - math.log(epsilon)) / fall)
    square = 4 * damping * damping
    out = np.empty(last + 1)
    here, difference = 1.0, 0.0
    for n in range(last, 0, -1):
        out[n] = here
        difference = ((n + 0.5) * difference + n * square * here) / (n - 0.5)
        here += difference
        if here > 1e200:
            # Terms so far below are zero beside those that follow.
            out[n:] *= 1e-200
            here, difference = here * 1e-200, difference * 1e-200
    out[0] = here / 2
    return out / (out.sum() * damping)
