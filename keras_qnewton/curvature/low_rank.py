"""Curvature as a product of few rows: G = UᵀU + D with U [r, N], r below N on small batches.

For Gauss-Newton and Fisher matrices, row (i, b, c) of U is Jᵀ s: example b's curvature in the i-th
output is Σ_c s_c s_cᵀ (`OutputCurvature.roots`), and the rows of all outputs are one below another.
In a layer z = a W + b with one row of z an example, with d = ∂z_outᵀ s / ∂z [o], that row is a ⊗ d
for W and d for b, so that

    U Uᵀ [(b,c), (b',c')] = (a_b · a_b' + 1) (d_bc · d_b'c')        [r, r]

and neither U nor G is ever formed. At several positions p of an example, the row is the sum
Σ_p a_bp ⊗ d_bcp, and is formed. D is what penalties on the weights add, a diagonal [N] that is at
least zero. `directions.woodbury` solves the damped system in r dimensions, by terms that cancel to
about λ / ‖G‖, which is why all of it is done in float64.

References:
    Ren & Goldfarb 2019, arXiv:1906.02353 (Gauss-Newton and Fisher by that formula).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.contractions import lengths

# Rows of U up to which a system too large to be formed is solved in their number of dimensions.
MAX_RANK = 2048


class RowFactors(NamedTuple):
    """A block's factors of low rank, where it has them on this batch.

    Attributes:
        holds: Scalar bool: True if they have at least one row, at most `max_rank`, and the block
            is UᵀU + D.
        make: Makes the `LowRank` of U, to be called where that is so.
        max_rank: Largest row count.
        diagonal: D `[N]`, float64; None if it is zero by construction.
        penalised: Whether D may be other than zero in each of the `LowRank`'s pieces.
        number: r, int32 scalar, whether they hold or not.
        coefficients: Makes c `[r]`, float64, with g = Uᵀc for the gradient g of the terms that U
            is of, where the loss has such; None where it is not looked for. To be called where
            the factors hold, and not to be relied on: other terms have a gradient, too.
    """

    holds: tf.Tensor
    make: Callable[[], LowRank]
    max_rank: int
    diagonal: tf.Tensor | None = None
    penalised: tuple[bool, ...] = ()
    number: tf.Tensor | None = None
    coefficients: Callable[[], tf.Tensor] | None = None


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

    def times(self, factor: tf.Tensor) -> OuterRows:
        """`factor` times the rows."""
        return self._replace(derivatives=factor * self.derivatives)

    def matrix(self) -> tf.Tensor:
        """The rows `[r, N]`."""
        if self.inputs is None:
            return _flat(self.derivatives)
        formed = tf.einsum("bi,bco->bcio", self.inputs, self.derivatives)
        return tf.reshape(formed, [_rank(self.derivatives), self.size])

    def cross(self, other: OuterRows, weights: tf.Tensor | None = None) -> tf.Tensor:
        """U diag(v) U'ᵀ `[r, r']` with another output's rows U'; v `[N]`, or 1."""
        if weights is None:
            return self._similar(other)
        if self.inputs is None:
            flat, others = _flat(self.derivatives), _flat(other.derivatives)
            return tf.matmul(flat * weights, others, transpose_b=True)
        return _tf_private.cond(
            tf.reduce_all(tf.equal(weights, weights[0])),
            lambda: weights[0] * self._similar(other),
            lambda: self._by_outputs(other, weights),
        )

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

    def _similar(self, other: OuterRows, weights: tf.Tensor | None = None) -> tf.Tensor:
        """(a_b · diag(v) a_b') (d_bc · d_b'c') `[r, r']`; v `[i]`, or 1."""
        gram = tf.matmul(_flat(self.derivatives), _flat(other.derivatives), transpose_b=True)
        if self.inputs is None or other.inputs is None:
            return gram
        inputs = self.inputs if weights is None else self.inputs * weights
        similarity = tf.matmul(inputs, other.inputs, transpose_b=True)
        axes = [*lengths(self.derivatives)[:2], *lengths(other.derivatives)[:2]]
        by_example = tf.reshape(gram, axes)
        return tf.reshape(by_example * similarity[:, None, :, None], tf.shape(gram))

    def _by_outputs(self, other: OuterRows, weights: tf.Tensor) -> tf.Tensor:
        """Σ_o of the products with the weights `[i, o]` of one of the layer's outputs at a time."""
        outputs = int(self.derivatives.shape[2])
        table = tf.reshape(weights, [-1, outputs])

        def add(o: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            one, another = (
                rows._replace(derivatives=rows.derivatives[:, :, o, None]) for rows in (self, other)
            )
            return o + 1, total + one._similar(another, table[:, o])

        zeros = tf.zeros([_rank(self.derivatives), _rank(other.derivatives)], weights.dtype)
        _, total = tf.while_loop(
            lambda o, _: o < outputs, add, (tf.constant(0), zeros), parallel_iterations=1
        )
        return total


class FormedRows(NamedTuple):
    """Rows that are held as they are.

    Attributes:
        rows: `[B, C, N]`.
    """

    rows: tf.Tensor

    @property
    def derivatives(self) -> tf.Tensor:
        """Has the axes of examples and of roots, as `OuterRows.derivatives` has."""
        return self.rows

    @property
    def size(self) -> int:
        """Weights: N."""
        return int(self.rows.shape[2])

    def times(self, factor: tf.Tensor) -> FormedRows:
        """`factor` times the rows."""
        return FormedRows(factor * self.rows)

    def matrix(self) -> tf.Tensor:
        """The rows `[r, N]`."""
        return _flat(self.rows)

    def cross(self, other: FormedRows, weights: tf.Tensor | None = None) -> tf.Tensor:
        """U diag(v) U'ᵀ `[r, r']` with another output's rows U'; v `[N]`, or 1."""
        flat = _flat(self.rows)
        flat = flat if weights is None else flat * weights
        return tf.matmul(flat, _flat(other.rows), transpose_b=True)

    def project(self, vector: tf.Tensor) -> tf.Tensor:
        """U v: `[N]` -> `[B, C]`."""
        return tf.linalg.matvec(self.rows, vector)

    def lift(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Uᵀ u: `[B, C]` -> `[N]`."""
        return tf.einsum("bc,bcn->n", coefficients, self.rows)


PieceRows = OuterRows | FormedRows


class LowRank:
    """U of one block: the rows of each output one below another, in the columns of each weight.

    Args:
        rows: For each output, the rows of each piece of the block in their order; cast to float64.
            None where the output does not depend on the piece. A piece has rows of one kind.
        sizes: Columns of each piece.

    Attributes:
        sizes: As given.
    """

    def __init__(self, rows: Sequence[Sequence[PieceRows | None]], sizes: Sequence[int]):
        self._rows = [[None if p is None else _in_double(p) for p in of] for of in rows]
        self.sizes = list(sizes)
        # Of each output, the axes of examples and of roots.
        self._axes = [
            lengths(next(p for p in of if p is not None).derivatives)[:2] for of in self._rows
        ]

    def times(self, factor: tf.Tensor) -> LowRank:
        """The same of `factor` times U, a float64 scalar."""
        rows = [[None if p is None else p.times(factor) for p in of] for of in self._rows]
        return LowRank(rows, self.sizes)

    def above(self, *others: LowRank) -> LowRank:
        """These rows, and below them those of others, of the same pieces."""
        rows = [of for low_rank in (self, *others) for of in low_rank._rows]
        return LowRank(rows, self.sizes)

    def gathered(self, together: Callable[[list[tf.Tensor]], list[tf.Tensor]]) -> LowRank:
        """These rows and those of others, as `together` makes them of tensors of each example."""
        rows = []
        for of in self._rows:
            flat = [t for piece in of if piece is not None for t in piece if t is not None]
            all_of_them = iter(together(flat))
            rows.append(
                [
                    None
                    if piece is None
                    else type(piece)(*(None if t is None else next(all_of_them) for t in piece))
                    for piece in of
                ]
            )
        return LowRank(rows, self.sizes)

    @property
    def rank(self) -> tf.Tensor:
        """r, int32 scalar."""
        return tf.convert_to_tensor(sum(self._counts))

    @property
    def _counts(self) -> list[tf.Tensor | int]:
        """Rows of each output."""
        return [axes[0] * axes[1] for axes in self._axes]

    def gram(self, weights: tf.Tensor | None = None, of: Sequence[bool] | None = None) -> tf.Tensor:
        """U diag(v) Uᵀ `[r, r]`, float64, symmetric.

        Args:
            weights: v, float64 `[N]`; 1 if None.
            of: Which pieces take part; all, if None.
        """
        parts = [None] * len(self.sizes) if weights is None else tf.split(weights, self.sizes)
        pieces = [p for p in range(len(self.sizes)) if of is None or of[p]]

        def cross(i: int, j: int) -> tf.Tensor:
            pairs = [(self._rows[i][p], self._rows[j][p], parts[p]) for p in pieces]
            found = [
                first.cross(second, weights)  # type: ignore[arg-type]  # of one kind
                for first, second, weights in pairs
                if first is not None and second is not None
            ]
            if found:
                return tf.add_n(found)
            return tf.zeros([self._counts[i], self._counts[j]], tf.float64)

        count = len(self._rows)
        upper = {(i, j): cross(i, j) for i in range(count) for j in range(i, count)}
        gram = tf.concat(
            [
                tf.concat(
                    [upper[i, j] if i <= j else tf.transpose(upper[j, i]) for j in range(count)], 1
                )
                for i in range(count)
            ],
            0,
        )
        return (gram + tf.transpose(gram)) / 2

    def matrix(self) -> tf.Tensor:
        """U `[r, N]`, float64."""
        by_output = [
            tf.concat(
                [
                    tf.zeros([count, size], tf.float64) if piece is None else piece.matrix()
                    for piece, size in zip(of, self.sizes, strict=True)
                ],
                1,
            )
            for of, count in zip(self._rows, self._counts, strict=True)
        ]
        return tf.concat(by_output, 0)

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """UᵀU v: float64 `[N]` -> `[N]`."""
        return self.lift(self.project(vector))

    def project(self, vector: tf.Tensor) -> tf.Tensor:
        """U v: float64 `[N]` -> `[r]`."""
        parts = tf.split(vector, self.sizes)
        by_output = [
            tf.add_n([p.project(v) for p, v in zip(of, parts, strict=True) if p is not None])
            for of in self._rows
        ]
        return tf.concat([tf.reshape(u, [-1]) for u in by_output], 0)

    def lift(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Uᵀ u: float64 `[r]` -> `[N]`."""
        found: list[list[tf.Tensor]] = [[] for _ in self.sizes]
        apart = [coefficients]
        if len(self._rows) > 1:
            apart = tf.split(coefficients, tf.stack(self._counts), num=len(self._rows))
        for of, axes, some in zip(self._rows, self._axes, apart, strict=True):
            table = tf.reshape(some, axes)
            for p, rows in enumerate(of):
                if rows is not None:
                    found[p].append(rows.lift(table))
        columns = [
            tf.add_n(some) if some else tf.zeros([size], tf.float64)
            for some, size in zip(found, self.sizes, strict=True)
        ]
        return tf.concat(columns, 0)


def _in_double(rows: PieceRows) -> PieceRows:
    return type(rows)(*(None if t is None else tf.cast(t, tf.float64) for t in rows))


def _flat(derivatives: tf.Tensor) -> tf.Tensor:
    """`[B, C, o]` -> `[B·C, o]`."""
    return tf.reshape(derivatives, [-1, derivatives.shape[2]])


def _rank(derivatives: tf.Tensor) -> tf.Tensor:
    examples, roots, *_ = lengths(derivatives)
    return examples * roots
