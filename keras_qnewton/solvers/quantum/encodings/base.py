"""Block encodings, defined."""

from __future__ import annotations

import copy
import functools
from typing import ClassVar, TypeVar

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import Polynomial
from keras_qnewton.solvers.quantum.gates import Gate, applied
from keras_qnewton.solvers.quantum.spectrum import Spectrum, spectrum_of

_Encoding = TypeVar("_Encoding", bound="BlockEncoding")


class BlockEncoding:
    r"""A symmetric matrix as the corner of a unitary.

        ancillas |0⟩ ──┤   ├── ⟨0|
                       │ U │                  ⟨0|^a U |0⟩^a = H / α,  to ε
        system   |ψ⟩ ──┤   ├──

    The defining inequality (Gilyén, Su, Low & Wiebe 2018, arXiv:1806.01838, definition 43):
    ``|| H - α (⟨0|^a ⊗ I) U (|0⟩^a ⊗ I) || <= ε``.

    A subclass computes `alpha` and `angles` in its constructor, and writes U in `gates`.
    Circuits of equal `signature` have the same gates and differ in `angles` alone.

    Args:
        matrix: H, float64 `[2^n, 2^n]`, symmetric, not zero.

    Attributes:
        alpha: Subnormalisation α, at least ``||H||_2``.
        ancillas: a.
        epsilon: Bound ε on the encoding's error.
        system_qubits: n.
        angles: Values of the gates' symbols in radians, float64.
        hermitian: Whether U is its own inverse.
        dense: Whether U is by nature one big matrix, rather than gates.

    Raises:
        ValueError: If the size is not a power of two, or H is zero or not finite.
    """

    name: ClassVar[str]
    hermitian: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    alpha: float
    ancillas: int
    epsilon: float
    angles: np.ndarray
    _evaluated: tuple[Polynomial, np.ndarray] | None = None
    # An encoding, and the entry of its matrix's diagonal by which this one differs.
    _changed: tuple[BlockEncoding, int, float]

    def __init__(self, matrix: np.ndarray):
        size = len(matrix)
        if np.shape(matrix) != (size, size) or size & (size - 1) or size < 2:
            raise ValueError(
                "Argument `matrix` must be square, with a power of two, at least 2, of rows. "
                f"Received: matrix of shape {np.shape(matrix)}"
            )
        if not np.all(np.isfinite(matrix)):
            raise ValueError("Argument `matrix` must be finite. Received: a matrix with NaN or Inf")
        if not np.any(matrix):
            raise ValueError("Argument `matrix` must not be zero. Received: a matrix of zeros")
        self.matrix = np.asarray(matrix, np.float64)
        self.system_qubits = size.bit_length() - 1

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """H, float64 `[2^n, 2^n]`: as given, or made when it is asked for."""
        before, index, value = self._changed
        out: np.ndarray = before.matrix.copy()
        out[index, index] = value
        return out

    def with_diagonal(self, index: int, value: float) -> BlockEncoding:
        """The encoding of H with another entry `index` on its diagonal.

        A subclass whose α follows from the spectrum makes it of `_with_spectrum`. Others encode
        anew.
        """
        matrix = self.matrix.copy()
        matrix[index, index] = value
        return type(self)(matrix)

    def _with_spectrum(self: _Encoding, index: int, value: float) -> _Encoding | None:
        """`with_diagonal` but for α and what follows from it; None where other entries matter.

        Of a row without an entry beside the diagonal, that is one eigenvalue: nothing is
        decomposed, and of N² numbers none is touched.
        """
        spectrum = self.spectrum
        if index in spectrum.coupled:
            return None
        out = copy.copy(self)
        for derived in ("matrix", "angles", "_evaluated"):
            out.__dict__.pop(derived, None)
        values = spectrum.values.copy()
        values[index] = value
        out._changed = self, index, value
        out.spectrum = spectrum._replace(values=values)
        return out

    def gates(self) -> list[Gate]:
        """U on wires 0 … a-1, the ancillas, and a … a+n-1, the system."""
        raise NotImplementedError

    def conjugated(self) -> tuple[list[Gate], list[Gate]]:
        """Gates (W, M) of U = W† M W, W on the system alone; no W and U itself by default.

        W commutes with projector phases, so that between calls of U it cancels.
        """
        return [], self.gates()

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for encodings whose `gates` are equal."""
        return (self.name, self.system_qubits)

    @property
    def qubits(self) -> int:
        """a + n."""
        return self.ancillas + self.system_qubits

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Eigenvalues and eigenvectors of H, which simulations know and hardware does not."""
        return spectrum_of(self.matrix)

    @property
    def singular_values(self) -> tuple[float, float]:
        """The smallest and the largest ``|eigenvalue|`` of H."""
        return self.spectrum.ends

    @property
    def condition_number(self) -> float:
        """κ₂ of H, Inf for a singular H."""
        smallest, largest = self.singular_values
        return largest / smallest if smallest > 0 else np.inf

    @property
    def effective_condition_number(self) -> float:
        """``α / σ_min(H)``, which a polynomial has to resolve; Inf for a singular H."""
        smallest, _ = self.singular_values
        return self.alpha / smallest if smallest > 0 else np.inf

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """Ancillas that any matrix on n qubits takes, at most."""
        raise NotImplementedError

    @classmethod
    def max_work_qubits(cls, system_qubits: int) -> int:
        """Qubits beside a + n + 1 that hold controls' products, at most; see `resources`.

        By default those of the projector phase, which all ancillas control.
        """
        return max(cls.max_ancillas(system_qubits) - 1, 0)

    def transformed(self, p: Polynomial, state: np.ndarray) -> np.ndarray:
        """``p(H/α) |ψ⟩``, float64 `[2^n]`: what a circuit without errors leaves.

        Args:
            p: A polynomial; the same object where it is the same.
            state: ψ, real `[2^n]`.
        """
        known = self._evaluated
        if known is None or known[0] is not p:
            known = p, p.at(self.spectrum.values / self.alpha)
            # All runs of a refinement share them.
            self._evaluated = known
        return self.spectrum.applied(known[1], state)

    def orientation(self, state: np.ndarray, degree: int) -> np.ndarray | None:
        """A vector `[2^n]` whose product with the solution for `state` is positive.

        A measurement shows no global sign. None where nobody asks for it.
        """
        return self.matrix @ state if degree % 2 else state

    def unitary(self) -> np.ndarray:
        """U `[2^(a+n), 2^(a+n)]`, wire 0 as the most significant bit."""
        return applied(self.gates(), np.eye(1 << self.qubits), self.angles)


def rounding(system_qubits: int, angles: np.ndarray | float = 0.0) -> float:
    """Round-off in α's units that no encoding on n qubits by trees of rotations exceeds.

    Large `angles` lose digits: those of an interpolation can exceed 2π.
    """
    turns = max(1.0, float(np.max(np.abs(angles))) / (2 * np.pi))
    return 64 * float(np.finfo(np.float64).eps) * (1 << system_qubits) * turns


def pad(matrix: np.ndarray) -> np.ndarray:
    """`matrix` ``[N, N]`` in the corner of the next power of two, at least 2.

    The rest of the diagonal is the smallest ``|eigenvalue|``: neither the norm nor the condition
    number changes, a Frobenius norm hardly, and a right-hand side padded by zeros has a
    solution padded by zeros.
    """
    size = len(matrix)
    padded = 1 << padded_qubits(size)
    if padded == size:
        return matrix
    out = np.diag(np.full(padded, spectrum_of(matrix).ends[0]))
    out[:size, :size] = matrix
    return out


def padded_qubits(size: int) -> int:
    """Qubits for a system of `size` unknowns: ``ceil(log2 N)``, at least 1."""
    return max(1, (size - 1).bit_length())
