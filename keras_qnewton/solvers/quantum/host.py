"""The one host call through which a TensorFlow graph reaches a quantum backend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def host_solve(
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray], matrix: Any, rhs: Any, solver: str
) -> Any:
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

    def call(matrix: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        try:
            x = np.asarray(solve(matrix, rhs), np.float64)
            if x.shape != rhs.shape:
                raise ValueError(f"a solution of shape {x.shape} for a rhs of {rhs.shape}")
            return x
        except Exception as error:
            _warn(f"Solver {solver!r} failed, its solution is NaN: {type(error).__name__}: {error}")
            return np.full(rhs.shape, np.nan)

    x = tf.numpy_function(call, [tf.cast(matrix, tf.float64), tf.cast(rhs, tf.float64)], tf.float64)
    return tf.cast(tf.ensure_shape(x, rhs.shape), rhs.dtype)


def _warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        # Under `-W error` the warning itself would be the exception that ends the graph.
        logging.getLogger("keras_qnewton").error(message)
