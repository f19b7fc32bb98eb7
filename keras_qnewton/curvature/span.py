"""Some of a batch's examples, as slices of tensors that have an axis of them."""

from __future__ import annotations

import tensorflow as tf


class Span:
    """Examples from one on, up to another.

    What says where a slice begins and ends is made once for all tensors with the same axis. So a
    span belongs to the graph in which it first takes something.

    Args:
        start: The first, int or int32 scalar; None for all of a batch, of which nothing is cut.
        stop: After the last, or how many there are, likewise.
    """

    def __init__(self, start: tf.Tensor | int | None, stop: tf.Tensor | int):
        self._start, self._stop = start, stop
        self._bounds: dict[int, tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = {}

    @property
    def count(self) -> tf.Tensor | int:
        """How many they are."""
        return self._stop if self._start is None else self._stop - self._start

    def of(self, tensor: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """These of a tensor that has all examples along `axis`."""
        if self._start is None:
            return tensor
        if axis not in self._bounds:
            before, one = [0] * axis, tf.constant([1] * (axis + 1))
            ends = (tf.stack([*before, end]) for end in (self._start, self._stop))
            self._bounds[axis] = (*ends, one)
        whole = (1 << axis) - 1  # axes of which nothing is cut
        return tf.strided_slice(tensor, *self._bounds[axis], begin_mask=whole, end_mask=whole)
