"""``(H² + λ²I)^(-1/2) g``, the saddle-free Newton step, by circuits and without a decomposition.

One run of a circuit with the even polynomial of `smoothed` gives ``F g``, F = p(H/α)/α close to
f = (H² + λ²I)^(-1/2), relative error ε. With A = H² + λ²I,

    R = I - F A F = O(ε)        and, as all of them commute,      f = F (I - R)^(-1/2).

So the binomial series refines: ``x = Σ_k c_k F R^k g``, c = 1, 1/2, 3/8, …, two more runs a term,
each of them shallow. It converges like (2ε)^k. What it removes is the polynomial's error, not
that of the simulated arithmetic: unlike that of a linear system, this residual cannot be
evaluated classically, F itself is in it. Hence the amplitudes in double precision.

The check is applying it twice, ``||F̂ A x - g|| / ||g||`` for x = F̂ g, F̂ the refined operator;
in exact arithmetic that is ``||A F̂ F̂ g - g|| / ||g||``, but it sees rounding errors α/λ
times, not (α/λ)² times, magnified. A square cannot tell a root from its negative: a positive
definite function has ⟨x, g⟩ > 0, and where that fails, the residual is Inf.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from keras_qnewton.solvers.checks import passes
from keras_qnewton.solvers.quantum.backends import Backend, Outcome
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.transforms import Transform
from keras_qnewton.solvers.scaling import exponent_of

DTYPE = "complex128"
# A term that does not at least halve the gap is at its floor.
_WORTHWHILE = 0.5


class AbsoluteResult(NamedTuple):
    """A solution, and the runs that it took.

    Attributes:
        x: Float64 `[N]`.
        residual: See the module.
        refinements: Terms of the series after the first.
        runs: Of the circuit, those of the check included.
        success_probability: Of the first run; None if there was none.
        operations: Of one circuit.
    """

    x: np.ndarray
    residual: float
    refinements: int
    runs: int
    success_probability: float | None
    operations: int


def apply_absolute(
    matrix: np.ndarray,
    rhs: np.ndarray,
    damping: float,
    encoding: BlockEncoding,
    plan: Transform,
    backend: Backend,
    tolerance: float,
    max_refinements: int,
) -> AbsoluteResult:
    """Runs circuits until the check is below `tolerance`, or no longer halves.

    Args:
        matrix: H, float64 `[N, N]`.
        rhs: g, float64 `[N]`.
        damping: λ, in units of H.
        encoding: Of H, of an ordinary scale, padded to a power of two.
        plan: `transforms.smoothed_inverse_magnitude` for λ/α.
        backend: See `backends.Backend`.
        tolerance: Relative.
        max_refinements: Largest number of terms after the first.
    """
    exponent = exponent_of(rhs)
    rhs = np.ldexp(rhs, -exponent)
    scale = float(np.linalg.norm(rhs))
    if scale == 0:
        return AbsoluteResult(np.zeros_like(rhs), 0.0, 0, 0, None, 0)
    outcomes: list[Outcome] = []

    def root(v: np.ndarray) -> np.ndarray:
        """F v, by one run."""
        vector = np.zeros(1 << encoding.system_qubits)
        norm = float(np.linalg.norm(v))
        vector[: len(v)] = v / norm if norm > 0 else v
        outcome = backend.run(encoding, plan, vector, DTYPE)
        if np.shape(outcome.amplitudes) != vector.shape:
            # Another shape would broadcast, and read as a solution.
            raise ValueError(
                f"The backend must return amplitudes of shape {vector.shape}. "
                f"Received: amplitudes of shape {np.shape(outcome.amplitudes)}"
            )
        outcomes.append(outcome)
        factor = plan.sign * norm / (plan.scale * encoding.alpha)
        return outcome.amplitudes[: len(v)] * factor

    def square(v: np.ndarray) -> np.ndarray:
        """A v."""
        return matrix @ (matrix @ v) + damping**2 * v

    x, gap, before = np.zeros_like(rhs), rhs, math.inf
    refinements = 0
    while True:
        term = root(gap)
        x = x + _coefficient(refinements) * term
        gap = gap - root(square(term))
        left = float(np.linalg.norm(gap)) / scale
        worthwhile = not passes(left, tolerance) and passes(left, _WORTHWHILE * before)
        if refinements == max_refinements or not worthwhile:
            break
        before = left
        refinements += 1
    if refinements == 0:
        residual = left
    else:
        back, gap = np.zeros_like(rhs), square(x)
        for k in range(refinements + 1):
            term = root(gap)
            back = back + _coefficient(k) * term
            if k < refinements:
                gap = gap - root(square(term))
        residual = float(np.linalg.norm(back - rhs)) / scale
    if not x @ rhs > 0 and not math.isnan(residual):
        residual = math.inf
    return AbsoluteResult(
        np.ldexp(x, exponent),
        residual,
        refinements,
        len(outcomes),
        outcomes[0].success_probability,
        outcomes[0].operations,
    )


def _coefficient(k: int) -> float:
    """R^k's coefficient in (I - R)^(-1/2): the central binomial one over 4^k."""
    return math.comb(2 * k, k) / 4**k
