"""Products of elements, by multiplications alone.

    Prod       halves of an axis, multiplied until one element is left
    Cumprod    y_i = y_i y_(i-k) for k = 1, 2, 4, ...

TensorFlow's gradient of Cumprod, and so the second derivative of Prod, divides by the elements: it
is zero where one is zero, and forgets to conjugate complex ones.

References:
    Hillis & Steele 1986, Data parallel algorithms, Commun. ACM 29, 1170-1183 (running products).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import raw_op


@form("Prod")
def product(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The product over some axes; over axes of unknown length, as TensorFlow has it."""
    x, axes = inputs[0], known_value(inputs[1])
    if axes is None or not _has_derivative(x) or x.shape.rank is None:
        return raw_op(op)(inputs)
    over = sorted({int(axis) % x.shape.rank for axis in np.ravel(axes)})
    if not all(x.shape[axis] for axis in over):
        return raw_op(op)(inputs)
    for axis in over:
        x = _product_along(x, axis)
    # Without axes, `tf.squeeze` takes all.
    return [x if op.get_attr("keep_dims") or not over else tf.squeeze(x, over)]


@form("Cumprod")
def running_product(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The product up to each element; along an axis of unknown length, as TensorFlow has it."""
    x, axis = inputs[0], known_value(inputs[1])
    if axis is None or not _has_derivative(x) or not x.shape[int(axis)]:
        return raw_op(op)(inputs)
    at = int(axis) % x.shape.rank
    length, reverse = x.shape[at], op.get_attr("reverse")
    if reverse:
        x = tf.reverse(x, [at])
    if op.get_attr("exclusive"):
        x = _shifted(x, at, 1)
    for power in range((length - 1).bit_length()):
        x = x * _shifted(x, at, 2**power)
    return [tf.reverse(x, [at]) if reverse else x]


def _has_derivative(x: tf.Tensor) -> bool:
    return x.dtype.is_floating or x.dtype.is_complex


def _product_along(x: tf.Tensor, axis: int) -> tf.Tensor:
    """The product along an axis, which has one element then."""
    while (length := x.shape[axis]) > 1:
        half = length // 2
        first, second, rest = tf.split(x, [half, half, length - 2 * half], axis)
        x = first * second
        if length % 2:
            x = tf.concat([x, rest], axis)
    return x


def _shifted(x: tf.Tensor, axis: int, by: int) -> tf.Tensor:
    """x moved along an axis, ones before it."""
    first, last = tf.split(x, [x.shape[axis] - by, by], axis)
    return tf.concat([tf.ones_like(last), first], axis)
