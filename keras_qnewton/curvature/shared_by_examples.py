"""Rows of U where examples share tensors: statistics of a batch, or functions of weights.

    s(w)     [Q]                what all examples share, see `loss/shared_tensors.py`
    U_w      [B R, N]           an example's rows in the weights, while s is held
    U_s      [B R, Q]           and in s, as if it were a weight
    D        [Q, N]             ds/dw, a backward pass for each number of s
    U = U_w + U_s D             the chain rule

A batch normalisation's examples meet in Q = 2 numbers a channel. With these held they are apart,
and all of an example's rows come from one backward pass a root, as without the layer. The passes
are Q, not one for each row of all examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.output_jacobian import OutputJacobian
from keras_qnewton.curvature.pieces import Piece, pieces
from keras_qnewton.curvature.row_factors import OfPiece
from keras_qnewton.curvature.seen_rows import CurvedOutput, Run, SeenRows
from keras_qnewton.curvature.span import Span
from keras_qnewton.loss import RecordedLoss
from keras_qnewton.loss.independence import Passage
from keras_qnewton.loss.loop_uses import UsesInLoops
from keras_qnewton.loss.uses import Uses


class ThroughShared(NamedTuple):
    """U_s D of one output's rows.

    Attributes:
        pieces: U_s, what its columns are made of.
        derivatives: D `[Q, N]`.
    """

    pieces: Sequence[OfPiece]
    derivatives: tf.Tensor

    def rows(self, examples: Span, roots: int, dtype: tf.DType) -> tf.Tensor:
        """Of some examples, `[R, examples, N]`."""
        found = [piece.rows(examples, roots, dtype) for piece in self.pieces]
        return tf.tensordot(tf.concat(found, 2), tf.cast(self.derivatives, dtype), 1)


class Shared(NamedTuple):
    """Tensors that examples share.

    Attributes:
        names: Of the recorded tensors.
        values: Theirs at the weights, each of a known shape.
    """

    names: Sequence[str]
    values: Sequence[tf.Tensor]

    @property
    def size(self) -> int:
        """Q."""
        return sum(int(t.shape.num_elements()) for t in self.values)

    def seeds(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """A vector `[Q]`, as tensors of their shapes."""
        parts = tf.split(vector, [int(t.shape.num_elements()) for t in self.values])
        shapes = [t.shape for t in self.values]
        return [tf.reshape(t, shape) for t, shape in zip(parts, shapes, strict=True)]


class RowsWhileHeld(SeenRows):
    """The rows of a run in which what examples share is held.

    Args:
        loss: The recorded loss.
        weights: One tensor a variable.
        held: What examples share.
        outputs: See `SeenRows`.
        names: Of all tensors z.
        each: See `SeenRows`.
        dtype: Precision of the weights, and of derivatives.
    """

    def __init__(
        self,
        loss: RecordedLoss,
        weights: Sequence[tf.Tensor],
        held: Shared,
        outputs: Sequence[CurvedOutput],
        names: Sequence[str],
        each: Callable[[Callable[[Any], Any], Any, Any], Any],
        dtype: tf.DType,
    ):
        ours, count = [*weights, *held.values], len(weights)
        uses, passage = Uses(ours, dtype), Passage(ours)

        def run(inside: Sequence[tf.Tensor], watch: Callable[[tf.Tensor], None]) -> list[tf.Tensor]:
            given = dict(zip(held.names, inside[count:], strict=True))
            observer = UsesInLoops(uses, watch, passage)
            return loss.fetch(names, inside[:count], overrides=given, observer=observer)

        jacobian = OutputJacobian(run, ours, like=[loss.tensor(name) for name in names])
        sizes = [int(t.shape.num_elements()) for t in ours]
        super().__init__(Run(jacobian, uses, passage, sizes), outputs, each, dtype)
        self._shared = pieces(range(count, len(ours)), uses, sizes)

    @property
    def are_linear(self) -> bool:
        """Whether all that is held enters what has examples linearly."""
        return self._shared is not None

    @property
    def shared(self) -> list[Piece]:
        """The columns of U_s."""
        return self._shared or []

    def pieces(self, indices: Sequence[int]) -> list[Piece] | None:
        """Of U_w: zeros for a weight that enters through s alone."""
        return pieces(indices, self._run.uses, self._run.sizes, may_have_none=True)
