"""Depth of a circuit for damped least squares, without building it, in TensorFlow operations.

    depth = d · U + (d + 1) · P + 2,     d = 2 ⌈arcosh(1/ε) / 2 asinh μ⌉ - 2,  μ = √λ/α

    encoding    U, layers of one call, for r rows and N columns in r' = 2^a, N' = 2^b, n = max(a, b)
    dilation    k (2·2^n - k - 1) (6 + 22 ⌈log₂(n - 1)⌉) + 2·2^n - 1 - 4 q,  k = min(r, N),
                q = min(k, p) + min(k, p + 1), p = ⌊2·2^n/3⌋; 6 for n = 1
    frobenius   2 r' N' - a - b + 2

d is one more from residuals. All are exact; P is as in `circuit_depth`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.solvers.arrays import Scalar
from keras_qnewton.solvers.quantum.circuit_depth import float64, projector_layers, qubits
from keras_qnewton.solvers.quantum.encodings.rectangular import RECTANGULAR


class Shape(NamedTuple):
    """Of U: ints or scalar tensors.

    Attributes:
        rows: r.
        columns: N.
    """

    rows: Scalar
    columns: Scalar


def damped_depth(
    encoding: str, shape: Shape, damping: Scalar, epsilon: Scalar, from_residuals: bool = False
) -> tf.Tensor:
    """Layers of one run without the preparation of its right-hand side, scalar float64.

    Args:
        encoding: A key of `encodings.rectangular.RECTANGULAR`.
        shape: Of U.
        damping: μ = √λ/α, a number or a scalar tensor; α is ‖U‖₂ or ‖U‖_F.
        epsilon: Of the polynomial, relative.
        from_residuals: Whether the run starts from |r⟩ in place of |g⟩.

    Raises:
        ValueError: For another encoding.
    """
    if encoding not in RECTANGULAR:
        raise ValueError(
            f"Argument `encoding` must be one of {', '.join(map(repr, RECTANGULAR))}. "
            f"Received: encoding={encoding!r}"
        )
    a, b = qubits(shape.rows), qubits(shape.columns)
    n = tf.maximum(a, b)
    two = tf.constant(2.0, tf.float64)
    if encoding == "dilation":
        smaller = tf.minimum(float64(shape.rows), float64(shape.columns))
        query, ancillas = _dilation(n, tf.pow(two, n), smaller), tf.ones_like(n)
    else:
        query, ancillas = 2 * tf.pow(two, a + b) - a - b + 2, n
    degree = damped_degree(damping, epsilon) + (1.0 if from_residuals else 0.0)
    return degree * query + (degree + 1) * projector_layers(ancillas) + 2


def damped_degree(damping: Scalar, epsilon: Scalar) -> tf.Tensor:
    """`damped_polynomial.damped_degree`, scalar float64."""
    needed = (
        tf.math.acosh(1 / float64(epsilon)) / (2 * tf.math.asinh(float64(damping))) * (1 - 1e-12)
    )
    return 2 * tf.maximum(tf.math.ceil(needed), 2.0) - 2


def _dilation(n: tf.Tensor, size: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    kept = tf.minimum(kept, size)
    levels = tf.math.ceil(tf.math.log(tf.maximum(n - 1, 1.0)) / math.log(2.0) - 1e-9)
    # The place of 1…1 in the Gray code, next to which no control is on 0.
    place = tf.math.floor(2 * size / 3)
    without_zeros = tf.minimum(kept, place) + tf.minimum(kept, place + 1)
    rotations = kept * (2 * size - kept - 1)
    many = rotations * (6 + 22 * levels) + 2 * size - 1 - 4 * without_zeros
    return tf.where(n < 2, tf.constant(6.0, tf.float64), many)
