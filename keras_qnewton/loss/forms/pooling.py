"""Maxima over windows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import LossNotReplayableError, raw_op


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
