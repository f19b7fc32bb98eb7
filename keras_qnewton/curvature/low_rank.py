"""Curvature as a product of few rows: G = UᵀU with U [r, N], r below N on small batches.

For Gauss-Newton and Fisher matrices, row (b, c) of U is Jᵀ s: example b's curvature in the
network's output is Σ_c s_c s_cᵀ (`OutputCurvature.roots`). In a layer z = a W + b with one row
of z an example, with d = ∂z_outᵀ s / ∂z [o], that row is a ⊗ d for W and d for b, so that

    U Uᵀ [(b,c), (b',c')] = (a_b · a_b' + 1) (d_bc · d_b'c')        [r, r]

and neither U nor G is ever formed. At several positions p of an example, the row is the sum
Σ_p a_bp ⊗ d_bcp, and is formed. `directions.woodbury` solves the damped system in r dimensions, by
terms that cancel to about λ / ‖G‖, which is why all of it is done in float64.

References:
    Ren & Goldfarb 2019, arXiv:1906.02353 (Gauss-Newton and Fisher by that formula).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

# Rows of U up to which a system too large to be formed is solved in their number of dimensions.
MAX_RANK = 2048


class RowFactors(NamedTuple):
    """A block's factors of low rank, where it has them on this batch.

    Attributes:
        holds: Scalar bool: True if they have at most `max_rank` rows and the block is their
            product.
        make: Makes its `LowRank`, to be called where that is so.
        max_rank: Largest row count.
    """

    holds: tf.Tensor
    make: Callable[[], LowRank]
    max_rank: int


class OuterRows(NamedTuple):
    """Rows a_b ⊗ d_bc of a weight that enters once an example.

    Attributes:
        inputs: a `[B, i]`; None for a bias (a = 1).
        derivatives: d `[B, C, o]`.
    """

    inputs: tf.Tensor | None
    derivatives: tf.Tensor

    @property
    def size(self) -> int:
        """Weights: i·o."""
        inputs = 1 if self.inputs is None else int(self.inputs.shape[1])
        return inputs * int(self.derivatives.shape[2])

    def gram(self) -> tf.Tensor:
        """U Uᵀ `[r, r]`."""
        rank = _rank(self.derivatives)
        flat = tf.reshape(self.derivatives, [rank, self.derivatives.shape[2]])
        gram = tf.matmul(flat, flat, transpose_b=True)
        if self.inputs is None:
            return gram
        count, each = tf.shape(self.derivatives)[0], tf.shape(self.derivatives)[1]
        similarity = tf.matmul(self.inputs, self.inputs, transpose_b=True)
        four = tf.reshape(gram, [count, each, count, each]) * similarity[:, None, :, None]
        return tf.reshape(four, [rank, rank])

    def project(self, vector: tf.Tensor) -> tf.Tensor:
        """U v: `[N]` -> `[B, C]`."""
        if self.inputs is None:
            return tf.linalg.matvec(self.derivatives, vector)
        outputs = int(self.derivatives.shape[2])
        moved = tf.matmul(self.inputs, tf.reshape(vector, [-1, outputs]))
        return tf.linalg.matvec(self.derivatives, moved)

    def lift(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Uᵀ u: `[B, C]` -> `[N]`."""
        pulled = tf.linalg.matvec(self.derivatives, coefficients, transpose_a=True)
        if self.inputs is None:
            return tf.reduce_sum(pulled, 0)
        return tf.reshape(tf.matmul(self.inputs, pulled, transpose_a=True), [-1])


class FormedRows(NamedTuple):
    """Rows that are held as they are.

    Attributes:
        rows: `[B, C, N]`.
    """

    rows: tf.Tensor

    @property
    def size(self) -> int:
        """Weights: N."""
        return int(self.rows.shape[2])

    def gram(self) -> tf.Tensor:
        """U Uᵀ `[r, r]`."""
        flat = tf.reshape(self.rows, [_rank(self.rows), self.size])
        return tf.matmul(flat, flat, transpose_b=True)

    def project(self, vector: tf.Tensor) -> tf.Tensor:
        """U v: `[N]` -> `[B, C]`."""
        return tf.linalg.matvec(self.rows, vector)

    def lift(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Uᵀ u: `[B, C]` -> `[N]`."""
        return tf.einsum("bc,bcn->n", coefficients, self.rows)


class LowRank:
    """G = UᵀU of one block, from the rows of each of its weights in their order.

    Args:
        pieces: `OuterRows` or `FormedRows`, one a weight; cast to float64.
    """

    def __init__(self, pieces: Sequence[OuterRows | FormedRows]):
        self._pieces = [
            type(piece)(*(None if t is None else tf.cast(t, tf.float64) for t in piece))
            for piece in pieces
        ]
        self._sizes = [piece.size for piece in self._pieces]

    @property
    def rank(self) -> tf.Tensor:
        """r, int32 scalar."""
        return _rank(self._pieces[0][-1])

    def gram(self) -> tf.Tensor:
        """U Uᵀ `[r, r]`, float64, symmetric."""
        gram = tf.add_n([piece.gram() for piece in self._pieces])
        return (gram + tf.transpose(gram)) / 2

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """G v: float64 `[N]` -> `[N]`."""
        return self.lift(self.project(vector))

    def project(self, vector: tf.Tensor) -> tf.Tensor:
        """U v: float64 `[N]` -> `[r]`."""
        pieces = zip(self._pieces, tf.split(vector, self._sizes), strict=True)
        return tf.reshape(tf.add_n([piece.project(v) for piece, v in pieces]), [-1])

    def lift(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Uᵀ u: float64 `[r]` -> `[N]`."""
        first = self._pieces[0][-1]
        table = tf.reshape(coefficients, tf.shape(first)[:2])
        return tf.concat([piece.lift(table) for piece in self._pieces], 0)


def formed_rows(inputs: tf.Tensor, derivatives: tf.Tensor) -> tf.Tensor:
    """Σ_p a_bp ⊗ d_bcp: `[B, P, i]`, `[C, B, P, o]` -> `[B, C, i·o]`."""
    if inputs.shape[1] == 1:
        rows = inputs[:, :, :, None] * tf.transpose(derivatives, [1, 0, 2, 3])
    else:
        rows = tf.einsum("bpi,cbpo->bcio", inputs, derivatives)
    shape = tf.shape(rows)
    size = int(inputs.shape[2]) * int(derivatives.shape[3])
    return tf.ensure_shape(tf.reshape(rows, [shape[0], shape[1], size]), [None, None, size])


def _rank(derivatives: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(derivatives)
    return shape[0] * shape[1]
