"""d-sparse matrices: row states of the non-zeros alone, and a walk from column to row."""

from __future__ import annotations

import numpy as np
import scipy.sparse.csgraph

from keras_qnewton.solvers.quantum.encodings.base import BlockEncoding, rounding
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    cnot,
    inverse,
    multiplexed_angles,
    multiplexed_ry,
)
from keras_qnewton.solvers.quantum.partial import kept_preparation, kept_preparation_angles

_MAX_POLISHING = 500


class Sparse(BlockEncoding):
    r"""A symmetric matrix with at most d non-zeros a row, for a cost that falls with d.

        offset |0⟩ ── T ── (c) ── T'† ── ⟨0|       T  |0⟩|j⟩ = Σ_c ±√(|h_ij| w_i / (w_j ρ)) |c⟩|j⟩
                      │     │      │               T' as T, without the signs
        system |j⟩ ─ (j) ─ ⊕c ──  (i) ── ⟨i|       i = j ⊕ c

    Row j's state holds √|h_ij| for its non-zeros; the walk goes from j to i, n CNOTs; and the
    overlap with row i's state brings √|h_ji|. The weights w, which cancel, are the Perron vector of
    |H|, the matrix of magnitudes: it makes all states normalised at the smallest α that overlaps
    of this kind can have (Childs 2008, arXiv:0810.0312, section 2):

        α = ρ = || |H| ||_2,  at most  max_j Σ_i |h_ij| <= d max|h|,  and at most ‖H‖_F.

    As overlaps of state preparations this is Gilyén et al. 2018, arXiv:1806.01838, lemma 47; the
    sparse oracle there, lemma 48, has α = d max|h|. a = n. Where the graph of the non-zeros falls
    apart, w and ρ are of each component, α is the largest ρ, and one more ancilla, turned by
    2 arccos(ρ_j / α), makes up for the others; so it does for rows of zeros. See
    `BlockEncoding` for the inequality.

    Cost: T prepares states by a tree over the bits of c, multiplexed over j, and has a rotation
    only for those nodes that have non-zeros below them (`partial`): at most N min(2^l, d) on level
    l, N d (2 + log2(N/d)) altogether; and CNOTs, at most N 2^l on level l. Both twice, for T'.
    The data on which all of it rests, w, costs an eigendecomposition here; products with |H|
    would do.
    """

    name = "sparse"

    def __init__(self, matrix: np.ndarray):
        super().__init__(matrix)
        n = self.system_qubits
        j = np.arange(1 << n)
        largest = float(np.max(np.abs(self.matrix)))
        scaled = self.matrix / largest
        weights, radii, spread = _perron(np.abs(scaled))
        radius = float(radii.max())
        self.alpha = largest * radius
        # [j, c]: the entry in column j, row j ⊕ c.
        rows = j ^ j[:, None]
        entries = scaled[rows, j[:, None]]
        self._pattern = entries != 0
        states = np.sqrt(np.abs(entries)) * np.sqrt(weights[rows] / weights[:, None])
        damped = radii < radius * (1 - rounding(n))
        self._flagged = bool(np.any(damped))
        self.ancillas = n + self._flagged
        angles = [
            kept_preparation_angles(np.where(entries < 0, -states, states), self._pattern),
            kept_preparation_angles(states, self._pattern),
        ]
        if self._flagged:
            ratios = np.where(damped, radii / radius, 1.0)
            angles.append(multiplexed_angles(2 * np.arccos(ratios)))
        self.angles = np.concatenate(angles)
        self.epsilon = (rounding(n, self.angles) + spread) * self.alpha

    @classmethod
    def max_ancillas(cls, system_qubits: int) -> int:
        """n + 1."""
        return system_qubits + 1

    @property
    def signature(self) -> tuple[object, ...]:
        """With the pattern of the non-zeros and whether there is a flag."""
        return (*super().signature, np.packbits(self._pattern).tobytes(), self._flagged)

    def gates(self) -> list[Gate]:
        """Symbols: of T, as many of T', then N of the flag if there is one."""
        n = self.system_qubits
        offset, system = range(n), range(self.ancillas, self.ancillas + n)
        trees = kept_preparation(system, offset, self._pattern)
        count = sum(gate.kind == "ry" for gate in trees)
        walk = [cnot(c, s) for c, s in zip(offset, system, strict=True)]
        back = inverse(kept_preparation(system, offset, self._pattern, count))
        flag = multiplexed_ry(system, n, 2 * count) if self._flagged else []
        return [*flag, *trees, *walk, *back]


def _perron(magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Perron vectors and radii of the components of a non-negative symmetric matrix `[N, N]`.

    Returns:
        Positive weights `[N]`, the radius of each index's component `[N]`, and by how much, at
        most, a row of ``w_i / w_j`` weighted magnitudes misses that radius, relatively.
    """
    weights = np.ones(len(magnitudes))
    radii = np.zeros(len(magnitudes))
    spread = 0.0
    count, labels = scipy.sparse.csgraph.connected_components(magnitudes != 0, directed=False)
    for label in range(count):
        where = np.flatnonzero(labels == label)
        block = magnitudes[np.ix_(where, where)]
        if not np.any(block):
            continue
        values, vectors = np.linalg.eigh(block)
        w = np.maximum(np.abs(vectors[:, -1]), np.finfo(np.float64).tiny)
        # Small weights come with a large relative error. Products with a non-negative matrix
        # add no such error, and shrink what there is.
        for _ in range(_MAX_POLISHING):
            sums = block @ w / w
            missed = float(sums.max() / sums.min() - 1)
            if missed <= 4 * np.finfo(np.float64).eps:
                break
            w = w + block @ w / values[-1]
            w /= w.max()
        weights[where], radii[where] = w, sums.max()
        spread = max(spread, missed)
    return weights, radii, spread
