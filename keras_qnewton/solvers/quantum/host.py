"""The one host call through which a TensorFlow graph reaches a quantum backend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_qnewton.solvers.arrays import Scalar, TensorLike


def host_solve(
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    matrix: tf.Tensor,
    rhs: tf.Tensor,
    solver: str,
) -> tf.Tensor:
    """Calls `solve` on the host from inside a graph; a failure is a NaN solution.

    Whatever `solve` raises (out of memory, a degree beyond the limit, a backend that is not
    there) becomes a vector of NaN and a `RuntimeWarning` with the error: an exception would
    end a training run that has other routes to take.

    Args:
        solve: From float64 arrays `[N, N]` and `[N]` to the solution `[N]`.
        matrix: Tensor `[N, N]`.
        rhs: Tensor `[N]`.
        solver: Name for the warning.

    Returns:
        Tensor `[N]`, dtype and static shape of `rhs`.
    """
    return host_call(solve, [matrix, rhs], rhs, solver)


def host_call(
    solve: Callable[..., np.ndarray], given: Sequence[TensorLike], like: tf.Tensor, solver: str
) -> tf.Tensor:
    """`host_solve` of any arguments.

    Args:
        solve: From float64 arrays, one for each of `given`, to the solution `[N]`.
        given: Tensors or numbers.
        like: A tensor `[N]` whose dtype and static shape the solution has.
        solver: Name for the warning.
    """

    def call(shape: np.ndarray, *numbers: np.ndarray) -> np.ndarray:
        return _guarded(lambda: (solve(*numbers), 0.0), np.empty(shape), solver)[0]

    numbers = [tf.cast(tf.convert_to_tensor(v, dtype_hint=tf.float64), tf.float64) for v in given]
    x = tf.numpy_function(call, [tf.shape(like), *numbers], tf.float64)
    return tf.cast(tf.ensure_shape(x, like.shape), like.dtype)


def host_solve_from(
    solve: Callable[
        [np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, tuple[float, float]]
    ],
    matrix: tf.Tensor,
    rhs: tf.Tensor,
    lengths: TensorLike,
    tolerance: Scalar,
    solver: str,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`host_solve` for a solver that is told lengths of solutions; see `types.CarryingSolver`.

    Args:
        solve: From float64 arrays `[N, N]`, `[N]` and `[2]`, and a tolerance, to the solution `[N]`
            and its lengths.
        matrix: Tensor `[N, N]`.
        rhs: Tensor `[N]`.
        lengths: Float64 `[2]`.
        tolerance: A number or a scalar tensor.
        solver: Name for the warning.

    Returns:
        Solution `[N]` of the dtype and static shape of `rhs`, and lengths, float64 `[2]`: zeros of
        a failure.
    """

    def call(
        matrix: np.ndarray, rhs: np.ndarray, lengths: np.ndarray, tolerance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        left = [(0.0, 0.0)]

        def answer() -> tuple[np.ndarray, float]:
            x, found = solve(matrix, rhs, lengths, float(tolerance))
            left.append(found)
            return x, 0.0

        return _guarded(answer, rhs, solver)[0], np.asarray(left[-1], np.float64)

    given = [tf.cast(value, tf.float64) for value in (matrix, rhs, lengths)]
    asked = tf.cast(tf.convert_to_tensor(tolerance, dtype_hint=tf.float64), tf.float64)
    x, left = tf.numpy_function(call, [*given, asked], [tf.float64, tf.float64])
    return tf.cast(tf.ensure_shape(x, rhs.shape), rhs.dtype), tf.ensure_shape(left, [2])


def host_solve_absolute(
    solve: Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, float]],
    matrix: tf.Tensor,
    rhs: tf.Tensor,
    damping: tf.Tensor,
    solver: str,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`host_solve` for a solver that takes a λ and knows its own residual.

    Args:
        solve: From float64 arrays `[N, N]` and `[N]`, and λ, to the solution `[N]` and its
            residual.
        matrix: Tensor `[N, N]`.
        rhs: Tensor `[N]`.
        damping: Scalar tensor.
        solver: Name for the warning.

    Returns:
        Solution `[N]` of the dtype and static shape of `rhs`, residual as a float64 scalar.
    """

    def call(
        matrix: np.ndarray, rhs: np.ndarray, damping: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return _guarded(lambda: solve(matrix, rhs, float(damping)), rhs, solver)

    arguments = [tf.cast(value, tf.float64) for value in (matrix, rhs, damping)]
    x, residual = tf.numpy_function(call, arguments, [tf.float64, tf.float64])
    return tf.cast(tf.ensure_shape(x, rhs.shape), rhs.dtype), tf.ensure_shape(residual, [])


def _guarded(
    answer: Callable[[], tuple[np.ndarray, float]], rhs: np.ndarray, solver: str
) -> tuple[np.ndarray, np.ndarray]:
    """The x and the residual that `answer` gives, or NaN and a warning."""
    try:
        x, residual = answer()
        x = np.asarray(x, np.float64)
        if x.shape != rhs.shape:
            raise ValueError(f"a solution of shape {x.shape} for a rhs of {rhs.shape}")
        return x, np.asarray(residual, np.float64)
    except Exception as error:
        _warn(f"Solver {solver!r} failed, its solution is NaN: {type(error).__name__}: {error}")
        return np.full(rhs.shape, np.nan), np.asarray(np.nan)


def _warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        # Under `-W error` the warning itself would be the exception that ends the graph.
        logging.getLogger("keras_qnewton").error(message)
