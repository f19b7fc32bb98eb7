"""One right-hand side of the shortcut: its augmented matrix, and what a kernel vector says of x."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.encodings.kernel import Kernel, augmented_side
from keras_qnewton.solvers.quantum.solution_norm import RIPPLE, FoundNorm, find_norm
from keras_qnewton.solvers.quantum.transforms import (
    Transform,
    kernel_projection,
    kernel_reflection,
)

# From a problem, its projection, and the projection's number, counted from 1, to the probability of
# each basis vector, `[2^n]`.
Projector = Callable[["KernelProblem", Transform, int], np.ndarray]


class KernelProblem(NamedTuple):
    """The kernel that x ⊕ T spans, for a guess T of the length of x, that of the unit vector b/‖b‖.

    Attributes:
        kernel: Block encoding of ``(I - |b'⟩⟨b'|) (A ⊕ 1/T)``, padded.
        start: The last of N + 1 basis vectors, which is reflected or projected, `[2^n]`.
        norm: T.
    """

    kernel: Kernel
    start: np.ndarray
    norm: float

    @classmethod
    def of(cls, encoding: BlockEncoding, rhs: np.ndarray, norm: float) -> KernelProblem:
        """For b `[N]`, not zero, and T.

        Args:
            encoding: Of A ⊕ c, padded, A `[N, N]` of full rank, c any number.
            rhs: b.
            norm: T.
        """
        side = augmented_side(rhs)
        inner = encoding.with_diagonal(len(rhs), 1 / norm)
        padded = np.zeros((2, 1 << inner.system_qubits))
        padded[0, : len(side)] = side
        padded[1, len(rhs)] = 1.0
        return cls(Kernel(inner, padded[0]), padded[1], norm)

    def reflection(self, epsilon: float) -> Transform:
        """About the kernel; the direction of x is ε away from it at most where T is right."""
        # (I - P) of the start is as long as P of it, and x twice as short as both together.
        return kernel_reflection(self.kernel.effective_condition_number, epsilon / math.sqrt(2))

    def projection(self) -> Transform:
        """Onto the kernel, coarse."""
        return kernel_projection(self.kernel.effective_condition_number, RIPPLE)


def search(
    encoding: BlockEncoding,
    rhs: np.ndarray,
    project: Projector,
    start: float | None = None,
) -> FoundNorm:
    """T for A and b by projections; see `solution_norm`.

    Args:
        encoding: Of A ⊕ c, see `KernelProblem.of`, c between A's singular values.
        rhs: b `[N]`, not zero.
        project: Measures.
        start: T to begin at; None for the middle of what it can be.
    """

    def probe(norm: float, number: int) -> tuple[float, float]:
        problem = KernelProblem.of(encoding, rhs, norm)
        found = project(problem, problem.projection(), number)
        return float(np.sum(found[: len(rhs)])), float(found[len(rhs)])

    ends = encoding.singular_values
    return find_norm(probe, 1 / ends[1], 1 / ends[0], start)


def of_length(matrix: np.ndarray, rhs: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The multiple x of `direction` y `[N]` with ⟨A x, b⟩ = ‖b‖²: of length and sign of x.

    To the first order in y's error that is the multiple with the smallest residual. But where y is
    read with noise, which has no direction, ‖A y‖² is mostly that of the noise, and the multiple
    ⟨A y, b⟩/‖A y‖² too short. NaN where y is.
    """
    along = float((matrix @ direction) @ rhs)
    if along == 0 or not math.isfinite(along):
        return np.full(len(rhs), math.nan)
    answer: np.ndarray = direction * (float(rhs @ rhs) / along)
    return answer
