"""FABLE: all entries by one multiplexed rotation, which can be compressed."""

from __future__ import annotations

import numpy as np

from keras_qnewton.arguments import check_number
from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding, rounding
from keras_qnewton.solvers.quantum.gates import Gate
from keras_qnewton.solvers.quantum.partial import in_gray_order, kept_ry, walsh


class Fable(BlockEncoding):
    r"""One rotation multiplexed over row and column, between Hadamards.

        value    |0⟩ ──────── Ry(θ_kj) ─────────────── ⟨0|
                                 │
        ancillas |0⟩ ─ H^⊗n ──  (k)   ── ╲ ╱ ─ H^⊗n ── ⟨0|     θ_kj = 2 arccos(h_kj / max|h|)
                                 │        ╳
        system   |j⟩ ──────────  (j)   ── ╱ ╲ ──────── ⟨i|

    The Hadamards give 1/√N each: α = N max|h|, a = n + 1. See `BlockEncoding` for the inequality.

    Source: Camps & Van Beeumen 2022, "FABLE: Fast Approximate Quantum Circuits for
    Block-Encodings", arXiv:2205.00081, sections II and III.

    Cost: N² rotations and N² CNOTs, 2n Hadamards, n SWAPs. The rotations' angles are the Walsh
    transform of θ; those below `cutoff` are left out, and with them CNOTs that then cancel. It pays
    for matrices with structure: smooth ones, or with repeated entries.

    The error of that: the angles left out, r `[N²]`, change θ by their Walsh transform, of norm
    N ‖r‖₂, and cos(θ/2) by no more than half as much. Hence ε = max|h| N ‖r‖₂ / 2, at most
    max|h| N² cutoff / 2 (the paper, with rotations Ry(2θ), bounds entry by entry: N³ cutoff).

    Args:
        matrix: H, float64 `[2^n, 2^n]`, symmetric, not zero.
        cutoff: Rotations by less than this, in radians, are left out.

    Raises:
        ValueError: As `BlockEncoding`, or if `cutoff` is negative or not finite.
    """

    name = "fable"

    def __init__(self, matrix: np.ndarray, cutoff: float = 0.0):
        super().__init__(matrix)
        cutoff = check_number("cutoff", cutoff, "finite and not negative", ends="[]")
        n, size = self.system_qubits, len(self.matrix)
        self.ancillas = n + 1
        largest = float(np.max(np.abs(self.matrix)))
        self.alpha = size * largest
        angles = 2 * np.arccos(self.matrix / largest)
        rotations = walsh(angles.reshape(-1)) / size**2
        self._kept = np.abs(rotations) >= cutoff
        left_out = float(np.linalg.norm(rotations[~self._kept]))
        self.epsilon = rounding(n) * self.alpha + largest * size * left_out / 2
        self.angles = in_gray_order(rotations, self._kept)

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """n + 1."""
        return system_qubits + 1

    @property
    def signature(self) -> tuple[object, ...]:
        """With the rotations that are left."""
        return (*super().signature, np.packbits(self._kept).tobytes())

    def gates(self) -> list[Gate]:
        """One symbol for each rotation that is left, in Gray code order."""
        n = self.system_qubits
        ancillas, system = range(1, 1 + n), range(1 + n, 1 + 2 * n)
        spread = [Gate("h", (a,)) for a in ancillas]
        swaps = [Gate("swap", (a, s)) for a, s in zip(ancillas, system, strict=True)]
        return [*spread, *kept_ry([*ancillas, *system], 0, self._kept, 0), *swaps, *spread]
