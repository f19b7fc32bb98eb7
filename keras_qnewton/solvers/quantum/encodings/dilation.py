"""The unitary dilation: one ancilla, the best α there is, and an eigendecomposition to pay."""

from __future__ import annotations

import functools

import numpy as np

from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    inverse,
    multiplexed_angles,
    multiplexed_ry,
)


class Dilation(BlockEncoding):
    r"""The unitary dilation of a symmetric matrix, with one ancilla qubit.

        U = [[A,  S],      A = H / α,   S = sqrt(I - A²),   α = ||H||_2
             [S, -A]]

    See `BlockEncoding` for the inequality. The dilation is Halmos' (1950, Normal dilations and
    extensions of operators). U is symmetric and its own inverse, a reflection.

    As gates, with A = V cos(Θ) Vᵀ: Vᵀ on the system, a reflection of the ancilla multiplexed over
    the system, V. V is a product of N(N-1)/2 rotations of neighbours in Gray code order, each a
    Ry with n-1 controls.

    An honest warning: V and α come from a full eigendecomposition, which costs more than
    solving the system. It is an encoding for simulation; hardware would need one from an
    oracle of H's entries, with a larger α.
    """

    name = "dilation"
    hermitian = True
    dense = True
    ancillas = 1

    def __init__(self, matrix: np.ndarray):
        super().__init__(matrix)
        self._scale()

    def with_diagonal(self, index: int, value: float) -> BlockEncoding:
        """See `BlockEncoding.with_diagonal`."""
        other = self._with_spectrum(index, value)
        if other is None:
            return super().with_diagonal(index, value)
        other._scale()
        return other

    def _scale(self) -> None:
        self.alpha = self.singular_values[1]
        size = 1 << self.system_qubits
        self.epsilon = 16 * size * float(np.finfo(np.float64).eps) * self.alpha
        self._values = self.spectrum.values / self.alpha

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """1."""
        return 1

    @classmethod
    def max_work_qubits(cls, system_qubits: int) -> int:
        """n - 2: V's rotations have n - 1 controls."""
        return max(system_qubits - 2, 0)

    def unitary(self) -> np.ndarray:
        """U, float64 `[2^(n+1), 2^(n+1)]`, the ancilla as the most significant bit."""
        values, vectors = self._values, self.spectrum.matrix()
        complement = (vectors * np.sqrt((1 - values) * (1 + values))) @ vectors.T
        corner = self.matrix / self.alpha
        return np.block([[corner, complement], [complement, -corner]])

    def gates(self) -> list[Gate]:
        """Vᵀ, Z and multiplexed Ry on the ancilla, V: N(N-1)/2 + N symbols."""
        turns, reflection = self.conjugated()
        return [*turns, *reflection, *inverse(turns)]

    def conjugated(self) -> tuple[list[Gate], list[Gate]]:
        """Vᵀ, and the reflection."""
        size = 1 << self.system_qubits
        system = range(1, 1 + self.system_qubits)
        turns = elimination_gates(system, size)
        reflection = [Gate("z", (0,)), *multiplexed_ry(system, 0, len(turns))]
        return turns, reflection

    @functools.cached_property
    def angles(self) -> np.ndarray:  # type: ignore[override]
        """N(N-1)/2 angles of V's rotations, then N of the reflection's."""
        size = 1 << self.system_qubits
        vectors = self.spectrum.matrix()
        # A product of rotations has determinant 1; an eigenvector's sign is free.
        if np.linalg.slogdet(vectors[gray_code(size)])[0] < 0:
            vectors[:, 0] *= -1
        reflected = np.empty(size)
        reflected[gray_code(size)] = 2 * np.arccos(np.clip(self._values, -1, 1))
        return np.concatenate([elimination_angles(vectors)[0], multiplexed_angles(reflected)])


def gray_code(size: int) -> np.ndarray:
    """The Gray code of 0 … size - 1, int64."""
    number = np.arange(size)
    return number ^ (number >> 1)


def elimination_gates(system: range, columns: int, first_symbol: int = 0) -> list[Gate]:
    """Vᵀ for V with that many orthonormal columns: rotations of neighbours in the Gray code."""
    return [
        _neighbour_rotation(row, system, first_symbol + symbol)
        for symbol, (row, _) in enumerate(_eliminations(1 << len(system), columns))
    ]


def elimination_angles(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Angles of `elimination_gates` for V `[2^n, k]`, and what is left of the last column: ±1.

    -1 only where V is square and has the determinant -1, with rows in the Gray code's order.
    """
    size, columns = vectors.shape
    rows = vectors[gray_code(size)]
    turns = []
    for row, column in _eliminations(size, columns):
        x, y = rows[row - 1, column], rows[row, column]
        angle = np.arctan2(y, x)
        c, s = np.cos(angle), np.sin(angle)
        rows[[row - 1, row]] = np.array([[c, s], [-s, c]]) @ rows[[row - 1, row]]
        turns.append(-2 * angle)
    return np.array(turns), 1.0 if rows[columns - 1, columns - 1] > 0 else -1.0


def _eliminations(size: int, columns: int) -> list[tuple[int, int]]:
    """(row, column) of the entries that rotations with the row above make zero, in order."""
    return [(i, j) for j in range(min(columns, size - 1)) for i in range(size - 1, j, -1)]


def _neighbour_rotation(row: int, system: range, symbol: int) -> Gate:
    """Rotates basis states number row-1 and row of the Gray code into each other."""
    before, here = (k ^ (k >> 1) for k in (row - 1, row))
    bit = (before ^ here).bit_length() - 1
    n = len(system)
    others = [k for k in range(n) if k != bit]
    return Gate(
        "ry",
        (system[n - 1 - bit],),
        # From the state that comes before to the one here, whichever has the 0.
        1.0 if not before >> bit & 1 else -1.0,
        symbol,
        controls=tuple(system[n - 1 - k] for k in others),
        values=tuple(before >> k & 1 for k in others),
    )
