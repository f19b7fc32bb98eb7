"""Products of elements, by multiplications alone.

    Prod       neighbours along an axis are multiplied until one element is left
    Cumprod    y_i = y_i y_(i-k) for k = 1, 2, 4, ...

TensorFlow's gradient of Cumprod, and so the second derivative of Prod, divides by the elements: it
is zero where one is zero, and forgets to conjugate complex ones. The order of multiplications is
another than TensorFlow's, so that what is near a dtype's limits may overflow in one and not in the
other.

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

# Doublings for an axis whose length is not known while tracing: it may have 2^20 elements.
_DOUBLINGS = 20


@form("Prod")
def product(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The product over some axes."""
    x, axes = inputs[0], known_value(inputs[1])
    if axes is None or not has_derivative(x) or x.shape.rank is None:
        return raw_op(op)(inputs)
    over = sorted({int(axis) % x.shape.rank for axis in np.ravel(axes)})
    for axis in over:
        x = _product_along(x, axis)
    # Without axes, `tf.squeeze` takes all.
    return [x if op.get_attr("keep_dims") or not over else tf.squeeze(x, over)]


@form("Cumprod")
def running_product(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The product up to each element."""
    x, axis = inputs[0], known_value(inputs[1])
    if axis is None or not has_derivative(x) or x.shape.rank is None:
        return raw_op(op)(inputs)
    at, reverse = int(axis) % x.shape.rank, op.get_attr("reverse")
    if reverse:
        x = tf.reverse(x, [at])
    if op.get_attr("exclusive"):
        x = shifted(x, at, 1)
    x = within_doublings(x, at)
    for power in range(doublings(x, at)):
        x = x * shifted(x, at, 2**power)
    return [tf.reverse(x, [at]) if reverse else x]


def has_derivative(x: tf.Tensor) -> bool:
    """Whether numbers of this kind have one: no integers."""
    return x.dtype.is_floating or x.dtype.is_complex


def _product_along(x: tf.Tensor, axis: int) -> tf.Tensor:
    """The product along an axis, which has one element then."""
    if x.shape[axis] == 0:
        return ones(x, axis, 1)
    for _ in range(doublings(x, axis)):
        length = _length(x, axis)
        # Of none that were not known to be none, two ones.
        missing = length % 2 if isinstance(length, int) else tf.where(length > 0, length % 2, 2)
        if not isinstance(missing, int) or missing:
            x = tf.concat([x, ones(x, axis, missing)], axis)
        x = _every_second(x, axis, 0) * _every_second(x, axis, 1)
    # One that has more elements still is too long.
    return tf.ensure_shape(x, [1 if k == axis else n for k, n in enumerate(x.shape)])


def shifted(x: tf.Tensor, axis: int, by: int) -> tf.Tensor:
    """x moved along an axis, ones before it."""
    length = _length(x, axis)
    by = min(by, length) if isinstance(length, int) else tf.minimum(by, length)
    first, _ = tf.split(x, [length - by, by], axis)
    return tf.ensure_shape(tf.concat([ones(x, axis, by), first], axis), x.shape)


def ones(x: tf.Tensor, axis: int, count: int | tf.Tensor) -> tf.Tensor:
    """As x, with so many elements along the axis."""
    shape = tf.unstack(tf.shape(x))
    shape[axis] = count
    return tf.ones(tf.stack(shape), x.dtype)


def _every_second(x: tf.Tensor, axis: int, start: int) -> tf.Tensor:
    return x[(slice(None),) * axis + (slice(start, None, 2),)]


def _length(x: tf.Tensor, axis: int) -> int | tf.Tensor:
    known: int | None = x.shape[axis]
    return tf.shape(x)[axis] if known is None else known


def within_doublings(x: tf.Tensor, axis: int) -> tf.Tensor:
    """x; an error where its length was not known and is more than `doublings` are enough for."""
    if x.shape[axis] is not None:
        return x
    text = f"A product of more than 2^{_DOUBLINGS} elements needs a length that is known."
    length = tf.shape(x)[axis]
    with tf.control_dependencies([tf.debugging.assert_less_equal(length, 2**_DOUBLINGS, text)]):
        return tf.identity(x)


def doublings(x: tf.Tensor, axis: int) -> int:
    """From one element to all of an axis."""
    known = x.shape[axis]
    return _DOUBLINGS if known is None else max(known - 1, 0).bit_length()
