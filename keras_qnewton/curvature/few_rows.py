"""A batch's rows of low rank: from one backward pass a root of each output, for all blocks at once.

    U = [U_1; U_2; ...]     rows of each output, of its batch and its roots     [Σ_i B_i R_i, N]

A block has the rows of those outputs that depend on it. Batches' sizes are known when the step
runs, so that whether rows are few enough is a tensor, and everything is made in branches. XLA
compiles both: shapes stay within bounds where there are too many rows, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.example_rows import ExampleRows
from keras_qnewton.curvature.low_rank import FormedRows, LowRank, OuterRows, PieceRows, RowFactors
from keras_qnewton.curvature.pieces import Piece
from keras_qnewton.curvature.row_factors import Factor, rows
from keras_qnewton.curvature.span import Span

# Bytes of a block's rows, as many as it may have, up to which they are kept while it is solved.
_CACHED = 2**25

# By output, the derivatives in each tensor, by its name.
_Derivatives = list[dict[str, tf.Tensor]]


class Candidate(NamedTuple):
    """A block that may be of low rank.

    Attributes:
        pieces: Its columns, as `apart` leaves them if it has a diagonal.
        max_rank: Largest row count accepted.
        usable: Scalar bool: False where its factors will not be used, or rows do not fit.
        verify: From Σ Uᵀε `[N]`, float64, to whether the rows are right; a scalar bool.
        diagonal: D `[N]`, float64, or None.
        penalised: Whether D may be other than zero in each piece.
    """

    pieces: list[Piece]
    max_rank: int
    usable: tf.Tensor | bool
    verify: Callable[[tf.Tensor], tf.Tensor]
    diagonal: tf.Tensor | None = None
    penalised: tuple[bool, ...] = ()


def apart(found: Sequence[Piece]) -> list[Piece]:
    """Each weight's own piece: a bias's penalty is another than its product's."""
    out: list[Piece] = []
    for piece in found:
        out.append(piece._replace(bias=None))
        if piece.bias is not None:
            out.append(Piece((piece.bias,), piece.columns - piece.size))
    return out


class FewRows:
    """Makes the factors of low rank of some blocks.

    Args:
        outputs: The rows of each output.
        noise: ε of an output, `[B, R]`: from its number, a random tensor.
        memory: Bytes that a block's formed rows may take.
    """

    def __init__(
        self, outputs: Sequence[ExampleRows], noise: Callable[[int], tf.Tensor], memory: float
    ):
        self._outputs, self._noise, self._memory = list(outputs), noise, memory

    def reaching(self, pieces: Sequence[Piece]) -> list[int]:
        """Which outputs depend on one of these pieces."""
        return [
            i
            for i, output in enumerate(self._outputs)
            if any(output.reached(piece) is not None for piece in pieces)
        ]

    def may_be_within(self, pieces: Sequence[Piece], limit: int) -> bool:
        """False if batches are known to have more rows than `limit`, or none."""
        known = [
            output.count * (1 if output.known_examples is None else output.known_examples)
            for output in (self._outputs[i] for i in self.reaching(pieces))
        ]
        return 0 < sum(known) <= limit

    def factors(self, candidates: Sequence[Candidate]) -> list[RowFactors]:
        """The factors of these blocks, made and verified where they are to be used."""
        counts = [self._count(candidate) for candidate in candidates]
        possible = [self._is_possible(*of) for of in zip(candidates, counts, strict=True)]
        derivatives = self._derivatives(candidates, possible)
        return [
            _BlockOfRows(self._outputs, self._noise, candidate, derivatives)
            .factors(holds)
            ._replace(number=count, coefficients=self._coefficients(candidate))
            for candidate, holds, count in zip(candidates, possible, counts, strict=True)
        ]

    def _coefficients(self, candidate: Candidate) -> Callable[[], tf.Tensor]:
        """See `RowFactors`: of the outputs that the block's rows are of."""
        reaching = self.reaching(candidate.pieces)
        return lambda: tf.concat([self._outputs[i].coefficients() for i in reaching], 0)

    def _count(self, candidate: Candidate) -> tf.Tensor:
        return tf.add_n([self._row_count(i) for i in self.reaching(candidate.pieces)])

    def _is_possible(self, candidate: Candidate, count: tf.Tensor) -> tf.Tensor:
        formed = sum(p.columns for p in candidate.pieces if not _is_outer(p, self._outputs))
        held = 12.0 * formed * tf.cast(count, tf.float64)  # in single and in double precision
        few = (count > 0) & (count <= candidate.max_rank) & (held <= self._memory)
        if candidate.diagonal is not None:
            few &= tf.reduce_all(candidate.diagonal >= 0)
        return few & candidate.usable

    def _row_count(self, i: int) -> tf.Tensor:
        return self._outputs[i].examples * self._outputs[i].count

    def _derivatives(
        self, candidates: Sequence[Candidate], possible: Sequence[tf.Tensor]
    ) -> _Derivatives:
        """Derivatives `[R, *z_u.shape]` of each output in all tensors of these blocks.

        Zeros where no block needs them.
        """
        found: _Derivatives = []
        for output in self._outputs:
            tensors: dict[str, tf.Tensor] = {}
            needed = []
            for candidate, holds in zip(candidates, possible, strict=True):
                reached = [output.reached(piece) for piece in candidate.pieces]
                inside = [t for piece in reached if piece is not None for t in piece.tensors]
                tensors.update((t.name, t) for t in inside)
                needed += [holds] if inside else []
            if not tensors:
                found.append({})
                continue
            values = _derivatives_if(tf.reduce_any(needed), output, list(tensors.values()))
            found.append(dict(zip(tensors, values, strict=True)))
        return found


class _BlockOfRows:
    """The rows of one block, made of derivatives that are there."""

    def __init__(
        self,
        outputs: Sequence[ExampleRows],
        noise: Callable[[int], tf.Tensor],
        candidate: Candidate,
        derivatives: _Derivatives,
    ):
        self._outputs, self._noise = outputs, noise
        self._candidate, self._derivatives = candidate, derivatives
        pieces, limit = candidate.pieces, candidate.max_rank
        self._outer = [_is_outer(piece, outputs) for piece in pieces]
        self._reached = [[output.reached(piece) for piece in pieces] for output in outputs]
        self._reaching = [i for i, some in enumerate(self._reached) if any(some)]
        formed = sum(p.columns for p, outer in zip(pieces, self._outer, strict=True) if not outer)
        self._is_cached = 0 < 8 * limit * formed <= _CACHED
        # Made once: rows are wanted in several branches, and of a layer these take but reshapes.
        self._layers = {
            (i, p): self._factors_of(i, piece)[0]
            for i in self._reaching
            for p, piece in enumerate(self._reached[i])
            if piece is not None and self._outer[p]
        }

    def factors(self, possible: tf.Tensor) -> RowFactors:
        """The block's factors, made and verified where they are `possible`."""
        cached = [p for p in range(len(self._outer)) if self._is_cached and not self._outer[p]]
        candidate = self._candidate
        shapes = [(candidate.max_rank, candidate.pieces[p].columns) for p in cached]

        def checked() -> tuple[tf.Tensor, list[tf.Tensor]]:
            made, counts = self._made(), self._counts()
            noise = [
                tf.reshape(self._noise(i)[:n], [-1])
                for i, n in zip(self._reaching, counts, strict=True)
            ]
            lifted = self._low_rank(made).lift(tf.cast(tf.concat(noise, 0), tf.float64))
            held = [self._padded([of[p] for of in made]) for p in cached]
            return candidate.verify(lifted), held

        def unchecked() -> tuple[tf.Tensor, list[tf.Tensor]]:
            return tf.constant(False), [tf.zeros(shape, tf.float64) for shape in shapes]

        holds, arrays = _tf_private.cond(possible, checked, unchecked)

        def make() -> LowRank:
            return self._low_rank(self._made(dict(zip(cached, arrays, strict=True))))

        return RowFactors(holds, make, candidate.max_rank, candidate.diagonal, candidate.penalised)

    def _low_rank(self, made: list[list[PieceRows | None]]) -> LowRank:
        return LowRank(made, [piece.columns for piece in self._candidate.pieces])

    def _counts(self) -> list[tf.Tensor]:
        """Examples of each output that are looked at: all, where their rows are few enough."""
        left, counts = tf.constant(self._candidate.max_rank), []
        for i in self._reaching:
            output = self._outputs[i]
            counts.append(tf.minimum(output.examples, left // output.count))
            left -= counts[-1] * output.count
        return counts

    def _made(self, held: dict[int, tf.Tensor] | None = None) -> list[list[PieceRows | None]]:
        """Rows by output and piece; those that are `held`, by piece, cut out of what is there."""
        starts = dict.fromkeys(held or {}, tf.constant(0))
        out = []
        for i, n in zip(self._reaching, self._counts(), strict=True):
            each = self._outputs[i].count
            made: list[PieceRows | None] = []
            examples = Span(0, n)
            for p, piece in enumerate(self._reached[i]):
                if piece is None:
                    made.append(None)
                elif held and p in held:
                    stop = starts[p] + n * each
                    some = held[p][starts[p] : stop]
                    made.append(FormedRows(tf.reshape(some, [n, each, piece.columns])))
                    starts[p] = stop
                else:
                    made.append(self._rows(i, p, piece, examples))
            out.append(made)
        return out

    def _factors_of(self, i: int, piece: Piece) -> list[Factor]:
        """What an output's rows are made of; patches of images are cut here."""
        values = [self._derivatives[i][t.name] for t in piece.tensors]
        (factors,) = self._outputs[i].factors_of([piece], values)
        return factors

    def _rows(self, i: int, p: int, piece: Piece, examples: Span) -> PieceRows:
        """An output's rows of some examples."""
        made = self._layers.get((i, p))
        factors = self._factors_of(i, piece) if made is None else [made]
        some = [factor.sliced(examples) for factor in factors]
        if not self._outer[p]:
            return FormedRows(tf.transpose(rows(some, piece.columns), [1, 0, 2]))
        return _outer_rows(*some)

    def _padded(self, of_piece: Sequence[PieceRows | None]) -> tf.Tensor:
        """Formed rows of all outputs `[max_rank, columns]`, in float64, with zeros at their end."""
        found = [piece.rows for piece in of_piece if isinstance(piece, FormedRows)]
        columns, limit = int(found[0].shape[2]), self._candidate.max_rank
        stacked = tf.concat([tf.reshape(t, [-1, columns]) for t in found], 0)
        padded = tf.pad(tf.cast(stacked, tf.float64), [[0, limit - tf.shape(stacked)[0]], [0, 0]])
        return tf.ensure_shape(padded, [limit, columns])


def _is_outer(piece: Piece, outputs: Sequence[ExampleRows]) -> bool:
    """True if each output that depends on the piece has rows of it that are outer products."""
    reached = [(output, output.reached(piece)) for output in outputs]
    return all(
        some.is_outer and output.has_one_position(some)
        for output, some in reached
        if some is not None
    )


def _outer_rows(factor: Factor) -> OuterRows:
    """Of a factor whose examples have one position."""
    inputs = None if factor.inputs is None else tf.squeeze(factor.inputs, [1])
    return OuterRows(inputs, tf.transpose(tf.squeeze(factor.derivatives, [2]), [1, 0, 2]))


def _derivatives_if(
    needed: tf.Tensor, output: ExampleRows, tensors: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The output's derivatives in these tensors, or zeros."""

    def none() -> list[tf.Tensor]:
        return [
            tf.zeros(tf.concat([[output.count], tf.shape(t)], 0), output.dtype) for t in tensors
        ]

    values = _tf_private.cond(needed, lambda: output.derivatives(tensors), none)
    return [
        tf.ensure_shape(d, [output.count, *t.shape]) for d, t in zip(values, tensors, strict=True)
    ]
