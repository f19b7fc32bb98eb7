"""Roots of an output's examples: those of its rows, where an example has several.

    r_j     root j of each row of z          [r, B·T, ...]
    s_tj    r_j on each example's row t      [T·r, B·T, ...]     zero on its other rows

All s hold T times as many numbers as r, nearly all of them zero, and each is a backward pass. So
they are taken in turns, of a few rows of all examples at a time.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_qnewton.curvature.contractions import lengths

# Roots that are vectorised at once. Twice as many were no faster, and take twice the memory.
_ROOTS_A_TURN = 16


@dataclasses.dataclass(frozen=True)
class Roots:
    """The roots of all rows of z of an example, or of some of them.

    Attributes:
        of_rows: r `[r, *z.shape]`.
        rows_of_z: T.
        taken: Numbers of the rows whose roots these are, `[n]` int32; None for all T of them.
    """

    of_rows: tf.Tensor
    rows_of_z: int
    taken: tf.Tensor | None = None

    @property
    def count(self) -> int:
        """R, roots an example."""
        rows = self.rows_of_z if self.taken is None else int(self.taken.shape[0])
        return rows * self._of_each

    @property
    def _of_each(self) -> int:
        return int(self.of_rows.shape[0])

    def tensor(self) -> tf.Tensor:
        """s `[R, *z.shape]`; made at each call where an example has several rows."""
        if self.rows_of_z == 1:
            return self.of_rows
        taken, inner = self._numbers(), lengths(self.of_rows)[2:]
        rows = int(taken.shape[0])
        only = tf.one_hot(taken, self.rows_of_z, dtype=self.of_rows.dtype)
        only = tf.reshape(only, [rows, 1, 1, self.rows_of_z, *[1] * len(inner)])
        apart = only * tf.reshape(self.of_rows, [1, self._of_each, -1, self.rows_of_z, *inner])
        return tf.reshape(apart, [self.count, -1, *inner])

    def combined(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Σ_r c_br s_r of all roots, of the shape of z, for c `[B, T·r]`."""
        rank = self.of_rows.shape.rank
        by_row = tf.reshape(tf.cast(coefficients, self.of_rows.dtype), [-1, self._of_each])
        shape = [self._of_each, -1, *[1] * (rank - 2)][:rank]
        return tf.reduce_sum(tf.reshape(tf.transpose(by_row), shape) * self.of_rows, 0)

    # --- some at a time -------------------------------------------------------------------

    @property
    def turns(self) -> int:
        """In how many turns they are taken."""
        return -(-self.rows_of_z // self._rows_a_turn)

    def turn(self, number: tf.Tensor) -> Roots:
        """Those of a turn; zeros beyond the last row."""
        return dataclasses.replace(
            self, taken=number * self._rows_a_turn + tf.range(self._rows_a_turn)
        )

    def among(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Of numbers `[B, T·r]` for all roots, those `[B, R]` for these ones."""
        if self.taken is None:
            return coefficients
        by_row = tf.reshape(coefficients, [-1, self.rows_of_z, self._of_each])
        some = tf.gather(by_row, tf.minimum(self._numbers(), self.rows_of_z - 1), axis=1)
        return tf.reshape(some, [-1, self.count])

    @property
    def _rows_a_turn(self) -> int:
        return min(self.rows_of_z, max(1, _ROOTS_A_TURN // self._of_each))

    def _numbers(self) -> tf.Tensor:
        return tf.range(self.rows_of_z) if self.taken is None else self.taken
