"""Polynomial and phases for one condition number and accuracy, computed once and kept."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from keras_qnewton.solvers.quantum.phases import find_phases, reflection_phases
from keras_qnewton.solvers.quantum.polynomial import (
    inverse_coefficients,
    inverse_degree,
    maximum,
)

# Phases exist for |f| < 1, and their Fourier completion needs the more samples the closer
# to 1; the success probability falls with the square of the scale.
_HEADROOM = 0.9
# κ is rounded up to a power of 2^(1/8), 9 % apart: Newton's matrices change a little each
# step, and a slightly higher degree is cheaper than finding phases anew.
_STEPS_PER_OCTAVE = 8


class Inversion(NamedTuple):
    """What a circuit needs to apply ``scale · p(x)``, with p(x) close to 1/x.

    Attributes:
        condition_number: κ that p was made for.
        degree: Degree of p: the number of times the circuit calls the block encoding.
        coefficients: Chebyshev coefficients of p, float64 `[degree + 1]`.
        scale: s, so that ``|s p| <= 0.9`` on [-1, 1].
        phases: Projector phases φ in radians, float64 `[degree + 1]`.
        sign: The circuit's real part is ``sign · s · p``.
    """

    condition_number: float
    degree: int
    coefficients: np.ndarray
    scale: float
    phases: np.ndarray
    sign: float


def bucket(condition_number: float) -> float:
    """`condition_number` >= 1 rounded up to the grid on which inversions are shared."""
    steps = math.ceil(math.log2(condition_number) * _STEPS_PER_OCTAVE - 1e-9)
    return float(2 ** (max(steps, 1) / _STEPS_PER_OCTAVE))


@functools.lru_cache(maxsize=64)
def inversion(condition_number: float, epsilon: float) -> Inversion:
    """The inversion for κ (as it is: `bucket` it to share) and ``|p(x) - 1/x| <= epsilon``."""
    degree = inverse_degree(condition_number, epsilon)
    coefficients = inverse_coefficients(condition_number, degree)
    scale = _HEADROOM / maximum(coefficients)
    phases, sign = reflection_phases(find_phases(scale * coefficients))
    for array in (coefficients, phases):
        array.setflags(write=False)  # shared by all who ask
    return Inversion(condition_number, degree, coefficients, scale, phases, sign)
