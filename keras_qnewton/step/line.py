"""The points w + d(α) that a quasi-Newton step may lead to.

Weights are moved as the optimizer will move them, operation by operation, so that what is known of
a point is known of the weights that are made of it, to the last bit. Where a step is a number times
the directions, and all weights have one dtype, they are moved as one vector: the time of a small
network's step is that of its number of operations.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from keras_qnewton.loss.fingerprint import vector_fingerprint
from keras_qnewton.quasi_newton.inverse import dot
from keras_qnewton.quasi_newton.line_search import Point
from keras_qnewton.state.quasi_newton_state import QuasiNewtonState
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.quadratic_model import scaled


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
        if update.proportional and len({w.dtype for w in weights}) == 1:
            start = state.joined(weights)
            x = state.entries(product, start.dtype)
            factor = update.factor(x.dtype)
            whole = factor * x
            return cls(batch, state, share, factor, [start], [x], [whole], state.spread(whole))
        directions = state.unflatten(product, weights)
        steps = update(directions)
        return cls(batch, state, share, None, weights, directions, steps, state.flatten(steps))

    def directions(self, length: tf.Tensor) -> list[tf.Tensor]:
        """What the optimizer makes d(α) of, one tensor a weight."""
        return self._separated(self._directions(length))

    def weights(self, length: tf.Tensor) -> list[tf.Tensor]:
        """w + d(α), as the optimizer will compute it, one tensor a weight."""
        return self._separated(self._ends(length))

    def moved(self, length: tf.Tensor) -> tf.Tensor:
        """By how much that is another than w, as the weights' precision has it, float64 `[N]`."""
        pairs = zip(self._ends(length), self.start, strict=True)
        return self._spread([after - before for after, before in pairs])

    def fingerprint(self, length: tf.Tensor) -> tf.Tensor:
        """Of w + d(α), int64 scalar."""
        return vector_fingerprint(self._spread(self._ends(length)))

    def at(self, length: tf.Tensor) -> Point:
        """The loss, its slope in α and its gradient at w + d(α).

        A step that was clipped, or stopped at a constraint, may be cut back and not lengthened:
        what is beyond has a loss of NaN.
        """
        value, gradients = self.batch.loss.value_and_gradients(self.weights(length))
        value, gradient = tf.cast(value, tf.float64), self.state.flatten(gradients)
        if not self.batch.update.proportional:
            value = tf.where(length > 1, tf.constant(math.nan, tf.float64), value)
        (slope,) = self.batch.agreed(dot(gradient, self.flat))
        return Point(length, value, slope, gradient)

    def _directions(self, length: tf.Tensor) -> list[tf.Tensor]:
        if self.batch.update.proportional:
            return scaled(self.direction, length)
        return self.batch.update.directions_of(scaled(self.whole, length))

    def _ends(self, length: tf.Tensor) -> list[tf.Tensor]:
        directions = self._directions(length)
        if self.factor is None:
            steps = self.batch.update(directions)
        else:
            # As `QNewton.update_step`. Of a plain product of two numbers and a vector TensorFlow's
            # graph optimiser makes another, which is rounded otherwise.
            steps = [tf.math.multiply_no_nan(self.factor, x) for x in directions]
        return [w + d for w, d in zip(self.start, steps, strict=True)]

    def _separated(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return tensors if self.factor is None else self.state.separated(tensors[0])

    def _spread(self, tensors: list[tf.Tensor]) -> tf.Tensor:
        if self.factor is None:
            return self.state.flatten(tensors)
        return self.state.spread(tensors[0])
