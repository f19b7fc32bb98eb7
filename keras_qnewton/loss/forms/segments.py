"""Sums and means of segments of gathered rows (sparse embeddings), and sparse rows filled up."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op

_SUMS = ("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN")


@form(*_SUMS, *(f"{name}WithNumSegments" for name in _SUMS))
def segments_of_rows(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Σ s rows of a segment, s = 1, 1/n or 1/√n of its n rows; its transpose is a scattered sum."""

    @_tf_private.custom_gradient
    def again(
        data: tf.Tensor, indices: tf.Tensor, segments: tf.Tensor, *count: tf.Tensor
    ) -> tuple[tf.Tensor, Any]:
        (found,) = raw_op(op)([data, indices, segments, *count])

        def gradient(u: tf.Tensor) -> list[tf.Tensor | None]:
            rows = tf.gather(_scaled(op.type, u, segments), segments)
            dense = tf.math.unsorted_segment_sum(rows, indices, tf.shape(data)[0])
            return [dense, None, None, *([None] * len(count))]

        return found, gradient

    return [again(*inputs)]


def _scaled(kind: str, u: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """s u, one row a segment."""
    if kind.startswith("SparseSegmentSum"):
        return u
    ones = tf.ones_like(segments, u.dtype)
    rows = tf.math.unsorted_segment_sum(ones, segments, tf.shape(u)[0])
    divisor = rows if kind.startswith("SparseSegmentMean") else tf.sqrt(rows)
    shape = tf.concat([tf.shape(u)[:1], tf.ones([tf.rank(u) - 1], tf.int32)], 0)
    return tf.math.divide_no_nan(u, tf.reshape(divisor, shape))


@form("SparseFillEmptyRows", "RaggedFillEmptyRows")
def filled_rows(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Values of a sparse or ragged tensor, and a default one in each row without any."""
    _, values, _, default = inputs
    outputs = raw_op(op)([tf.stop_gradient(t) for t in inputs])
    _, filled, _, places = outputs
    count = tf.size(places)
    none = tf.fill(tf.shape(filled), count)
    sources = tf.tensor_scatter_nd_update(none, places[:, None], tf.range(count))
    outputs[1] = tf.gather(tf.concat([values, default[None]], 0), sources)
    return outputs
