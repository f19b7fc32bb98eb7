"""Determinants of complex matrices, whose derivative TensorFlow does not conjugate."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op


@form("MatrixDeterminant")
def determinant(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """det A, whose derivative is det(A) A⁻ᵀ."""
    if not inputs[0].dtype.is_complex:
        return raw_op(op)(inputs)

    @_tf_private.custom_gradient
    def again(a: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(u: tf.Tensor) -> tf.Tensor:
            factor = u * tf.math.conj(again(a))
            return factor[..., None, None] * tf.linalg.inv(a, adjoint=True)

        return tf.linalg.det(a), gradient

    return [again(*inputs)]
