"""The optimizer's variables that one quasi-Newton step leaves to the next.

H       the inverse Hessian, learned so far; assigned while it learns
here    loss L and gradient g at the weights that the last step led to, H g, and fingerprints
        of those weights and the data: while both are the same, none is computed again
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.quasi_newton.inverse import InverseHessian
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
        weights: Fingerprint of the weights, int64 scalar.
    """

    loss: tf.Tensor
    gradient: tf.Tensor
    product: tf.Tensor
    decrease: tf.Tensor
    error: tf.Tensor
    count: tf.Tensor
    data: tf.Tensor
    weights: tf.Tensor


@dataclasses.dataclass(frozen=True)
class QuasiNewtonState:
    """The variables, and how weights lie in a vector of all N.

    Attributes:
        inverse: H.
        foreseen: Reads what the last step knew of this one off the log.
        here: The variables of a `Here`.
        shapes: Of all weights.
        positions: Which of them the present step is about.
    """

    inverse: InverseHessian
    foreseen: Callable[[], Foreseen]
    here: tuple[keras.Variable, ...]
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
        """New variables of `optimizer`; a fingerprint that no data have, as good as surely."""
        shapes = [tf.TensorShape(w.shape) for w in weights]
        size = _size(shapes)

        def add(shape: tuple[int, ...], name: str, dtype: str = "float64") -> keras.Variable:
            return optimizer.add_variable(shape, dtype=dtype, name=name)

        here = (
            add((), "last_loss"),
            add((size,), "last_gradient"),
            add((size,), "last_product"),
            add((), "last_decrease"),
            add((), "last_error"),
            add((), "batches"),
            add((), "last_data", "int64"),
            add((), "last_weights", "int64"),
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
        return Here(*(tf.convert_to_tensor(v) for v in self.here))

    def remember(self, memory: Here) -> None:
        """Assigns the values for the next step."""
        for variable, value in zip(self.here, memory, strict=True):
            variable.assign(value)

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


def _size(shapes: Sequence[tf.TensorShape]) -> int:
    return sum(int(shape.num_elements()) for shape in shapes)
