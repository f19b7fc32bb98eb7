"""The optimizer's variables that one quasi-Newton step leaves to the next.

H       the inverse Hessian, learned so far; assigned while it learns
here    loss L and gradient g at the weights that the last step led to, H g, those weights and
        a fingerprint of the data: while both are the same, none is computed again

Numbers of a `Here` are in one variable: a small step's time is that of its number of operations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.quasi_newton.inverse import Initializer, InverseHessian
from keras_qnewton.state.newton_state import Foreseen


class Here(NamedTuple):
    """What is known of the weights that a step starts from, or led to.

    Attributes:
        loss: L, float64 scalar.
        gradient: g, float64 `[N]`.
        product: H g, float64 `[N]`.
        decrease: By how much the step that led here lowered the loss, float64 scalar: the next
            step's first length is made of it. Zero where H has learned nothing, infinite where the
            data are others.
        error: About how far rounding moves the loss, as line searches found, float64 scalar.
        count: m, the number of batches that share a step, float64 scalar; 1 if the data stay.
        data: Fingerprint of the data, int64 scalar.
        weights: w, float64 `[N]`; NaN where they are not known.
    """

    loss: tf.Tensor
    gradient: tf.Tensor
    product: tf.Tensor
    decrease: tf.Tensor
    error: tf.Tensor
    count: tf.Tensor
    data: tf.Tensor
    weights: tf.Tensor


class _Variables(NamedTuple):
    """Those of a `Here`.

    Attributes:
        numbers: Its loss, decrease, error and count, `[4]`.
        gradient: As there, like those that follow.
        product: H g.
        data: The data's fingerprint.
        weights: w.
    """

    numbers: keras.Variable
    gradient: keras.Variable
    product: keras.Variable
    data: keras.Variable
    weights: keras.Variable


@dataclasses.dataclass(frozen=True)
class QuasiNewtonState:
    """The variables, and how weights lie in a vector of all N.

    Attributes:
        inverse: H.
        foreseen: Reads what the last step knew of this one off the log.
        here: The variables of the last step's `Here`.
        shapes: Of all weights.
        positions: Which of them the present step is about.
    """

    inverse: InverseHessian
    foreseen: Callable[[], Foreseen]
    here: _Variables
    shapes: Sequence[tf.TensorShape]
    positions: Sequence[int]

    @classmethod
    def create(
        cls,
        optimizer: keras.optimizers.Optimizer,
        inverse: InverseHessian,
        weights: Sequence[keras.Variable | tf.Variable],
        foreseen: Callable[[], Foreseen],
    ) -> QuasiNewtonState:
        """New variables of `optimizer`; weights that nobody has, and data as good as surely."""
        shapes = [tf.TensorShape(w.shape) for w in weights]
        size = _size(shapes)

        def add(
            shape: tuple[int, ...],
            name: str,
            dtype: str = "float64",
            initializer: Initializer = "zeros",
        ) -> keras.Variable:
            return optimizer.add_variable(shape, initializer=initializer, dtype=dtype, name=name)

        here = _Variables(
            numbers=add((4,), "last_numbers"),
            gradient=add((size,), "last_gradient"),
            product=add((size,), "last_product"),
            data=add((), "last_data", "int64"),
            weights=add((size,), "last_weights", initializer=_nowhere),
        )
        return cls(inverse, foreseen, here, shapes, range(len(shapes)))

    @property
    def size(self) -> int:
        """N."""
        return _size(self.shapes)

    def of_weights(self, positions: Sequence[int]) -> QuasiNewtonState:
        """The state of a step about those weights, in that order; the others stay."""
        return dataclasses.replace(self, positions=list(positions))

    def last(self) -> Here:
        """What the last step left."""
        numbers, gradient, product, data, weights = (tf.convert_to_tensor(v) for v in self.here)
        loss, decrease, error, count = tf.unstack(numbers)
        return Here(loss, gradient, product, decrease, error, count, data, weights)

    def remember(self, memory: Here) -> None:
        """Assigns the values for the next step."""
        self.here.numbers.assign(
            tf.stack([memory.loss, memory.decrease, memory.error, memory.count])
        )
        self.here.gradient.assign(memory.gradient)
        self.here.product.assign(memory.product)
        self.here.data.assign(memory.data)
        self.here.weights.assign(memory.weights)

    def nowhere(self) -> tf.Tensor:
        """The w of a `Here` where weights are not known."""
        return _nowhere([self.size])

    def flatten(self, tensors: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """One tensor a weight of the step -> float64 `[N]`; None, and other weights', as zeros."""
        given = [
            tf.zeros([self.shapes[k].num_elements()], tf.float64) if t is None else t
            for k, t in zip(self.positions, tensors, strict=True)
        ]
        if len({t.dtype for t in given}) > 1:
            given = [tf.cast(t, tf.float64) for t in given]
        return self.spread(self.joined(given))

    def unflatten(self, vector: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """`[N]` -> one tensor a weight of the step, of the dtypes of `like`."""
        separated = self.separated(self.entries(vector))
        return [tf.cast(t, other.dtype) for t, other in zip(separated, like, strict=True)]

    def joined(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """One tensor a weight of the step, all of one dtype -> their n entries, `[n]`."""
        return tf.concat([tf.reshape(t, [-1]) for t in tensors], 0)

    def separated(self, entries: tf.Tensor) -> list[tf.Tensor]:
        """The inverse of `joined`."""
        shapes = [self.shapes[k] for k in self.positions]
        pieces = tf.split(entries, [shape.num_elements() for shape in shapes])
        return [tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def entries(self, vector: tf.Tensor, dtype: tf.DType = tf.float64) -> tf.Tensor:
        """`[N]` -> the entries of the step's weights, in their order, `[n]`."""
        if not self._is_whole:
            pieces = tf.split(vector, [shape.num_elements() for shape in self.shapes])
            vector = tf.concat([pieces[k] for k in self.positions], 0)
        return tf.cast(vector, dtype)

    def spread(self, entries: tf.Tensor) -> tf.Tensor:
        """`[n]` -> float64 `[N]`; other weights' entries are zeros."""
        entries = tf.cast(entries, tf.float64)
        if self._is_whole:
            return entries
        sizes = [self.shapes[k].num_elements() for k in self.positions]
        pieces = dict(zip(self.positions, tf.split(entries, sizes), strict=True))
        return tf.concat(
            [
                pieces.get(k, tf.zeros([shape.num_elements()], tf.float64))
                for k, shape in enumerate(self.shapes)
            ],
            0,
        )

    @property
    def _is_whole(self) -> bool:
        """Whether the step is about all weights, in their order."""
        return list(self.positions) == list(range(len(self.shapes)))


def _nowhere(shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
    # No weights are equal to these.
    return tf.fill(shape, tf.constant(math.nan, dtype or tf.float64))


def _size(shapes: Sequence[tf.TensorShape]) -> int:
    return sum(int(shape.num_elements()) for shape in shapes)
