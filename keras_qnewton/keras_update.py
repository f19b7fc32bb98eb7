"""The change of the weights that Keras makes of directions: rate, clipping, constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class KerasUpdate:
    """The very change of the weights that Keras makes of directions; see `step.batch.Update`.

    Args:
        optimizer: Clips, and has the learning rate.
        weights: Present values.
        variables: They may have constraints.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        weights: Sequence[tf.Tensor],
        variables: Sequence[Any],
    ):
        self._optimizer, self._weights = optimizer, weights
        self._constraints = [getattr(v, "constraint", None) for v in variables]

    @property
    def proportional(self) -> bool:
        """Whether a step is the learning rate times the directions: no clipping, no constraint."""
        optimizer = self._optimizer
        clips = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
        return all(c is None for c in (*clips, *self._constraints))

    @property
    def learning_rate(self) -> tf.Tensor:
        """The present learning rate, a scalar tensor."""
        return tf.convert_to_tensor(self._optimizer.learning_rate)

    @property
    def decays(self) -> bool:
        """Whether weights shrink by the learning rate itself, beside the step."""
        return self._optimizer.weight_decay is not None

    def factor(self, dtype: tf.DType) -> tf.Tensor:
        """What directions are multiplied by, before constraints: the negative learning rate."""
        return -tf.cast(self._optimizer.learning_rate, dtype)

    def __call__(self, directions: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        out = []
        clipped = self._optimizer._clip_gradients(list(directions))
        factors = {dtype: self.factor(dtype) for dtype in dict.fromkeys(x.dtype for x in clipped)}
        for x, w, constraint in zip(clipped, self._weights, self._constraints, strict=True):
            step = tf.math.multiply_no_nan(factors[x.dtype], x)  # see `QNewton.update_step`
            out.append(step if constraint is None else constraint(w + step) - w)
        return out

    def directions_of(self, step: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Directions that `step` is made of: one that clipping and constraints leave as it is."""
        rate = self._optimizer.learning_rate
        return [-tf.math.divide_no_nan(d, tf.cast(rate, d.dtype)) for d in step]
