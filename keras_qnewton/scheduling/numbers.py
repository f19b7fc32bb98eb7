"""Arithmetic of cost models, on float64 tensors."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.types import Scalar


def float64(value: Scalar) -> tf.Tensor:
    """`value` as a float64 tensor, whatever number or tensor it was."""
    if tf.is_tensor(value):
        return tf.cast(value, tf.float64)
    # `tf.cast` would make a float32 of a Python float first.
    return tf.constant(float(value), tf.float64)


def log2(value: tf.Tensor) -> tf.Tensor:
    """Binary logarithm."""
    return tf.math.log(value) / tf.math.log(tf.constant(2.0, tf.float64))


def qubits(size: Scalar) -> tf.Tensor:
    """n = ⌈log₂ N⌉, at least 1, scalar float64."""
    # log₂ of a power of two must not be rounded up.
    return tf.maximum(tf.math.ceil(log2(float64(size)) - 1e-9), 1.0)
