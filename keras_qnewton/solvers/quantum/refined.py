"""Refinement of inexact runs: each solves for the residual of those before.

    z_k = run(b - A x_k)                                  an inexact A^-1, another one each time
    x_{k+1} = Σ_j c_j z_j,  c = argmin ||b - A Σ_j c_j z_j||        all runs so far, k ≥ 1

Classical refinement adds z_k as it is; the combination costs nothing beside a circuit, and takes
out what the runs' errors have in common. It is taken only while refinement as it is halves the
residual: N vectors of noise combine to a solution as well, but that would be none of the circuit's.
For the same reason fewer runs are combined than there are unknowns: N of them span the whole space,
and the combination would be a classical solve. From the Nth run on, they are added as they are.

References:
    Saad 1993, SIAM J. Sci. Comput. 14(2) (flexible GMRES: such combinations).
    Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 12 (refinement).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from keras_qnewton.solvers.checks import passes

# A refinement that does not at least halve the residual is at its floor.
_WORTHWHILE = 0.5


class Operator(Protocol):
    """A matrix `[N, N]`, or what multiplies like one."""

    def __matmul__(self, other: np.ndarray, /) -> np.ndarray:
        """Of a vector `[N]`, or of columns `[N, m]`."""
        ...


class Refined(NamedTuple):
    """What some runs came to.

    Attributes:
        x: Solution `[N]`, float64.
        refinements: Number of runs after the first.
        combined: Runs in the last combination that x is made of, always fewer than N; 0 where
            they were added up.
    """

    x: np.ndarray
    refinements: int
    combined: int


def refine(
    matrix: Operator,
    rhs: np.ndarray,
    run: Callable[[np.ndarray, int], np.ndarray],
    tolerance: float,
    max_refinements: int,
) -> Refined:
    """Runs until the relative residual is within `tolerance`, or no longer halves.

    Args:
        matrix: A `[N, N]`, float64, of an ordinary scale.
        rhs: b `[N]`, float64, not zero, likewise.
        run: From a right-hand side `[N]` and the run's number to about ``A^-1`` times it.
        tolerance: On ``||A x - b|| / ||b||``.
        max_refinements: Largest number of runs after the first.
    """
    scale = float(np.linalg.norm(rhs))
    x, gap, residual = np.zeros_like(rhs), rhs, math.inf
    found: list[np.ndarray] = []
    combined = number = 0
    for number in range(1 + max_refinements):
        found.append(run(gap, number))
        candidate, of = x + found[-1], combined
        candidate_gap = rhs - matrix @ candidate
        contracts = bool(passes(np.linalg.norm(candidate_gap) / scale, _WORTHWHILE * residual))
        if contracts and 1 < len(found) < len(rhs):
            candidate, of = _combined(matrix, rhs, found), len(found)
            candidate_gap = rhs - matrix @ candidate
        reached = float(np.linalg.norm(candidate_gap) / scale)
        # The first answer stands whatever it is worth: its residual tells.
        if number == 0 or reached < residual:
            x, gap, combined = candidate, candidate_gap, of
        if not (contracts and reached > tolerance):
            break
        residual = reached
    return Refined(x, number, combined)


def _combined(matrix: Operator, rhs: np.ndarray, found: list[np.ndarray]) -> np.ndarray:
    """The vector in the span of `found`, each `[N]`, with the smallest residual."""
    # Each is some orders of magnitude smaller than the one before: of unit norm, none is lost.
    basis = np.stack([v / max(np.linalg.norm(v), np.finfo(float).tiny) for v in found], axis=1)
    weights, *_ = np.linalg.lstsq(matrix @ basis, rhs, rcond=None)
    return basis @ weights
