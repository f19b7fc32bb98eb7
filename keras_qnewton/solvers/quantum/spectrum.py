"""The eigendecomposition of a matrix, made once for all that want it and for all its shifts.

    H = V diag(h) Vᵀ,    H + sI = V diag(h + s) Vᵀ

A simulation needs it again and again: for κ and α, for the unitary dilation, and for what a perfect
circuit does, f(H) b = V f(h) Vᵀ b. A step of training solves H + sI with one shift s after the
other, so that the last decompositions are kept.

A row without an entry beside its diagonal belongs to an eigenvector with one entry. Rows by which a
matrix is padded to a power of two are such, and those of pixels that are always black. They take no
part in the decomposition.
"""

from __future__ import annotations

import collections
import threading
from typing import NamedTuple

import numpy as np

# Decompositions that are kept, those used last; and bytes that they may take in all.
_KEPT, _MOST_BYTES = 8, 512e6
# A matrix whose diagonal was that many times larger is no reference: its eigenvalues' rounding is.
_LARGER = 4.0
_last: collections.deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = collections.deque()
_lock = threading.Lock()


class Spectrum(NamedTuple):
    """Eigenvalues and eigenvectors of a symmetric matrix `[N, N]`.

    Attributes:
        coupled: Rows with an entry beside the diagonal, int64 `[M]`.
        values: An eigenvalue for each row, float64 `[N]`; those of `coupled` ascend, and another
            row's is its diagonal.
        vectors: Eigenvectors of the coupled rows, float64 `[M, M]`, a column each.
    """

    coupled: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest |eigenvalue|."""
        magnitudes = np.abs(self.values)
        return float(magnitudes.min()), float(magnitudes.max())

    def applied(self, numbers: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """``f(H) v``.

        Args:
            numbers: f of each of `values`, float64 `[N]`.
            vector: v, float64 `[N]`.
        """
        return self.outward(numbers * self.inward(vector))

    def inward(self, vector: np.ndarray) -> np.ndarray:
        """Vᵀ v, float64 `[N]`: in the order of `values`."""
        out: np.ndarray = np.array(vector, np.float64)
        out[self.coupled] = self.vectors.T @ vector[self.coupled]
        return out

    def outward(self, vector: np.ndarray) -> np.ndarray:
        """V v, float64 `[N]`: what `inward` undoes."""
        out: np.ndarray = np.array(vector, np.float64)
        out[self.coupled] = self.vectors @ vector[self.coupled]
        return out

    def matrix(self) -> np.ndarray:
        """V `[N, N]`, whose columns belong to `values`."""
        out = np.eye(len(self.values))
        out[np.ix_(self.coupled, self.coupled)] = self.vectors
        return out


def spectrum_of(matrix: np.ndarray) -> Spectrum:
    """The spectrum of a symmetric matrix, float64 `[N, N]`, finite."""
    diagonal = np.diag(matrix)
    beside = np.count_nonzero(matrix, axis=1) > (diagonal != 0)
    coupled = np.flatnonzero(beside)
    values = np.array(diagonal)
    part = matrix if len(coupled) == len(matrix) else matrix[np.ix_(coupled, coupled)]
    values[coupled], vectors = _decomposed(part)
    return Spectrum(coupled, values, vectors)


def _decomposed(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, and eigenvectors; those of a matrix before but for a shift."""
    if not len(matrix):
        return np.zeros(0), matrix
    with _lock:
        known = list(_last)
    for entry in known:
        before, values, vectors = entry
        shift = _shift(before, matrix)
        if shift is not None:
            _keep(entry)
            return values + shift, vectors
    values, vectors = np.linalg.eigh(matrix)
    vectors.setflags(write=False)  # shared by all who ask
    if 2 * matrix.nbytes <= _MOST_BYTES:
        _keep((matrix.copy(), values, vectors))
    return values, vectors


def _keep(entry: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """As the last that was used; the oldest are dropped."""
    with _lock:
        others = [other for other in _last if other[0] is not entry[0]]
        _last.clear()
        _last.extend([entry, *others])
        while len(_last) > _KEPT or sum(2 * m.nbytes for m, _, _ in _last) > _MOST_BYTES:
            _last.pop()


def _shift(before: np.ndarray, matrix: np.ndarray) -> float | None:
    """s with `matrix` = `before` + sI to rounding; None where there is none."""
    if before.shape != matrix.shape or not np.array_equal(before[0, 1:], matrix[0, 1:]):
        return None
    old, new = np.diag(before), np.diag(matrix)
    shift = float(new[0] - old[0])
    largest, before_largest = float(np.max(np.abs(new))), float(np.max(np.abs(old)))
    if before_largest > _LARGER * largest:
        return None
    rounding = 4 * np.finfo(np.float64).eps * max(largest, before_largest)
    if np.max(np.abs(new - old - shift)) > rounding:
        return None
    different = np.count_nonzero(before != matrix)
    return shift if different == np.count_nonzero(old != new) else None
