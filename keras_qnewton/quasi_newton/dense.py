"""A dense inverse Hessian that learns a pair a step, in place.

    H   = γ (M + Wᵀ K W)     M `[N, N]`; rows of W `[2p, N]` are p pairs s, u = Hy that M does not
                             hold yet; K of p blocks, `[p, 2, 2]`; γ a scalar

A pair costs two rows and four numbers, and a product with H reads M once. What is pending goes into
M by one matrix product for all p pairs, a panel of rows at a time: M is written once in p steps,
not in each, and nothing of its size is held beside it. Panels are variables that are assigned as a
whole: one of which rows were assigned is copied by TensorFlow at every reading from then on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton.quasi_newton.inverse import AddVariable, InverseHessian, Prepared, dot
from keras_qnewton.quasi_newton.updates import RULES, Pair, update_of

# Pairs that wait for M; and panels of M, of so many rows at least.
PENDING = 16
_PANELS, _LEAST_ROWS = 16, 256


class DenseInverse(InverseHessian):
    """H as N² numbers in double precision.

    Args:
        rule: A name of `updates.RULES`.
        size: N.
        add_variable: Makes the optimizer's variables.
    """

    BYTES_PER_ENTRY = 8.0

    def __init__(self, rule: str, size: int, add_variable: AddVariable):
        self._rule, self._size = RULES[rule], size
        rows = max(math.ceil(size / _PANELS), _LEAST_ROWS)
        self._firsts = range(0, size, rows)
        self.panels = [
            add_variable((min(rows, size - k), size), "float64", "inverse", _identity(k))
            for k in self._firsts
        ]
        self.rows = add_variable((PENDING, 2, size), "float64", "pending_rows", "zeros")
        self.weights = add_variable((PENDING, 2, 2), "float64", "pending", "zeros")
        self.factor = add_variable((), "float64", "inverse_factor", "ones")
        self.pending = add_variable((), "int32", "pending_count", "zeros")

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """H v, `[N]` float64."""
        column = vector[:, None]
        # Read once: what was assigned by rows is copied at each reading.
        rows = self._rows()
        known = [tf.matmul(panel.value, column) for panel in self.panels]
        inner = self._weighted(tf.matmul(rows, column))
        found = tf.concat(known, 0) + tf.matmul(rows, inner, transpose_a=True)
        return tf.reshape(self.factor.value * found, [self._size])

    def prepared(
        self, s: tf.Tensor, y: tf.Tensor, gradient: tf.Tensor, Hg: tf.Tensor, sbs: tf.Tensor
    ) -> Prepared:
        """A pair's rows and numbers, and H' g'; see `InverseHessian.prepared`."""
        product = self.product(gradient)
        u = product - Hg
        pair = Pair(dot(y, s), sbs, dot(y, u), self._size)
        tau, a, b, c = update_of(self._rule, pair)
        rows, block = tf.stack([s, u]), tf.reshape(tf.stack([a, b, b, c]), [2, 2])
        along = tf.reduce_sum(rows * gradient, 1)
        inner = tf.reduce_sum(block * along, 1, keepdims=True)
        after = product / tau + tf.reduce_sum(inner * rows, 0)
        return Prepared(product, (after, rows, block, tau))

    def learned(self, pair: Prepared) -> tf.Tensor:
        """Takes in a pair; see `InverseHessian.learned`."""
        after, rows, block, tau = pair.tensors
        self._append(rows, block, tau)
        return after

    def reset(self, factor: tf.Tensor | float = 1.0) -> None:
        """See `InverseHessian.reset`."""
        # No constant of the graph: TensorFlow would compute the matrix when it optimises that.
        unseen = tf.minimum(tf.convert_to_tensor(self.pending.value), 0)
        done: list[tf.Operation] = []
        for first, panel in zip(self._firsts, self.panels, strict=True):
            with tf.control_dependencies(done):
                identity = _identity(first + unseen)(panel.shape, tf.float64)
                done = [panel.value.assign(identity)]
        self.weights.assign(tf.zeros_like(self.weights.value))
        self.factor.assign(factor)
        self.pending.assign(0)

    def _append(self, rows: tf.Tensor, block: tf.Tensor, tau: tf.Tensor) -> None:
        """A pair into W and K, and all pairs into M once there is no room for another."""
        at = tf.convert_to_tensor(self.pending.value)
        factor = self.factor.value / tau
        place = at[None]
        into_rows = self.rows.value.scatter_update(tf.IndexedSlices(rows[None], place))
        into_weights = self.weights.value.scatter_update(
            tf.IndexedSlices((block / factor)[None], place)
        )
        after = (at + 1) % PENDING
        with tf.control_dependencies([into_rows, into_weights]):
            # What is left to be multiplied by γ.
            left = tf.cond(
                tf.equal(after, 0), lambda: self._merged(factor), lambda: tf.identity(factor)
            )
            self.factor.assign(left)
            self.pending.assign(after)

    def _rows(self) -> tf.Tensor:
        """W, `[2p, N]`."""
        return tf.reshape(self.rows.value, [2 * PENDING, self._size])

    def _weighted(self, vectors: tf.Tensor) -> tf.Tensor:
        """K times `[2p, n]`."""
        pairs = tf.reshape(vectors, [PENDING, 2, -1])
        return tf.reshape(self.weights.value @ pairs, tf.shape(vectors))

    def _merged(self, factor: tf.Tensor) -> tf.Tensor:
        """M = γ (M + Wᵀ K W), and K empty; returns the new γ, 1."""
        rows = self._rows()
        weighted = factor * self._weighted(rows)
        done: list[tf.Operation] = []
        for first, panel in zip(self._firsts, self.panels, strict=True):
            # One after the other, so that there is one new panel at a time.
            with tf.control_dependencies(done):
                ours = weighted[:, first : first + panel.shape[0]]
                new = factor * panel.value + tf.matmul(ours, rows, transpose_a=True)
                done = [panel.value.assign(new)]
        with tf.control_dependencies(done):
            self.weights.assign(tf.zeros_like(self.weights.value))
            return tf.ones_like(factor)


def _identity(first: int | tf.Tensor) -> Callable[..., tf.Tensor]:
    """Rows of the identity from `first` on."""

    def rows(shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        places = first + tf.range(shape[0])
        return tf.one_hot(places, shape[1], dtype=dtype or tf.float64)

    return rows
