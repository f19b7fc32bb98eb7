"""Maxima over windows, and means over regions that were drawn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import LossNotReplayableError, here, raw_op


@form("MaxPool", "MaxPool3D", "MaxPoolV2")
def pooled(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """A max-pooling; by one of a padded input, where that is needed.

    The derivative of a max-pooling's gradient (MaxPoolGradGrad, on CPUs) writes its result over
    its input if they have the same size, and clears it first: silently wrong second derivatives.
    The padded input is larger than the result. Nor does that derivative know explicit padding.
    """
    x, *_ = inputs
    kernel, strides = _window(op)
    around = _padding(op, kernel, strides)
    options = {"ksize": kernel, "strides": strides, "data_format": op.get_attr("data_format")}
    run = getattr(tf.raw_ops, op.type.removesuffix("V2"))
    if around is None:
        return [run(input=x, padding=op.get_attr("padding"), **options)]
    if max(kernel) == max(strides) == 1 and not np.any(around):
        return [tf.identity(x)]
    padded = tf.pad(x, around, constant_values=x.dtype.min)
    return [run(input=padded, padding="VALID", **options)]


def _window(op: tf.Operation) -> tuple[list[int], list[int]]:
    """The lengths of a pooling's window and its strides, one an axis."""
    if op.type != "MaxPoolV2":
        return op.get_attr("ksize"), op.get_attr("strides")
    kernel, strides = (known_value(t) for t in op.inputs[1:])
    if kernel is None or strides is None:
        raise LossNotReplayableError(
            f"The window and the strides of {op.name!r}, a max-pooling, must be known while "
            "tracing: its second derivative depends on them. Pass them as Python integers."
        )
    return kernel.tolist(), strides.tolist()


def _padding(op: tf.Operation, kernel: list[int], strides: list[int]) -> np.ndarray | None:
    """What a pooling's input is to be padded with, two numbers an axis; None to leave it."""
    padding = op.get_attr("padding")
    if padding == b"EXPLICIT":
        return np.reshape(op.get_attr("explicit_paddings"), [-1, 2])
    lengths = op.inputs[0].shape.with_rank(len(kernel))
    keeps_shape = all(
        (s == 1 or n == 1) and (padding == b"SAME" or (padding == b"VALID" and k == 1))
        for n, k, s in zip(lengths, kernel, strides, strict=True)
    )
    return np.array([[(k - 1) // 2, k // 2] for k in kernel]) if keeps_shape else None


@form("MaxPoolWithArgmax")
def pooled_with_places(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The largest elements, gathered from where they are, and these places."""
    (x,) = inputs
    pooled, places = raw_op(op)([tf.stop_gradient(x)])
    if op.get_attr("include_batch_in_index"):
        found = tf.gather(tf.reshape(x, [-1]), places)
    else:
        found = tf.gather(tf.reshape(x, [tf.shape(x)[0], -1]), places, batch_dims=1)
    return [tf.ensure_shape(found, pooled.shape), places]


@form("Dilation2D")
def dilated(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """max (x + filter) over a window: the first of the largest, as TensorFlow takes it."""
    x, filters = inputs
    like = raw_op(op)([tf.stop_gradient(t) for t in inputs])[0]
    strides, rates = op.get_attr("strides")[1:3], op.get_attr("rates")[1:3]
    sizes, outputs, lengths = (tf.shape(t) for t in (filters, like, x))
    total = [
        tf.maximum((outputs[k + 1] - 1) * s + (sizes[k] - 1) * r + 1 - lengths[k + 1], 0)
        for k, (s, r) in enumerate(zip(strides, rates, strict=True))
    ]
    around = [[0, 0], *([t // 2, t - t // 2] for t in total), [0, 0]]
    padded = tf.pad(x, tf.convert_to_tensor(around), constant_values=x.dtype.min)

    def shifted(*offsets: int) -> tf.Tensor:
        places = [
            slice(o * r, o * r + (outputs[k + 1] - 1) * s + 1, s)
            for k, (o, r, s) in enumerate(zip(offsets, rates, strides, strict=True))
        ]
        return padded[(slice(None), *places)] + filters[offsets]

    window = itertools.product(*(range(int(n)) for n in filters.shape[:2]))
    sums = tf.stack([shifted(*offsets) for offsets in window])
    largest = tf.one_hot(tf.argmax(sums, 0), tf.shape(sums)[0], True, False, axis=0)
    found = tf.reduce_sum(tf.where(largest, sums, tf.zeros_like(sums)), 0)
    return [tf.ensure_shape(found, like.shape)]


@form("FractionalMaxPool", "FractionalAvgPool")
def pooled_by_fractions(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The maximum or the mean of each region, of those that were drawn when the loss was recorded.

    Region k of an axis begins at `edges[k]` and ends before `edges[k + 1]`, or with that row where
    regions overlap.
    """
    (x,) = inputs
    # TensorFlow says of their length that there is one less; `tf.unique` has it forget that.
    edges = [tf.unique(here(t)).y for t in op.outputs[1:]]
    overlapping = int(op.get_attr("overlapping"))
    ends = [tf.minimum(e[1:] + overlapping, e[-1]) for e in edges]
    lengths = [tf.cast(end - e[:-1], tf.int32) for end, e in zip(ends, edges, strict=True)]
    # As long as the longest of each axis, so that regions are of one shape.
    offsets = [tf.range(tf.reduce_max(n)) for n in lengths]
    for axis, (e, offset) in enumerate(zip(edges, offsets, strict=True)):
        rows = tf.cast(e[:-1], tf.int32)[:, None] + offset
        last = tf.shape(inputs[0])[axis + 1] - 1
        x = tf.gather(x, tf.minimum(rows, last), axis=1 + 2 * axis)
    inside = [o < n[:, None] for o, n in zip(offsets, lengths, strict=True)]
    regions = inside[0][:, :, None, None] & inside[1]
    # `[examples, rows, columns, channels, places in the region]`
    x = tf.transpose(x, [0, 1, 3, 5, 2, 4])
    x = tf.reshape(x, tf.concat([tf.shape(x)[:4], [-1]], 0))
    regions = tf.transpose(regions, [0, 2, 1, 3])
    regions = tf.reshape(regions, tf.concat([tf.shape(regions)[:2], [1, -1]], 0))
    if op.type == "FractionalMaxPool":
        x = tf.where(regions, x, x.dtype.min)
        first = tf.one_hot(tf.argmax(x, -1), tf.shape(x)[-1], True, False)
        found = tf.reduce_sum(tf.where(first, x, tf.zeros_like(x)), -1)
    else:
        counts = tf.cast(tf.math.count_nonzero(regions, -1), x.dtype)
        found = tf.reduce_sum(tf.where(regions, x, tf.zeros_like(x)), -1) / counts
    return [tf.ensure_shape(found, op.outputs[0].shape), *(here(t) for t in op.outputs[1:])]
