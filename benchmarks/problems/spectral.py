"""Reference solutions of Burgers' and Allen and Cahn's equations by Fourier series.

The linear part is solved exactly, the rest by exponential time differencing of order four (Cox &
Matthews 2002; coefficients by contour integrals as in Kassam & Trefethen 2005, section 3). Both
equations keep their symmetry about 0 on the period [-1, 1]: Burgers' u stays odd, which makes it
zero at both ends, and Allen and Cahn's stays even.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import scipy.fft

VISCOSITY = 0.01 / np.pi
DIFFUSIVITY = 1e-4
REACTION = 5.0
# A line of the solution for each, from time 0 to 1.
TIMES = 101
# Points of the complex circle that a coefficient is the mean over.
CIRCLE = 32


def solve(
    linear: np.ndarray,
    nonlinear: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Coefficients of u at `TIMES` equal times from 0 to 1.

    Args:
        linear: Eigenvalues of the linear part, `[m]`, of each coefficient.
        nonlinear: Coefficients of the rest from those of u, `[m]` to `[m]`.
        start: Coefficients at time 0, `[m]`.
        steps: Time steps from each of those times to the next.

    Returns:
        `[TIMES, m]`.
    """
    h = 1 / ((TIMES - 1) * steps)
    z = h * linear
    # Not a coefficient is computed at its removable singularity: z = 0 is within the circle.
    around = z[:, None] + np.exp(1j * np.pi * (np.arange(CIRCLE) + 0.5) / CIRCLE)
    grown, half = np.exp(z), np.exp(z / 2)

    def mean(of: np.ndarray) -> np.ndarray:
        return h * of.mean(1).real

    q = mean((np.exp(around / 2) - 1) / around)
    cube = around**3
    first = mean((-4 - around + np.exp(around) * (4 - 3 * around + around**2)) / cube)
    middle = mean((2 + around + np.exp(around) * (around - 2)) / cube)
    last = mean((-4 - 3 * around - around**2 + np.exp(around) * (4 - around)) / cube)

    u, out = start, [start]
    for _ in range(TIMES - 1):
        for _ in range(steps):
            at_start = nonlinear(u)
            a = half * u + q * at_start
            at_a = nonlinear(a)
            at_b = nonlinear(half * u + q * at_a)
            at_c = nonlinear(half * a + q * (2 * at_b - at_start))
            u = grown * u + first * at_start + 2 * middle * (at_a + at_b) + last * at_c
        out.append(u)
    return np.stack(out)


def _sampled(coefficients: np.ndarray, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (x, t) `[places · TIMES, 2]` and values there, the period's end left out.

    Args:
        coefficients: Of the real discrete transform of u at equal places from -1, `[TIMES, m]`.
        places: A divisor of their number.
    """
    u = scipy.fft.irfft(coefficients, axis=1)
    u = u[:, :: u.shape[1] // places]
    x = np.linspace(-1, 1, places, endpoint=False)
    grid = np.stack(np.meshgrid(x, np.linspace(0, 1, TIMES)), -1)
    return grid.reshape(-1, 2), u.ravel()


@functools.cache
def burgers(n: int = 2048, steps: int = 40, places: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """u_t + u u_x = (0.01/π) u_xx, u(x, 0) = -sin πx, u = 0 at x = -1, 1; by n places.

    Returns:
        Points (x, t) `[places · 101, 2]` and u there `[places · 101]`.
    """
    wave_numbers = np.pi * np.arange(n // 2 + 1)
    # The highest coefficient has no derivative that is real.
    slope = -0.5j * wave_numbers * (np.arange(n // 2 + 1) < n // 2)

    def advection(u: np.ndarray) -> np.ndarray:
        return slope * scipy.fft.rfft(scipy.fft.irfft(u) ** 2)

    start = scipy.fft.rfft(-np.sin(np.pi * np.linspace(-1, 1, n, endpoint=False)))
    return _sampled(solve(-VISCOSITY * wave_numbers**2, advection, start, steps), places)


@functools.cache
def allen_cahn(n: int = 2048, steps: int = 10, places: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """u_t = 1e-4 u_xx + 5 (u - u³), u(x, 0) = x² cos πx, period [-1, 1]; by n places.

    The start has a kink at the ends. Its coefficients are therefore integrals, not sums over
    places: those of low waves would be off by 1/n².

    Returns:
        As `burgers`.
    """
    k = np.arange(n // 2 + 1)

    def reaction(u: np.ndarray) -> np.ndarray:
        return -REACTION * scipy.fft.rfft(scipy.fft.irfft(u) ** 3)

    # Half of ∫ x² cos πx cos kπx dx, and the places begin at -1.
    start = n * (-1.0) ** k * (_cosine(k - 1) + _cosine(k + 1)) / 4
    linear = REACTION - DIFFUSIVITY * (np.pi * k) ** 2
    points, u = _sampled(solve(linear, reaction, start.astype(complex), steps), places)
    # A finite series of the kink is off by 1/n until it is smooth.
    x = points[:places, 0]
    u[:places] = x**2 * np.cos(np.pi * x)
    return points, u


def _cosine(m: np.ndarray) -> np.ndarray:
    """∫ x² cos mπx dx from -1 to 1."""
    squares = np.where(m == 0, 1, np.square(np.pi * m))
    return np.where(m == 0, 2 / 3, 4 * (-1.0) ** m / squares)
