"""Matrices as corners of unitaries."""

from __future__ import annotations

import numpy as np


class Dilation:
    r"""The unitary dilation of a symmetric matrix, with one ancilla qubit.

        U = [[A,  S],      A = H / alpha,   S = sqrt(I - A²),   alpha = ||H||_2
             [S, -A]]

        ancilla |0⟩ ──┤   ├── ⟨0|
                      │ U │                  ⟨0| U |0⟩ = H / alpha
        system  |ψ⟩ ──┤   ├──

    The defining inequality (Gilyén, Su, Low & Wiebe 2018, arXiv:1806.01838, definition 43) is
    ``|| H - alpha (⟨0|^a ⊗ I) U (|0⟩^a ⊗ I) || <= epsilon``, with a = `ancillas`. The dilation
    is Halmos' (1950, Normal dilations and extensions of operators). U is symmetric and its own
    inverse, a reflection, as `phases.reflection_phases` expects.

    An honest warning: S and alpha come from a full eigendecomposition, which costs more than
    solving the system. It is an encoding for simulation; hardware would need one from an
    oracle of H's entries, with a larger alpha.

    Args:
        matrix: H, float64 `[2^n, 2^n]`, symmetric, not zero.

    Attributes:
        alpha: Subnormalisation, ``||H||_2``.
        ancillas: 1.
        epsilon: Bound on the encoding error; rounding only.
        system_qubits: n.
        condition_number: ``alpha / σ_min(H)``, Inf for a singular H.

    Raises:
        ValueError: If the size is not a power of two, or H is zero or not finite.
    """

    ancillas = 1

    def __init__(self, matrix: np.ndarray):
        size = len(matrix)
        if size & (size - 1) or size < 2:
            raise ValueError(
                "Argument `matrix` must have a power of two, at least 2, of rows. "
                f"Received: matrix of shape {np.shape(matrix)}"
            )
        if not np.all(np.isfinite(matrix)):
            raise ValueError("Argument `matrix` must be finite. Received: a matrix with NaN or Inf")
        values, vectors = np.linalg.eigh(matrix)
        self.alpha = float(np.max(np.abs(values)))
        if self.alpha == 0:
            raise ValueError("Argument `matrix` must not be zero. Received: a matrix of zeros")
        smallest = float(np.min(np.abs(values)))
        self.condition_number = self.alpha / smallest if smallest > 0 else np.inf
        self.epsilon = 16 * size * float(np.finfo(np.float64).eps) * self.alpha
        self.system_qubits = size.bit_length() - 1
        scaled = values / self.alpha
        complement = (vectors * np.sqrt((1 - scaled) * (1 + scaled))) @ vectors.T
        corner = matrix / self.alpha
        self._unitary = np.block([[corner, complement], [complement, -corner]])

    def unitary(self) -> np.ndarray:
        """U, float64 `[2^(n+1), 2^(n+1)]`, the ancilla as the most significant bit."""
        return self._unitary


def pad(matrix: np.ndarray) -> np.ndarray:
    """`matrix` ``[N, N]`` in the corner of the next power of two, at least 2.

    The rest of the diagonal is ``||H||_2``: neither the norm nor the condition number changes,
    and a right-hand side padded by zeros has a solution padded by zeros.
    """
    size = len(matrix)
    padded = 1 << padded_qubits(size)
    if padded == size:
        return matrix
    out = np.diag(np.full(padded, np.max(np.abs(np.linalg.eigvalsh(matrix)))))
    out[:size, :size] = matrix
    return out


def padded_qubits(size: int) -> int:
    """Qubits for a system of `size` unknowns: ``ceil(log2 N)``, at least 1."""
    return max(1, (size - 1).bit_length())
