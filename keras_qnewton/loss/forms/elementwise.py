"""Functions of one element."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op


@form("Softsign")
def softsign(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """x / (1 + |x|), whose derivative is 1 / (1 + |x|)²."""
    del op

    @_tf_private.custom_gradient
    def again(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return tf.math.softsign(x), lambda u: _slope(u, x)

    return [again(*inputs)]


@form("SoftsignGrad")
def softsign_grad(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """u / (1 + |x|)²."""
    del op
    return [_slope(*inputs)]


@form("Pow")
def power(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """x^y; at x = 0 it is x for y = 1, and 1 for y = 0: TensorFlow's derivatives are 0 times ∞."""
    x, y = inputs
    found = (tf.get_static_value(t) for t in (y, op.inputs[1]))
    known = next((value for value in found if value is not None), None)
    if known is not None and not np.isin(known, (0, 1)).any():
        return raw_op(op)(inputs)
    itself, one = (tf.equal(x, 0) & tf.equal(y, n) for n in (1, 0))
    elsewhere = tf.pow(tf.where(itself | one, tf.ones_like(x), x), y)
    return [tf.where(itself, x, elsewhere)]


def _slope(u: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return u / tf.square(1 + tf.abs(x))
