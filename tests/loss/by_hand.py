"""Derivatives at points where TensorFlow's are NaN, zero or others, beside those by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from keras_qnewton.curvature import hessian
from tests.derivatives import fd_hessian

D = tf.float64
Function = Callable[[tf.Tensor], Sequence[tf.Tensor]]


def loss_of(function: Function, w: tf.Variable) -> Callable[[], tf.Tensor]:
    """Of all elements that the function gives, each with a factor and a square of its own."""

    def loss_fn() -> tf.Tensor:
        found = tf.concat([tf.reshape(t, [-1]) for t in function(tf.identity(w))], 0)
        amounts = tf.cast(np.linspace(0.5, 2, found.shape[0]), D)
        return tf.reduce_sum(amounts * tf.math.real(found + 0.3 * found**2))

    return loss_fn


def check(function: Function, by_hand: Function, start: ArrayLike, atol: float = 1e-8) -> None:
    """The same value, gradient and Hessian as what is written by hand, by differences of that."""
    w = tf.Variable(np.array(start), dtype=D)
    loss_fn, reference = loss_of(function, w), loss_of(by_hand, w)
    (block,) = hessian(loss_fn, [w])
    np.testing.assert_allclose(loss_fn(), reference(), rtol=1e-12)
    with tf.GradientTape() as tape:
        loss = reference()
    np.testing.assert_allclose(block.gradient, tape.gradient(loss, w).numpy().ravel(), atol=1e-9)
    np.testing.assert_allclose(block.matrix, fd_hessian(reference, [w]), atol=atol)
