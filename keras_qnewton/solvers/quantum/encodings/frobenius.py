"""Rows as states, as a quantum memory of the matrix would give them, at α = ‖H‖_F."""

from __future__ import annotations

import functools

import numpy as np

from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding, rounding
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    inverse,
    multiplexed_angles,
    multiplexed_ry,
    preparation,
    preparation_angles,
    tree_angles,
)


class Frobenius(BlockEncoding):
    r"""Overlaps of the rows' states with the state of the rows' norms.

        ancillas |0⟩ ── U_L ── ╲ ╱ ── U_R† ── ⟨0|      U_L |0⟩|j⟩ = Σ_k ‖h_k‖ / ‖H‖_F |k⟩|j⟩
                                ╳       │
        system   |j⟩ ───────── ╱ ╲ ─── (i) ── ⟨i|      U_R |0⟩|i⟩ = Σ_k h_ik / ‖h_i‖ |k⟩|i⟩

    so that ``⟨0, i| U_R† SWAP U_L |0, j⟩ = (‖h_i‖ / ‖H‖_F) (h_ij / ‖h_i‖) = h_ij / α``, with
    α = ‖H‖_F and a = n. See `BlockEncoding` for the inequality. A row of zeros has norm 0, and any
    state.

    Source: Kerenidis & Prakash 2016, arXiv:1603.08675, theorem 5.1; as a block encoding
    Chakraborty, Gilyén & Jeffery 2018, arXiv:1804.01973, lemma 25.

    Cost: N² - 1 rotations Ry and N² - 2 CNOTs, in trees as in Möttönen et al. 2004 (see
    `gates.multiplexed_ry`), and n SWAPs, whatever the zeros of H. A quantum memory would do with
    a depth of polylog(N); it would hold these angles.
    """

    name = "frobenius"

    def __init__(self, matrix: np.ndarray):
        super().__init__(matrix)
        self.ancillas = self.system_qubits
        self._scale(norm(self.matrix))

    def with_diagonal(self, index: int, value: float) -> BlockEncoding:
        """See `BlockEncoding.with_diagonal`."""
        other = self._with_spectrum(index, value)
        if other is None:
            return super().with_diagonal(index, value)
        other._scale(norm(other.spectrum.values))
        return other

    def _scale(self, alpha: float) -> None:
        self.alpha, self.epsilon = alpha, rounding(self.system_qubits) * alpha

    @functools.cached_property
    def angles(self) -> np.ndarray:  # type: ignore[override]
        """See `gates`."""
        return norm_and_angles(self.matrix)[1]

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """n."""
        return system_qubits

    def gates(self) -> list[Gate]:
        """Symbols: N - 1 of the norms' state, then N (N - 1) of the rows', by level."""
        n = self.system_qubits
        ancillas, system = range(n), range(n, 2 * n)
        symbol = (1 << n) - 1
        rows: list[Gate] = []
        for level in range(n):
            rows += multiplexed_ry([*system, *ancillas[:level]], ancillas[level], symbol)
            symbol += 1 << (n + level)
        swaps = [Gate("swap", (a, s)) for a, s in zip(ancillas, system, strict=True)]
        return [*preparation(ancillas), *swaps, *inverse(rows)]


def norm(numbers: np.ndarray) -> float:
    """The square root of the sum of squares, scaled, as those over- and underflow."""
    largest = float(np.max(np.abs(numbers)))
    return largest * float(np.linalg.norm(numbers / largest))


def norm_and_angles(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """‖A‖_F of a matrix `[2^a, 2^b]`, and angles of the states of its rows' norms and of its rows.

    In the order of `Frobenius.gates`.
    """
    # Scaled, as squares over- and underflow.
    largest = float(np.max(np.abs(matrix)))
    rows = matrix / largest
    norms = np.linalg.norm(rows, axis=1)
    total = float(np.linalg.norm(norms))
    of_rows = [multiplexed_angles(level) for level in tree_angles(rows)]
    return largest * total, np.concatenate([preparation_angles(norms / total), *of_rows])
