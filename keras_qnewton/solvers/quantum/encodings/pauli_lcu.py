"""A linear combination of Pauli strings, by PREPARE and SELECT."""

from __future__ import annotations

import numpy as np

from keras_qnewton.arguments import check_number
from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding, rounding
from keras_qnewton.solvers.quantum.gates import Gate, inverse
from keras_qnewton.solvers.quantum.partial import (
    kept_preparation,
    kept_preparation_angles,
    walsh,
)


class PauliLCU(BlockEncoding):
    r"""Sum of Pauli strings, each with its own state of the ancillas.

        ancillas |0⟩ ── PREPARE ── (k) ── PREPARE'† ── ⟨0|      PREPARE  |0⟩ = Σ_k ±√(|c_k|/α) |k⟩
                                    │                           PREPARE' |0⟩ = Σ_k  √(|c_k|/α) |k⟩
        system   |ψ⟩ ───────────── P_k ───────────────          H = Σ_k c_k P_k

    α = Σ|c_k|. See `BlockEncoding` for the inequality.

    A real symmetric H has real c_k and an even number of Y in each string. With Y written as XZ,
    strings are ``X^x Z^z`` with bits x and z, and ``c_xz = Σ_j (-1)^(z·j) h_{j⊕x, j} / N``: one
    Walsh transform for each x, O(N² log N) altogether (cf. Hantzko, Binkowski & Gupta 2023,
    arXiv:2310.13421).

    Products of strings are strings, up to sign. So k is the coordinates of (x, z) over a basis
    modulo 2 of the strings that occur, and SELECT applies one basis string for each ancilla that
    is 1: without multiply controlled gates, for a = rank ≤ 2n in the place of log2 of the number of
    terms. Signs go to PREPARE.

    Source: Childs & Wiebe 2012, arXiv:1202.5822; in this form Gilyén et al. 2018,
    arXiv:1806.01838, definition 51 and lemma 52.

    Cost: with K terms, PREPARE and PREPARE' have at most min(2^a - 1, K a) rotations and 2^a - 2
    CNOTs each; SELECT has at most 2n two-qubit gates for each ancilla, and 2n altogether where
    all strings occur. A dense H has K = N (N + 1) / 2 and a = 2n.

    Args:
        matrix: H, float64 `[2^n, 2^n]`, symmetric, not zero.
        tolerance: Terms with ``|c_k|`` at most this part of the largest are dropped; ε counts
            them.

    Raises:
        ValueError: As `BlockEncoding`, or if `tolerance` is not in [0, 1).
    """

    name = "pauli_lcu"

    def __init__(self, matrix: np.ndarray, tolerance: float = 1e-14):
        super().__init__(matrix)
        tolerance = check_number("tolerance", tolerance, "in [0, 1)", most=1.0, ends="[)")
        coefficients = pauli_coefficients(self.matrix).reshape(-1)
        sizes = np.abs(coefficients)
        terms = np.flatnonzero(sizes > tolerance * sizes.max())
        self.alpha = float(np.sum(sizes[terms]))
        dropped = float(np.sum(sizes)) - self.alpha
        self._terms = tuple(int(term) for term in terms)
        self._basis = _basis(self._terms) or [1]  # a multiple of I needs a qubit to project on
        self.ancillas = len(self._basis)
        labels, signs = _labels(terms, self._basis, self.system_qubits)
        states = np.zeros((2, 1, 1 << self.ancillas))
        states[:, 0, labels] = np.sqrt(sizes[terms] / self.alpha)
        states[0, 0, labels] *= signs * np.sign(coefficients[terms])
        self._pattern = np.zeros((1, 1 << self.ancillas), bool)
        self._pattern[0, labels] = True
        self.angles = np.concatenate([kept_preparation_angles(s, self._pattern) for s in states])
        round_off = rounding(self.system_qubits, self.angles) * self.alpha
        self.epsilon = round_off + max(dropped, 0.0)

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """2n."""
        return 2 * system_qubits

    @property
    def signature(self) -> tuple[object, ...]:
        """With the strings that occur."""
        return (*super().signature, self._terms)

    def gates(self) -> list[Gate]:
        """Symbols: of PREPARE, then as many of PREPARE'."""
        ancillas, n = range(self.ancillas), self.system_qubits
        prepare = kept_preparation((), ancillas, self._pattern)
        select = [
            Gate(kind, (self.ancillas + n - 1 - bit,), controls=(ancilla,), values=(1,))
            for ancilla, string in zip(ancillas, self._basis, strict=True)
            for kind, bits in (("z", string % (1 << n)), ("x", string >> n))
            for bit in range(n)
            if bits >> bit & 1
        ]
        unprepare = kept_preparation((), ancillas, self._pattern, len(self.angles) // 2)
        return [*prepare, *select, *inverse(unprepare)]


def pauli_coefficients(matrix: np.ndarray) -> np.ndarray:
    """c `[N, N]` with ``matrix = Σ_xz c[x, z] X^x Z^z``, for a real `matrix` `[N, N]`."""
    size = len(matrix)
    j = np.arange(size)
    return walsh(matrix[j ^ j[:, None], j]) / size


def _basis(strings: tuple[int, ...]) -> list[int]:
    """The reduced basis modulo 2 of bit strings: each has a leading bit that no other has."""
    basis: list[int] = []
    for string in strings:
        for known in basis:
            string = min(string, string ^ known)
        if string:
            basis = [min(known, known ^ string) for known in basis] + [string]
            basis.sort(reverse=True)
    return basis


def _labels(strings: np.ndarray, basis: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of `strings` x·2^n + z, and the signs ±1 of the products that make them up."""
    labels = np.zeros_like(strings)
    product = np.zeros_like(strings)
    odd = np.zeros_like(strings)
    for known in basis:
        used = strings >> (known.bit_length() - 1) & 1
        labels = 2 * labels + used
        # X^x' Z^z' X^x Z^z: Z^z' moves past X^x.
        odd ^= used * _parity((product >> n) & known)
        product ^= used * known
    return labels, 1 - 2 * odd


def _parity(values: np.ndarray) -> np.ndarray:
    out = values.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        out ^= out >> shift
    return out & 1
