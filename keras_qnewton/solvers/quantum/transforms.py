"""Functions of a matrix that circuits apply: polynomial and phases, computed once and kept."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial
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
from keras_qnewton.solvers.quantum.phases import (
    find_phases,
    reflection_phases,
    reflection_sign,
)
from keras_qnewton.solvers.quantum.smoothed import smoothed_coefficients, smoothed_degree

# Phases exist for |f| < 1, and their Fourier completion needs the more samples the closer
# to 1; the success probability falls with the square of the scale.
HEADROOM = 0.9
# These are smooth where they are close to 1, and have no more of b to lose than headroom.
BOUNDED_HEADROOM = 0.99
# κ is rounded up to a power of 2^(1/8), 9 % apart: Newton's matrices change a little each
# step, and a slightly higher degree is cheaper than finding phases anew.
STEPS_PER_OCTAVE = 8
# Largest residual of a run that is worth one.
COARSEST = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class Transform:
    """A circuit's function ``scale · p(x)``, with p close to the one that is named.

    Attributes:
        name: Of the function: "inverse" and "inverse by residual" are 1/x, "smoothed inverse
            magnitude" is 1/√(x² + λ²), "kernel projection" and "kernel reflection" those of
            `kernel_polynomial`, "damped" and "damped, from residuals" of `damped_polynomial`.
        parameter: What p was made for: κ, λ of the smoothed one, or μ.
        polynomial: p.
        scale: s, so that ``|s p| < 1`` on [-1, 1].
    """

    name: str
    parameter: float
    polynomial: Polynomial
    scale: float

    @property
    def degree(self) -> int:
        """Degree of p: the number of times the circuit calls the block encoding."""
        return self.polynomial.degree

    @property
    def coefficients(self) -> np.ndarray:
        """Chebyshev coefficients of p, float64 `[degree + 1]`; an emulator needs none."""
        return self.polynomial.coefficients

    @functools.cached_property
    def phases(self) -> np.ndarray:
        """Projector phases φ in radians, float64 `[degree + 1]`; an emulator needs none."""
        phases, _ = reflection_phases(find_phases(self.scale * self.coefficients))
        phases.setflags(write=False)  # shared by all who ask
        return phases

    @property
    def sign(self) -> float:
        """The circuit's real part is ``sign · s · p``."""
        return reflection_sign(self.degree)


def bucket(condition_number: float) -> float:
    """`condition_number` >= 1 rounded up to the grid on which transforms are shared."""
    steps = math.ceil(math.log2(condition_number) * STEPS_PER_OCTAVE - 1e-9)
    return float(2 ** (max(steps, 1) / STEPS_PER_OCTAVE))


def coarsened(tolerance: float) -> float:
    """`tolerance` rounded down to the grid of powers of two on which transforms are shared."""
    return float(2.0 ** math.floor(math.log2(max(tolerance, 1e-16))))


@functools.lru_cache(maxsize=64)
def inversion_by_residual(condition_number: float, tolerance: float) -> Transform:
    """1/x for κ, with ``|1 - x p(x)| <= tolerance``, at a degree of about κ ln(2/tolerance)."""
    degree = kernel_degree(condition_number, tolerance) - 1
    p = inverse_by_residual(condition_number, degree)
    return _scaled("inverse by residual", condition_number, p, HEADROOM)


@functools.lru_cache(maxsize=64)
def inversion(condition_number: float, epsilon: float) -> Transform:
    """1/x for κ (as it is: `bucket` it to share), with ``|p(x) - 1/x| <= epsilon``."""
    degree = inverse_degree(condition_number, epsilon)
    p = inverse_polynomial(condition_number, degree)
    return _scaled("inverse", condition_number, p, HEADROOM)


@functools.lru_cache(maxsize=64)
def smoothed_inverse_magnitude(damping: float, epsilon: float) -> Transform:
    """1/√(x² + λ²) on [-1, 1], with a relative error of at most `epsilon`; an even polynomial.

    Kept for the very λ: unlike κ in `inversion`, it is not a bound that may be rounded up, but a
    part of the function. What the attempts and refinements of one step share is shared.

    Args:
        damping: λ, in units of the block encoding's α.
        epsilon: See `smoothed.smoothed_degree`.
    """
    p = Polynomial.of(smoothed_coefficients(damping, smoothed_degree(damping, epsilon)))
    return _scaled("smoothed inverse magnitude", damping, p, HEADROOM)


@functools.lru_cache(maxsize=64)
def kernel_projection(condition_number: float, ripple: float) -> Transform:
    """1 at 0, and at most `ripple` on ``1/κ <= |x| <= 1``."""
    degree = kernel_degree(condition_number, ripple)
    p = projection(condition_number, degree)
    return Transform("kernel projection", condition_number, p, BOUNDED_HEADROOM)


@functools.lru_cache(maxsize=64)
def kernel_reflection(condition_number: float, ripple: float) -> Transform:
    """1 at 0, and -1 to about twice `ripple` on ``1/κ <= |x| <= 1``."""
    degree = kernel_degree(condition_number, ripple)
    p = reflection(condition_number, degree)
    return Transform("kernel reflection", condition_number, p, BOUNDED_HEADROOM)


@functools.lru_cache(maxsize=64)
def damped(damping: float, epsilon: float) -> Transform:
    """μ²/(x² + μ²), with a relative error of at most `epsilon`; even, for the very μ."""
    p = damped_polynomial(damping, damped_degree(damping, epsilon))
    return _scaled("damped", damping, p, BOUNDED_HEADROOM)


@functools.lru_cache(maxsize=64)
def damped_from_residuals(damping: float, epsilon: float) -> Transform:
    """μ² x/(x² + μ²), with a relative error of at most `epsilon`; odd, for the very μ."""
    p = damped_times_x(damping, damped_degree(damping, epsilon))
    return _scaled("damped, from residuals", damping, p, HEADROOM)


def _scaled(function: str, parameter: float, p: Polynomial, headroom: float) -> Transform:
    """A multiple of p, of which the circuit's has the maximum `headroom`."""
    return Transform(function, parameter, p, headroom / p.largest)
