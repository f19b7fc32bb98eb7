"""A real polynomial on [-1, 1]: its values where they are asked for, its series for circuits.

A circuit's phases come from Chebyshev coefficients. What a perfect circuit does needs values alone,
at a matrix's eigenvalues. A closed form gives them in the same time at any degree. Clenshaw's
recurrence takes as many steps as the degree, which is in the millions for ill-conditioned matrices.

All coefficients are float64 arrays `[degree + 1]` of Chebyshev polynomials of the first kind.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

# Samples in a degree's share of the angle.
_SAMPLES = 16
# Nearer to 0 than that many times a, or a ripple, is the maximum of what is like 1/x down to x = a.
_AROUND = 4.0


@dataclasses.dataclass(frozen=True, eq=False)
class Polynomial:
    """p, of a definite parity.

    Attributes:
        degree: Its degree.
        at: From points x in [-1, 1], float64 `[M]`, to p(x), float64 `[M]`.
        series: Gives its coefficients.
        gap: a, if p is f(x) (1 - R(x)): f, in absolute value, falls at least as 1/x from a on, and
            R, at most 1, has ripples of the angle π/degree. None of another p.
    """

    degree: int
    at: Callable[[np.ndarray], np.ndarray]
    series: Callable[[], np.ndarray]
    gap: float | None = None

    @classmethod
    def of(cls, coefficients: np.ndarray) -> Polynomial:
        """The polynomial of a series, by Clenshaw's recurrence."""

        def at(x: np.ndarray) -> np.ndarray:
            return clenshaw(coefficients, lambda v: x * v, np.ones_like(x))

        return cls(len(coefficients) - 1, at, lambda: coefficients)

    @functools.cached_property
    def coefficients(self) -> np.ndarray:
        """Its Chebyshev series."""
        found = self.series()
        found.setflags(write=False)  # shared by all who ask
        return found

    @functools.cached_property
    def largest(self) -> float:
        """``max |p|`` on [-1, 1], at most 0.5 % too small; see `maximum`."""
        if self.gap is None:
            return maximum(self.coefficients)
        # At the first ripple p is at least f. Twice as far out it is at most twice as small an f.
        nearest = math.hypot(self.gap, math.pi / self.degree)
        farthest = math.asin(min(_AROUND * nearest, 1.0))
        count = 2 + math.ceil(farthest * _SAMPLES * self.degree / math.pi)
        # From x = 0 on: angles from x = 1 on have no digits for a small x.
        return float(np.max(np.abs(self.at(np.sin(np.linspace(0.0, farthest, count))))))


def sines(x: np.ndarray) -> np.ndarray:
    """``sqrt(1 - x²)``, of an x that rounding left beyond 1, too."""
    return np.sqrt(np.maximum((1 - x) * (1 + x), 0.0))


def over(numerator: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``numerator / x``; 0 at x = 0, where an odd polynomial is."""
    return np.divide(numerator, x, out=np.zeros_like(x), where=x != 0)


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
    ``1 / cos(π / 2m)`` times the sampled one (Ehlich & Zeller 1964); m is `_SAMPLES`.
    """
    samples = _SAMPLES * max(len(coefficients) - 1, 1)
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
