"""The length of a solution, found before the solution: a search by kernel projections.

The kernel of the augmented matrix is spanned by x ⊕ T (`encodings.kernel.augmented`), T a guess of
‖x‖. What a projection onto it leaves of the last basis vector, T (x ⊕ T)/(‖x‖² + T²), is found in

    the last place            with probability  1 / (1 + r²)²        r = ‖x‖/T
    one of the first N        with probability  r² / (1 + r²)²

so that the quotient is r², and measuring which of both costs hundreds of shots, where reading x
takes thousands. A projection of ripple η cannot tell a small amplitude from none: for r outside
[1/3, 3] it says on which side T is, and the search goes on with the middle, in logarithms, of what
is left of [1/‖A‖, 1/σ_min]. That is the bisection of Dalzell 2024, arXiv:2406.12086, section 4:
O(log log κ) projections. A reflection at a T that is wrong by r succeeds with 4r²/(1 + r²)² of its
probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

# η of a projection, and r, or 1/r, up to which that resolves it.
RIPPLE = 0.02
_RESOLVED = 3.0
# What a guess that is out of reach is off by, at least, for certain.
_SURELY = 2.0
_MAX_PROBES = 12


class FoundNorm(NamedTuple):
    """T, and how many projections were made for it."""

    norm: float
    probes: int


def find_norm(
    probe: Callable[[float, int], tuple[float, float]],
    shortest: float,
    longest: float,
    start: float | None = None,
) -> FoundNorm:
    """‖x‖ within a factor of about 1.2, from projections.

    Args:
        probe: From T and the projection's number, counted from 1, to the probabilities of the first
            N places and of the last.
        shortest: The least that ‖x‖ can be, positive.
        longest: The most.
        start: Where to begin; None for the middle, in logarithms.
    """
    low, high = shortest, longest
    guess, number = math.sqrt(low * high), 0
    if start is not None:
        guess = min(max(start, low), high)
    while high > _SURELY * low and number < _MAX_PROBES:
        number += 1
        of_x, of_last = probe(guess, number)
        if of_last < (1 + _RESOLVED**2) ** -2:
            low = min(_SURELY * guess, high)
        elif of_x < of_last / _RESOLVED**2:
            high = max(guess / _SURELY, low)
        else:
            found = guess * math.sqrt(of_x / of_last)
            return FoundNorm(min(max(found, shortest), longest), number)
        guess = math.sqrt(low * high)
    return FoundNorm(guess, number)
