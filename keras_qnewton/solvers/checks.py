"""Checks that every solver makes of its input, and the measure of every solver's answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_qnewton.norms import plain_norm
from keras_qnewton.solvers.arrays import Scalar, TensorLike
from keras_qnewton.solvers.scaling import unit_of
from keras_qnewton.traced_once import traced_once

# A Hessian accumulated in float32 is symmetric to about 1e-6 of its largest entry; a matrix
# further off than this is a mistake (a Jacobian, a wrong reshape), not rounding.
_ASYMMETRY = 1e-4


def passes(residual: Scalar, tolerance: Scalar) -> tf.Tensor:
    """Whether ``residual <= tolerance``. NaN does not pass, on either side.

    Args:
        residual: A number, or a scalar tensor.
        tolerance: A number, or a scalar tensor of that dtype.

    Returns:
        A bool for two numbers, else a scalar bool tensor.
    """
    return residual <= tolerance


@traced_once
def relative_norm(gap: TensorLike, rhs: TensorLike) -> tf.Tensor:
    """``||gap|| / ||rhs||`` in float64; 0 when `gap` is zero, whatever `rhs` is.

    Both norms are taken after division by ``max|rhs|``, so that gradients as small as
    1e-200 neither underflow nor read as zero.

    Args:
        gap: Tensor `[N]`, any floating dtype.
        rhs: Tensor `[N]`, any floating dtype.

    Returns:
        Scalar float64 tensor. Inf for a non-zero gap of a zero `rhs`; NaN if the gap has one. Of a
        `rhs` that is not finite it says nothing.
    """
    return relative_to(tf.cast(rhs, tf.float64))(tf.cast(gap, tf.float64))


def relative_to(rhs: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """`relative_norm` of gaps, as a function of them: what is of `rhs` alone is found once.

    Args:
        rhs: Tensor `[N]`, float64.

    Returns:
        From a gap `[N]`, float64, to its norm over that of `rhs`, float64 scalar.
    """
    largest = tf.reduce_max(tf.abs(rhs))
    unit = tf.where(largest > 0, largest, tf.ones_like(largest))
    denominator = plain_norm(rhs / unit)

    def relative(gap: tf.Tensor) -> tf.Tensor:
        numerator = plain_norm(gap / unit)
        return tf.where(numerator > 0, numerator / denominator, numerator)

    return relative


def relative_residual(matrix: TensorLike, x: TensorLike, rhs: TensorLike) -> tf.Tensor:
    """``||A x - b|| / ||b||``, evaluated in float64 whatever the dtypes.

    Args:
        matrix: Tensor or array `[N, N]`.
        x: Tensor or array `[N]`.
        rhs: Tensor or array `[N]`.

    Returns:
        Scalar float64 tensor; 0 for a zero `rhs` solved by a zero `x`.
    """
    x, rhs = tf.cast(x, tf.float64), tf.cast(rhs, tf.float64)
    # In units of b: TensorFlow takes subnormal numbers, as gaps of a small b are, for zero.
    unit = unit_of(rhs)
    product = tf.linalg.matvec(tf.cast(matrix, tf.float64), x / unit)
    return relative_norm(product - rhs / unit, rhs / unit)


def check_matrix(matrix: TensorLike) -> tf.Tensor:
    """`matrix` as a tensor, once it has been found fit for a symmetric solver.

    Shape and dtype are always checked, as far as they are static; finiteness and symmetry
    only eagerly, where the values are at hand. Inside a `tf.function` a matrix with a NaN
    must not raise: it ends in a NaN residual, which the caller rejects.

    Raises:
        ValueError: If `matrix` is not `[N, N]`, float32 or float64, finite and symmetric.
    """
    matrix = tf.convert_to_tensor(matrix)
    shape = matrix.shape
    square = shape.rank == 2 and shape[0] != 0 and shape[:1].is_compatible_with(shape[1:])
    if shape.rank is not None and not square:
        raise ValueError(_message("matrix", "square, of shape [N, N] with N >= 1", matrix))
    _check_dtype("matrix", matrix)
    if tf.executing_eagerly():
        values = matrix.numpy()
        _check_finite("matrix", matrix, values)
        asymmetry = np.max(np.abs(values - values.T))
        if asymmetry > _ASYMMETRY * np.max(np.abs(values)):
            raise ValueError(
                _message("matrix", "symmetric", matrix) + f" with max|A - A^T| = {asymmetry:.3g}"
            )
    return matrix


def check_rhs(rhs: TensorLike, size: int | None = None, dtype: tf.DType | None = None) -> tf.Tensor:
    """`rhs` as a tensor `[N]`, once it has been found to fit the matrix.

    Args:
        rhs: Tensor, array or list `[N]`.
        size: N, when it is known.
        dtype: The matrix's dtype, when there is a matrix.

    Raises:
        ValueError: If `rhs` is not `[N]`, of the matrix's dtype, or (eagerly) not finite.
    """
    # The hint is for lists; of an array it would silently change the dtype.
    rhs = tf.convert_to_tensor(rhs, dtype_hint=None if hasattr(rhs, "dtype") else dtype)
    if rhs.shape.rank is not None and not rhs.shape.is_compatible_with([size]):
        shape = "[N]" if size is None else f"[{size}]"
        raise ValueError(_message("rhs", f"a vector of shape {shape}", rhs))
    _check_dtype("rhs", rhs)
    if dtype is not None and rhs.dtype != dtype:
        raise ValueError(_message("rhs", f"{tf.as_dtype(dtype).name}, like `matrix`", rhs))
    if tf.executing_eagerly():
        _check_finite("rhs", rhs, rhs.numpy())
    return rhs


def validate(matrix: TensorLike, rhs: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
    """Both sides of the system as tensors; see `check_matrix` and `check_rhs`."""
    matrix = check_matrix(matrix)
    return matrix, check_rhs(rhs, matrix.shape[0], matrix.dtype)


def _check_dtype(argument: str, tensor: tf.Tensor) -> None:
    if tensor.dtype not in (tf.float32, tf.float64):
        raise ValueError(_message(argument, "float32 or float64", tensor))


def _check_finite(argument: str, tensor: tf.Tensor, values: np.ndarray) -> None:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(
            _message(argument, "finite", tensor) + f" with {bad} NaN or Inf in {values.size}"
        )


def _message(argument: str, requirement: str, tensor: tf.Tensor) -> str:
    return (
        f"Argument `{argument}` must be {requirement}. "
        f"Received: {argument} of shape {tensor.shape} and dtype {tensor.dtype.name}"
    )
