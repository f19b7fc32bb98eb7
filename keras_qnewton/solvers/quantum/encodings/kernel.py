"""The matrix whose kernel is a linear system's solution: the shortcut's, from A's encoding."""

from __future__ import annotations

import functools
import math

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial, clenshaw
from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    inverse,
    moved,
    preparation,
    preparation_angles,
)


class Kernel(BlockEncoding):
    r"""G = (I - |b⟩⟨b|) A for a symmetric A and a unit vector b: A⁻¹b spans its kernel.

        projector |0⟩ ─────── H ───── ● ───── H ── ⟨0|
        ancillas  |0⟩ ─┤   ├──────────┼─────────── ⟨0|
                       │ U │          │
        system    |ψ⟩ ─┤   ├── B† ── (0) ── B ────

    U encodes A, B prepares b, and the controlled Z between two H turns b's share to the projector's
    |1⟩. The corner is G/α, with A's α, one ancilla more and one call of U. G is not symmetric:
    circuits transform its singular values, which are 0 and at least A's smallest.

    Source: Dalzell 2024, arXiv:2406.12086, section 2.

    Args:
        inner: Block encoding of A.
        side: b, a real unit vector `[2^n]`.
    """

    name = "kernel"

    def __init__(self, inner: BlockEncoding, side: np.ndarray):
        self.inner, self.side = inner, side
        self.system_qubits = inner.system_qubits
        self.alpha, self.epsilon = inner.alpha, inner.epsilon
        self.ancillas = 1 + inner.ancillas

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """G `[2^n, 2^n]`, which nobody needs who runs its circuit."""
        matrix = self.inner.matrix
        return matrix - np.outer(self.side, matrix @ self.side)

    @property
    def dense(self) -> bool:  # type: ignore[override]
        """A's."""
        return self.inner.dense

    @functools.cached_property
    def angles(self) -> np.ndarray:  # type: ignore[override]
        """A's, then 2^n - 1 of B."""
        return np.concatenate([self.inner.angles, preparation_angles(self.side)])

    @property
    def signature(self) -> tuple[object, ...]:
        """With A's."""
        return (self.name, *self.inner.signature)

    def gates(self) -> list[Gate]:
        """U on all wires but the first, then the projector."""
        inner = self.inner.gates()
        system = range(self.ancillas, self.qubits)
        back = preparation(system, len(self.inner.angles))
        turn = Gate("z", (0,), controls=tuple(system), values=(0,) * len(system))
        edge = Gate("h", (0,))
        call = moved(inner, range(1, self.qubits))
        return [*call, edge, *inverse(back), turn, *back, edge]

    def unitary(self) -> np.ndarray:
        """U, and the projector's [[I - |b⟩⟨b|, |b⟩⟨b|], [|b⟩⟨b|, I - |b⟩⟨b|]]."""
        inner = self.inner.unitary()
        blocks = inner.reshape(1 << self.inner.ancillas, len(self.side), -1)
        along = np.einsum("i,aij->aj", self.side, blocks)
        inside = np.einsum("i,aj->aij", self.side, along).reshape(inner.shape)
        return np.block([[inner - inside, inside], [inside, inner - inside]])

    @property
    def singular_values(self) -> tuple[float, float]:
        """Of A: G's other than 0 are between."""
        return self.inner.singular_values

    def transformed(self, p: Polynomial, state: np.ndarray) -> np.ndarray:
        """``p(|G|/α) |ψ⟩`` of an even p, |G|² = GᵀG; see `BlockEncoding.transformed`.

        A's eigenvectors make a diagonal matrix D less a rank of one of it, GᵀG = D² - z zᵀ with
        z = D Vᵀ b, so that a product costs N, and no decomposition of G is made.
        """
        spectrum = self.inner.spectrum
        values = spectrum.values / self.alpha
        z = values * spectrum.inward(self.side)
        squares = np.square(values)

        def doubled(v: np.ndarray) -> np.ndarray:
            """2 GᵀG - I: T_2k(x) = T_k(2x² - 1)."""
            out: np.ndarray = 2 * (squares * v - z * (z @ v)) - v
            return out

        return spectrum.outward(clenshaw(p.coefficients[::2], doubled, spectrum.inward(state)))

    def orientation(self, state: np.ndarray, degree: int) -> None:
        """None: sign and length of a kernel vector are found by a product with A."""
        del state, degree


def augmented(matrix: np.ndarray, entry: float) -> np.ndarray:
    """``A ⊕ entry`` `[N + 1, N + 1]`.

    With `augmented_side` the solution is proportional to ``x/‖b‖ ⊕ 1/entry``: both parts are as
    long where entry = ‖b‖/‖x‖.
    """
    size = len(matrix)
    larger = np.zeros((size + 1, size + 1))
    larger[:size, :size] = matrix
    larger[size, size] = entry
    return larger


def augmented_side(rhs: np.ndarray) -> np.ndarray:
    """``(b/‖b‖ ⊕ 1)/√2`` `[N + 1]` for b `[N]`, not zero."""
    return np.append(rhs / np.linalg.norm(rhs), 1.0) / math.sqrt(2)
