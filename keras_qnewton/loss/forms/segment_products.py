"""Products of the elements of segments, by multiplications alone.

    y_i     = y_i y_(i-k) where the two are of one segment, k = 1, 2, 4, ...

of elements that are sorted by segment: then a segment's last one is its product. TensorFlow's
gradient divides by the elements, and chooses another way where one is zero. The derivative of that
is NaN of unsorted segments, and wrong of sorted ones; of complex numbers it is not conjugated.

References:
    Hillis & Steele 1986, Data parallel algorithms, Commun. ACM 29, 1170-1183 (running products).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton.loss.forms.products import (
    doublings,
    has_derivative,
    ones,
    shifted,
    within_doublings,
)
from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op


@form("SegmentProd")
def sorted_segments(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Products of rows whose segments are in order."""
    data, segments = inputs
    if not has_derivative(data):
        return raw_op(op)(inputs)
    count = tf.reduce_max(tf.concat([segments, [-1]], 0)) + 1
    found = _products(data, segments, count)
    return [tf.ensure_shape(found, op.outputs[0].shape)]


@form("UnsortedSegmentProd")
def unsorted_segments(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Products of slices in any order; those of negative segments are left out."""
    data, segments, count = inputs
    if not has_derivative(data) or segments.shape.rank is None:
        return raw_op(op)(inputs)
    inner = tf.shape(data)[segments.shape.rank :]
    rows = tf.reshape(data, tf.concat([[tf.size(segments)], inner], 0))
    segments = tf.reshape(segments, [-1])
    order = tf.argsort(segments, stable=True)
    found = _products(tf.gather(rows, order), tf.gather(segments, order), count)
    return [tf.ensure_shape(found, op.outputs[0].shape)]


def _products(rows: tf.Tensor, segments: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The product of each segment's rows, `[count, ...]`; of rows `[n, ...]` in order."""
    places = tf.range(tf.size(segments))
    rows = within_doublings(rows, 0)
    upright = tf.concat([tf.shape(places), tf.ones([tf.rank(rows) - 1], tf.int32)], 0)
    for power in range(doublings(rows, 0)):
        before = tf.gather(segments, tf.maximum(places - 2**power, 0))
        same = tf.reshape((places >= 2**power) & (before == segments), upright)
        # No row of another segment is multiplied by: it may be infinite.
        rows *= tf.where(same, shifted(rows, 0, 2**power), tf.ones_like(rows))
    wanted = tf.range(tf.cast(count, segments.dtype))
    end = tf.searchsorted(segments, wanted, side="right")
    begin = tf.searchsorted(segments, wanted, side="left")
    # A segment without rows has the product of nothing, which comes first.
    last = tf.where(end > begin, end, tf.zeros_like(end))
    return tf.gather(tf.concat([ones(rows, 0, 1), rows], 0), last)
