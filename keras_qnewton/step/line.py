"""The points w + d(α) that a quasi-Newton step may lead to.

Weights are moved as the optimizer will move them, operation by operation, so that what is known of
a point is known of the weights that are made of it, to the last bit. Where a step is a number times
the directions, and all weights have one dtype, they are moved as one vector: the time of a small
network's step is that of its number of operations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.quasi_newton.inverse import dot
from keras_qnewton.quasi_newton.line_search import Point
from keras_qnewton.state.quasi_newton_state import QuasiNewtonState
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.quadratic_model import scaled


class Arrival(NamedTuple):
    """The weights w + d(α), to the last bit.

    Attributes:
        directions: α x, of which the optimizer makes d(α); tensors as those of `Line.start`.
        weights: Them, float64 `[N]`.
        moved: By how much they are others than w, as the weights' precision has it, float64 `[N]`.
    """

    directions: list[tf.Tensor]
    weights: tf.Tensor
    moved: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Line:
    """w + d(α), for lengths α that are float64 scalars.

    Attributes:
        batch: Its loss, weights and update.
        state: Knows how weights lie in a vector.
        share: (n/N)/m, scalar.
        factor: Of weights that are moved as one vector, what directions are multiplied by, scalar;
            None of others.
        start: w, one tensor a weight, or that one vector.
        direction: x, tensors as those of `start`.
        whole: d(1), tensors as those of `start`.
        flat: d(1), float64 `[N]`.
    """

    batch: Batch
    state: QuasiNewtonState
    share: tf.Tensor
    factor: tf.Tensor | None
    start: list[tf.Tensor]
    direction: list[tf.Tensor]
    whole: list[tf.Tensor]
    flat: tf.Tensor

    @classmethod
    def of(
        cls, batch: Batch, state: QuasiNewtonState, product: tf.Tensor, share: tf.Tensor
    ) -> Line:
        """The line along H g, of which the batch has that share."""
        update, weights = batch.update, list(batch.weights)
        product = share * product
        if _move_as_one(batch):
            start = state.joined(weights)
            x = state.entries(product, start.dtype)
            factor = update.factor(x.dtype)
            whole = factor * x
            return cls(batch, state, share, factor, [start], [x], [whole], state.spread(whole))
        directions = state.unflatten(product, weights)
        steps = update(directions)
        return cls(batch, state, share, None, weights, directions, steps, state.flatten(steps))

    def arrival(self, length: tf.Tensor) -> Arrival:
        """The weights w + d(α), as the optimizer will compute them."""
        directions = self._directions(length)
        ends = self._ends(directions)
        return Arrival(directions, self._spread(ends), self._spread(self._differences(ends)))

    def moved(self, length: tf.Tensor) -> tf.Tensor:
        """By how much w + d(α) is another than w; see `Arrival`."""
        return self._spread(self._differences(self._ends(self._directions(length))))

    def at(self, length: tf.Tensor, moved: tf.Tensor | bool = True) -> Point:
        """The loss, its slope in α and its gradient at w + d(α), or at w.

        A step that was clipped, or stopped at a constraint, may be cut back and not lengthened:
        what is beyond has a loss of NaN.

        Args:
            length: α.
            moved: Whether it is there, boolean scalar; else at w, whatever the direction is.
        """
        ends = self._ends(self._directions(length))
        if moved is not True:
            pairs = zip(ends, self.start, strict=True)
            ends = [tf.where(moved, end, start) for end, start in pairs]
        weights = separated(ends, self.batch, self.state)
        value, gradients = self.batch.loss.value_and_gradients(weights)
        value, gradient = tf.cast(value, tf.float64), self.state.flatten(gradients)
        if not self.batch.update.proportional:
            beyond = (length > 1) & moved
            value = tf.where(beyond, tf.constant(math.nan, tf.float64), value)
        (slope,) = self.batch.agreed(dot(gradient, self.flat))
        return Point(length, value, slope, gradient)

    def _directions(self, length: tf.Tensor) -> list[tf.Tensor]:
        if self.batch.update.proportional:
            return scaled(self.direction, length)
        return self.batch.update.directions_of(scaled(self.whole, length))

    def _ends(self, directions: list[tf.Tensor]) -> list[tf.Tensor]:
        if self.factor is None:
            steps = self.batch.update(directions)
        else:
            # As `QNewton.update_step`. Of a plain product of two numbers and a vector TensorFlow's
            # graph optimiser makes another, which is rounded otherwise.
            steps = [tf.math.multiply_no_nan(self.factor, x) for x in directions]
        return [w + d for w, d in zip(self.start, steps, strict=True)]

    def _differences(self, ends: list[tf.Tensor]) -> list[tf.Tensor]:
        return [after - before for after, before in zip(ends, self.start, strict=True)]

    def _spread(self, tensors: list[tf.Tensor]) -> tf.Tensor:
        if self.factor is None:
            return self.state.flatten(tensors)
        return self.state.spread(tensors[0])


def separated(
    tensors: Sequence[tf.Tensor], batch: Batch, state: QuasiNewtonState
) -> list[tf.Tensor]:
    """Tensors as those of `Line.start` -> one tensor a weight."""
    return state.separated(tensors[0]) if _move_as_one(batch) else list(tensors)


def _move_as_one(batch: Batch) -> bool:
    """Whether weights are moved as one vector."""
    return batch.update.proportional and len({w.dtype for w in batch.weights}) == 1
