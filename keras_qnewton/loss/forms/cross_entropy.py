"""Softmax cross-entropy of labels that depend on the weights, as of a teacher that learns, too.

TensorFlow takes labels for constant in the derivative of its gradient p - labels.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op


@form("SoftmaxCrossEntropyWithLogits")
def cross_entropy(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """-Σ labels log p of each row, and its gradient in the logits, p - labels."""
    logits, labels = inputs
    if labels is op.inputs[1]:
        return raw_op(op)(inputs)
    # Of labels that are zero, a logarithm of minus infinity has no part.
    terms = tf.math.multiply_no_nan(tf.nn.log_softmax(logits), labels)
    return [-tf.reduce_sum(terms, -1), tf.nn.softmax(logits) - labels]
