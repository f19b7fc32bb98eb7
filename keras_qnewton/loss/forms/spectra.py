"""Eigenvalues, singular values and their vectors.

    dV = V (F ∘ Vᴴ dA V),   F_ij = 1 / (λ_j - λ_i),  0 for i = j

Vectors of equal values are no functions of the matrix, and have no derivative; nor have values a
second one, unless the loss treats all alike, which is not told here. TensorFlow takes F for zero
there, so that a part of the derivative would be missing. Here that is an error, which is raised
when a step asks for it. TensorFlow has 1e-20 added to the squared difference, too, which is much
where matrices are small.

References:
    Giles 2008, An extended collection of matrix derivative results, sections 3.1 and 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.forms.table import form
from keras_qnewton.loss.raw import raw_op

# Values count as equal up to so many roundings of the largest.
_ROUNDINGS = 64


@form("SelfAdjointEigV2")
def of_symmetric_matrices(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Eigenvalues and vectors of symmetric and Hermitian matrices."""

    @_tf_private.custom_gradient
    def both(a: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        def gradient(of_values: tf.Tensor, of_vectors: tf.Tensor) -> tf.Tensor:
            values, vectors = both(a)
            turned = tf.matmul(vectors, of_vectors, adjoint_a=True)
            equal = _equal(values)
            checked = _checked(op, equal, [turned], of_values)
            gaps = tf.where(equal, tf.ones_like(turned), _gaps(values))
            turned = tf.where(equal, tf.zeros_like(turned), turned / gaps)
            inner = tf.linalg.diag(checked) + turned
            return _lower(vectors @ tf.matmul(inner, vectors, adjoint_b=True))

        return list(tf.raw_ops.SelfAdjointEigV2(input=a, compute_v=True)), gradient

    @_tf_private.custom_gradient
    def alone(a: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(of_values: tf.Tensor) -> tf.Tensor:
            _, vectors = both(a)
            scaled = vectors * of_values[..., None, :]
            return _lower(tf.matmul(scaled, vectors, adjoint_b=True))

        return tf.raw_ops.SelfAdjointEigV2(input=a, compute_v=False)[0], gradient

    (a,) = inputs
    if op.get_attr("compute_v"):
        return list(both(a))
    return [alone(a), raw_op(op)([tf.stop_gradient(a)])[1]]


@form("Svd")
def of_any_matrices(op: tf.Operation, inputs: list[Any]) -> list[Any]:
    """Singular values and vectors; where U and V are square, as TensorFlow differentiates them."""

    @_tf_private.custom_gradient
    def both(a: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        def gradient(of_values: tf.Tensor, of_left: tf.Tensor, of_right: tf.Tensor) -> tf.Tensor:
            values, left, right = both(a)
            s = tf.cast(values, a.dtype)[..., None, :]
            turned = [
                tf.matmul(left, of_left, adjoint_a=True),
                tf.matmul(right, of_right, adjoint_a=True),
            ]
            equal = _equal(values)
            checked = _checked(op, equal, turned, of_values)
            # (s_j - s_i)(s_j + s_i), one after the other: squares cancel, and vanish.
            flat = s[..., 0, :]
            ones = tf.ones_like(turned[0])
            less = tf.where(equal, ones, _gaps(flat))
            more = tf.where(equal, ones, flat[..., None, :] + flat[..., :, None])
            u, v = (tf.where(equal, tf.zeros_like(t), t / less / more) for t in turned)
            inner = (u + tf.linalg.adjoint(u)) * s + tf.linalg.matrix_transpose(s) * (
                v + tf.linalg.adjoint(v)
            )
            inner += tf.linalg.diag(tf.cast(checked, a.dtype))
            if a.dtype.is_complex:
                phase = tf.linalg.diag_part(turned[1])
                inner += tf.linalg.diag(
                    tf.math.divide_no_nan((tf.math.conj(phase) - phase) / 2, s[..., 0, :])
                )
            # What leaves the space of the vectors, where the matrix is not square.
            outside = [
                tf.math.divide_no_nan(of - vectors @ turn, s)
                for of, vectors, turn in ((of_left, left, turned[0]), (of_right, right, turned[1]))
            ]
            found = tf.matmul(left @ inner + outside[0], right, adjoint_b=True)
            return found + tf.matmul(left, outside[1], adjoint_b=True)

        return list(tf.raw_ops.Svd(input=a, compute_uv=True, full_matrices=False)), gradient

    @_tf_private.custom_gradient
    def alone(a: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(of_values: tf.Tensor) -> tf.Tensor:
            _, left, right = both(a)
            scaled = left * tf.cast(of_values, a.dtype)[..., None, :]
            return tf.matmul(scaled, right, adjoint_b=True)

        return tf.raw_ops.Svd(input=a, compute_uv=False)[0], gradient

    (a,) = inputs
    if not op.get_attr("compute_uv"):
        return [alone(a), *raw_op(op)([tf.stop_gradient(a)])[1:]]
    return raw_op(op)([a]) if op.get_attr("full_matrices") else list(both(a))


def _lower(of_matrix: tf.Tensor) -> tf.Tensor:
    """A derivative in a symmetric matrix as one in its lower triangle, the one that is read."""
    both = tf.linalg.band_part(of_matrix + tf.linalg.adjoint(of_matrix), -1, 0)
    return tf.linalg.set_diag(both, tf.linalg.diag_part(both) / 2)


def _gaps(values: tf.Tensor) -> tf.Tensor:
    """λ_j - λ_i, `[..., i, j]`."""
    return values[..., None, :] - values[..., :, None]


def _equal(values: tf.Tensor) -> tf.Tensor:
    """Which of `[..., n]` values are the same, boolean `[..., n, n]`; each is so as itself."""
    sizes = tf.abs(values)
    rounding = _ROUNDINGS * np.finfo(sizes.dtype.as_numpy_dtype).eps
    largest = tf.reduce_max(sizes, -1)[..., None, None]
    return tf.abs(_gaps(values)) <= tf.cast(rounding, sizes.dtype) * largest


def _checked(
    op: tf.Operation, equal: tf.Tensor, turned: list[tf.Tensor], of_values: tf.Tensor
) -> tf.Tensor:
    """`of_values`; an error if vectors of equal values are to be turned towards each other.

    Args:
        op: The recorded operation.
        equal: Which values are equal, `[..., n, n]`.
        turned: By how much vectors are to be turned, `[..., n, n]` each.
        of_values: A derivative.
    """
    wanted = tf.add_n([tf.cast(tf.not_equal(t, 0), tf.int32) for t in turned]) > 0
    apart = ~tf.cast(tf.eye(tf.shape(wanted)[-1]), tf.bool)
    fine = ~tf.reduce_any(equal & wanted & apart)
    text = (
        f"The loss depends on the weights through {op.type} ({op.name}) of a matrix with equal "
        "eigenvalues or singular values. There its second derivative, and each one of its vectors, "
        "is not known. Start from a matrix whose values differ, add a small fixed one to it, or "
        "use its trace, determinant or Frobenius norm."
    )
    with tf.control_dependencies([tf.debugging.Assert(fine, [text])]):
        # XLA leaves the assertion out.
        return tf.where(fine, of_values, tf.constant(float("nan"), of_values.dtype))
