"""Block encodings of matrices that are neither square nor symmetric: rows of a Jacobian."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial
from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding, padded_qubits, rounding
from keras_qnewton.solvers.quantum.encodings.dilation import (
    elimination_angles,
    elimination_gates,
    gray_code,
)
from keras_qnewton.solvers.quantum.encodings.frobenius import norm_and_angles
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    inverse,
    multiplexed_angles,
    multiplexed_ry,
    preparation,
)


class Decomposition(NamedTuple):
    """U = W diag(σ) Vᵀ of a matrix `[r, N]`, k = min(r, N).

    Attributes:
        left: W `[r, k]`.
        values: σ, descending, `[k]`.
        right: V `[N, k]`.
    """

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray


class Rectangular(BlockEncoding):
    """A real matrix `[r, N]` in the corner of the next square that is a power of two.

    Circuits transform its singular values: an even polynomial acts on its right singular vectors,
    with p(0) on all else, and an odd one takes those to the left ones.

    Args:
        rows: U, float64 `[r, N]`, not zero.
    """

    def __init__(self, rows: np.ndarray):
        self.shape = (len(rows), np.shape(rows)[1])
        n = padded_qubits(max(self.shape))
        padded = np.zeros((1 << n, 1 << n))
        padded[: self.shape[0], : self.shape[1]] = rows
        super().__init__(padded)

    @functools.cached_property
    def decomposition(self) -> Decomposition:
        """Singular values and vectors, which simulations know and hardware does not."""
        rows, columns = self.shape
        left, values, right = np.linalg.svd(self.matrix[:rows, :columns], full_matrices=False)
        return Decomposition(left, values, right.T)

    @property
    def singular_values(self) -> tuple[float, float]:
        """The smallest and the largest of k."""
        values = self.decomposition.values
        return float(values[-1]), float(values[0])

    def transformed(self, p: Polynomial, state: np.ndarray) -> np.ndarray:
        """``p(U/α) |ψ⟩`` of a p of definite parity, of singular values."""
        left, values, right = self.decomposition
        found = p.at(np.append(values, 0.0) / self.alpha)
        inner = right.T @ state[: len(right)]
        if p.degree % 2 == 0:
            out = found[-1] * state
            out[: len(right)] += right @ ((found[:-1] - found[-1]) * inner)
            return out
        out = np.zeros_like(state)
        out[: len(left)] = left @ (found[:-1] * inner)
        return out

    @property
    def signature(self) -> tuple[object, ...]:
        """With the shape."""
        return (*super().signature, self.shape)


class RectangularDilation(Rectangular):
    r"""The unitary dilation, one ancilla, α = ‖U‖₂; see `Dilation`, of which it is the general one.

        ancilla |0⟩ ──────── reflection ─────── ⟨0|       U = W diag(σ) Vᵀ
                                 │
        system  |j⟩ ── Vᵀ ───── (k) ───── W ───

    W and V have k columns each; others do not matter, as σ is 0 there. So k (2^(n+1) - k - 1)/2
    rotations of neighbours are enough for each.
    """

    name = "rectangular_dilation"
    dense = True
    ancillas = 1

    def __init__(self, rows: np.ndarray):
        super().__init__(rows)
        self.alpha = self.singular_values[1]
        self.epsilon = 16 * len(self.matrix) * float(np.finfo(np.float64).eps) * self.alpha

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """1."""
        return 1

    @classmethod
    def max_work_qubits(cls, system_qubits: int) -> int:
        """n - 2: the rotations have n - 1 controls."""
        return max(system_qubits - 2, 0)

    def unitary(self) -> np.ndarray:
        """[[A, √(I - AAᵀ)], [√(I - AᵀA), -Aᵀ]], A = U/α: `gates`' but for the rest."""
        left, values, right = self.decomposition
        corner = self.matrix / self.alpha
        scaled = values / self.alpha
        less = np.sqrt(np.clip((1 - scaled) * (1 + scaled), 0, None)) - 1
        sides = []
        for vectors in (left, right):
            side = np.eye(len(corner))
            count = len(vectors)
            side[:count, :count] += (vectors * less) @ vectors.T
            sides.append(side)
        return np.block([[corner, sides[0]], [sides[1], -corner.T]])

    def gates(self) -> list[Gate]:
        """Symbols: Vᵀ's rotations, as many of W, then 2^n of the reflection."""
        n, kept = self.system_qubits, min(self.shape)
        system = range(1, 1 + n)
        right = elimination_gates(system, kept)
        left = elimination_gates(system, kept, len(right))
        middle = multiplexed_ry(system, 0, 2 * len(right))
        return [*right, Gate("z", (0,)), *middle, *inverse(left)]

    @functools.cached_property
    def angles(self) -> np.ndarray:  # type: ignore[override]
        """As `gates` says."""
        size, kept = 1 << self.system_qubits, min(self.shape)
        found = self.decomposition
        turns, sign = [], 1.0
        for vectors in (found.right, found.left):
            padded = np.zeros((size, kept))
            padded[: len(vectors)] = vectors
            of_vectors, last = elimination_angles(padded)
            turns.append(of_vectors)
            sign *= last
        cosines = np.zeros(size)
        cosines[:kept] = found.values / self.alpha
        # The last column of a square of rotations has the sign that its determinant leaves.
        cosines[kept - 1] *= sign
        reflected = np.empty(size)
        reflected[gray_code(size)] = 2 * np.arccos(np.clip(cosines, -1, 1))
        return np.concatenate([*turns, multiplexed_angles(reflected)])


class RectangularFrobenius(Rectangular):
    r"""Rows as states, α = ‖U‖_F; see `Frobenius`, whose trees are as large as the matrix here.

    The state of the norms has ⌈log₂ r⌉ qubits, and the rows' states ⌈log₂ N⌉, multiplexed over
    ⌈log₂ r⌉: about r N rotations Ry and as many CNOTs, both rounded up to powers of two.
    """

    name = "rectangular_frobenius"

    def __init__(self, rows: np.ndarray):
        super().__init__(rows)
        n = self.ancillas = self.system_qubits
        self._qubits = [max(1, (count - 1).bit_length()) for count in self.shape]
        of_rows, of_columns = (1 << count for count in self._qubits)
        self.alpha, self.angles = norm_and_angles(self.matrix[:of_rows, :of_columns])
        self.epsilon = rounding(n) * self.alpha

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """n."""
        return system_qubits

    def gates(self) -> list[Gate]:
        """Symbols: of the norms' state, then of the rows', by level."""
        n = self.system_qubits
        ancillas, system = range(n), range(n, 2 * n)
        # The lowest bits of each register.
        norms, of_row = ancillas[n - self._qubits[0] :], system[n - self._qubits[0] :]
        of_column = ancillas[n - self._qubits[1] :]
        symbol = (1 << len(norms)) - 1
        rows: list[Gate] = []
        for level, target in enumerate(of_column):
            rows += multiplexed_ry([*of_row, *of_column[:level]], target, symbol)
            symbol += 1 << (len(of_row) + level)
        swaps = [Gate("swap", (a, s)) for a, s in zip(ancillas, system, strict=True)]
        return [*preparation(norms), *swaps, *inverse(rows)]


RECTANGULAR: dict[str, type[Rectangular]] = {
    "dilation": RectangularDilation,
    "frobenius": RectangularFrobenius,
}
