"""Simulated quantisation: rounding inside a range, whose given derivative is one inside and zero
outside of it.

    y = fake_quant(x; min, max)    dy/dx = [x in range],  dy/dmin = [x below],  dy/dmax = [x above]

TensorFlow marks u -> Jᵀu as not differentiable, so that it would be zero in u.

References:
    Jacob et al. 2018, arXiv:1712.05877, section 3 (training with simulated quantisation).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op

_FAKE = ("num_bits", "narrow_range")


@form("FakeQuantWithMinMaxArgs")
def quantised_in_a_known_range(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The range is of two numbers."""
    options = {name: op.get_attr(name) for name in ("min", "max", *_FAKE)}

    @_tf_private.custom_gradient
    def again(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        ones = tf.ones_like(x)
        inside = tf.raw_ops.FakeQuantWithMinMaxArgsGradient(gradients=ones, inputs=x, **options)
        return raw_op(op)([x])[0], lambda u: inside * u

    return [again(*inputs)]


@form("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def quantised(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """The range is of two tensors, scalars or a number a channel."""
    options = {name: op.get_attr(name) for name in _FAKE}
    slopes = getattr(tf.raw_ops, f"{op.type}Gradient")

    @_tf_private.custom_gradient
    def again(x: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, Any]:
        ones = tf.ones_like(x)
        inside, *_ = slopes(gradients=ones, inputs=x, min=low, max=high, **options)
        outside = 1 - inside
        below = outside * tf.cast(x < (low + high) / 2, x.dtype)

        def gradient(u: tf.Tensor) -> list[tf.Tensor]:
            axes = tf.range(tf.rank(u) - tf.rank(low))
            above = outside - below
            return [inside * u, tf.reduce_sum(below * u, axes), tf.reduce_sum(above * u, axes)]

        return raw_op(op)([x, low, high])[0], gradient

    return [again(*inputs)]
