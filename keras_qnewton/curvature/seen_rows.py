"""The rows of all outputs, as one run of the loss shows examples and weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.example_rows import ExampleRows, rows_fit
from keras_qnewton.curvature.examples_apart import ExamplesApart, examples_apart
from keras_qnewton.curvature.output_jacobian import OutputJacobian
from keras_qnewton.curvature.outputs import OutputCurvature
from keras_qnewton.curvature.pieces import Piece, pieces
from keras_qnewton.curvature.row_check import RowCheck
from keras_qnewton.loss.independence import Passage
from keras_qnewton.loss.uses import Uses


class Run(NamedTuple):
    """A run of the loss to its outputs.

    Attributes:
        jacobian: Of the outputs.
        uses: Where weights have entered.
        passage: How it was run.
        sizes: How many numbers each weight has.
    """

    jacobian: OutputJacobian
    uses: Uses
    passage: Passage
    sizes: Sequence[int]


class CurvedOutput(NamedTuple):
    """An output and its curvature.

    Attributes:
        number: Of its tensor z among those of the run.
        curvature: C.
        recorded: z of the recorded loss.
    """

    number: int
    curvature: OutputCurvature
    recorded: tf.Tensor


class SeenRows:
    """What a run shows of the rows of U.

    Args:
        run: The run.
        outputs: All outputs.
        each: Applies a function to each row of a tensor (`Linearized.of_each`).
        dtype: Precision of the weights.

    Attributes:
        rows: Of each output.
        check: Whether they are right.
    """

    def __init__(
        self,
        run: Run,
        outputs: Sequence[CurvedOutput],
        each: Callable[[Callable[[Any], Any], Any, Any], Any],
        dtype: tf.DType,
    ):
        self._run, self._outputs, self._each = run, outputs, each
        seen = (run.uses.found, run.passage)
        self.rows = self._made(
            examples_apart(c, run.jacobian.outputs[i], recorded, *seen)
            for i, c, recorded in outputs
        )
        self.check = RowCheck(self.rows, dtype)

    def _made(self, apart: Any) -> list[ExampleRows]:
        return [
            ExampleRows(self._run.jacobian, output.number, output.curvature, self._each, how)
            for output, how in zip(self._outputs, apart, strict=True)
        ]

    def one_by_one(self) -> list[ExampleRows]:
        """The rows where each row of z is an example of its own."""
        return self._made(ExamplesApart() for _ in self._outputs)

    @functools.cached_property
    def proved(self) -> bool:
        """Whether rows need no check: each output's examples are proved to be apart."""
        return self.have_roots and all(r.rows_each is not None for r in self.rows)

    @property
    def have_roots(self) -> bool:
        """Per-example derivatives need few outputs an example."""
        return all(r.count for r in self.rows)

    @property
    def have_one_root(self) -> bool:
        """Whether each example of each output has a single row."""
        return all(r.count == 1 for r in self.rows)

    @property
    def known_number(self) -> int | None:
        """How many rows there are in all, if that is known while tracing."""
        known = [
            None if r.known_examples is None else r.known_examples * r.count for r in self.rows
        ]
        return None if None in known else sum(n for n in known if n is not None)

    @property
    def number(self) -> tf.Tensor:
        """The same when the step runs, int32 scalar."""
        return tf.add_n([r.examples * r.count for r in self.rows])

    @property
    def shared(self) -> list[Piece]:
        """Columns of what examples share, beside those of weights; none here."""
        return []

    def pieces(self, indices: Sequence[int]) -> list[Piece] | None:
        """What a block's columns of U are made of, or None if that is not known."""
        return pieces(indices, self._run.uses, self._run.sizes)

    def fit(self, found: Sequence[Piece]) -> tf.Tensor | bool:
        """True if each output's examples have whole numbers of rows of these; a bool if known."""
        return rows_fit(self.rows, [*found, *self.shared])
