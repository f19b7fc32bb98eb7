"""What an example of an output is: one row of z or several, and whether examples are apart.

    z [B, ...]       an example's row                          a label an image
    z [B·T, ...]     T rows an example, side by side           a label a token of a sequence

Tokens of a sequence meet in recurrent layers and in attention, sequences do not: where rows of z
are not proved to be apart, those of an example together may be. In a loop that stays one nothing is
proved. Then T is guessed, and whoever builds on it has to verify it by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.curvature.outputs import OutputCurvature
from keras_qnewton.curvature.outputs.base import MAX_OUTPUTS, countable_outputs
from keras_qnewton.loss.example_states import Rows
from keras_qnewton.loss.independence import Passage
from keras_qnewton.loss.joined_rows import rows_joined
from keras_qnewton.loss.uses import Use


class ExamplesApart(NamedTuple):
    """How the examples of an output are apart.

    Attributes:
        rows_of_z: T, rows of z an example.
        rows_each: Rows of each use's result an example, by its name, if examples are proved to be
            apart; else None: then T is a guess.
    """

    rows_of_z: int = 1
    rows_each: Mapping[str, int] | None = None


def examples_apart(
    curvature: OutputCurvature,
    z: tf.Tensor,
    recorded: tf.Tensor,
    uses: Sequence[Use],
    passage: Passage,
) -> ExamplesApart:
    """How the examples of an output are apart, by proof if there is one.

    Args:
        curvature: C of the output.
        z: The output, as the loss was run to it.
        recorded: The same tensor of the recorded loss.
        uses: Of the weights.
        passage: How the loss was run.
    """
    if curvature.one_example:
        return ExamplesApart(1, {})
    rows = curvature.z.shape[0]
    for examples in _numbers_of_examples(rows, uses):
        state, each = passage.followed(uses, z, examples)
        if not isinstance(state, Rows) or state.axis:
            continue
        whole = examples is None or rows == examples * state.each
        if whole and _may_be_together(state.each, curvature.z):
            return ExamplesApart(state.each, each)
    guess = rows_joined(recorded)
    whole = rows is None or rows % guess == 0
    return ExamplesApart(guess if whole and _may_be_together(guess, curvature.z) else 1)


def _may_be_together(rows: int, z: tf.Tensor) -> bool:
    """Whether so many rows of z have few roots: each has its own, and each root a backward pass."""
    outputs = countable_outputs(z)
    return rows == 1 or (outputs is not None and rows * outputs <= MAX_OUTPUTS)


def _numbers_of_examples(rows: int | None, uses: Sequence[Use]) -> list[int | None]:
    """How many examples there may be, of which z has `rows` rows; None if that is not known yet."""
    if rows is None:
        return [None]
    firsts = [use.outputs.shape[0] for use in uses if use.outputs.shape.rank]
    fewer = {n for n in firsts if n and n < rows and rows % n == 0}
    return [rows, *sorted(fewer, reverse=True)]
