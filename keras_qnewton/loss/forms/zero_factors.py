"""x log y, x log(1 + y) and x / y, which are defined as zero where x is.

TensorFlow's derivative in x is zero there, too, by that definition, and so would be its derivative
in y. The mixed second derivative is 1/y, 1/(1 + y) and -1/y²; what is added here has that one
alone. Where y has no logarithm or reciprocal, nothing is added, nor to complex numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op

_FACTORS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "Xlogy": tf.math.log,
    "Xlog1py": tf.math.log1p,
    "Xdivy": tf.math.reciprocal,
}


@form(*_FACTORS)
def product_of_zero(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """x f(y), and x (f(y) - the same as a constant) where x is zero."""
    outputs = raw_op(op)(inputs)
    x, y = inputs
    if x is op.inputs[0] or x.dtype.is_complex:  # labels, which no weight moves
        return outputs
    factor = _FACTORS[op.type]
    at_zero = tf.equal(x, 0) & tf.math.is_finite(tf.stop_gradient(factor(y)))
    value = factor(tf.where(at_zero, y, tf.ones_like(y)))
    beside = tf.where(at_zero, x, tf.zeros_like(x)) * (value - tf.stop_gradient(value))
    return [outputs[0] + beside]
