"""Functions of one element."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import form


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


def _slope(u: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return u / tf.square(1 + tf.abs(x))
