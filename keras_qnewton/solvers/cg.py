"""Conjugate gradients, with a matrix or with nothing but its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.registry import register
from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_norm, relative_residual
from keras_qnewton.solvers.staged import StagedSolver
from keras_qnewton.types import Solution


@register("solver", "cg")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class ConjugateGradient(StagedSolver):
    """``A x = b`` by conjugate gradients, for a positive definite A.

    Stops at ``||b - A x|| <= tolerance · ||b||`` (by the recurrence's residual; the one that
    is reported is evaluated afresh), after `max_iterations`, or at a direction p of
    non-positive curvature, ``p^T A p <= 0``: it then returns the iterate so far, or b itself
    if that happens at once, both descent directions for b a gradient (Steihaug 1983, SIAM J.
    Numer. Anal. 20(3), section 2, without the trust region). On an indefinite matrix the
    residual is therefore large, and says so.

    Pure TensorFlow ops: works in a `tf.function`, exports, compiles with XLA. `details` holds
    "iterations" and "negative_curvature", as tensors inside a graph.

    Args:
        tolerance: Relative residual at which to stop. Below about 1e-6 float32 seldom gets.
        max_iterations: Largest number of products with A; None for 2N.

    Raises:
        ValueError: If `tolerance` is not positive or `max_iterations` is below 1.
    """

    name = "cg"

    def __init__(self, tolerance: float = 1e-6, max_iterations: int | None = None):
        if not tolerance > 0:
            raise ValueError(
                f"Argument `tolerance` must be positive. Received: tolerance={tolerance!r}"
            )
        if max_iterations is not None and max_iterations < 1:
            raise ValueError(
                "Argument `max_iterations` must be None or at least 1. "
                f"Received: max_iterations={max_iterations!r}"
            )
        self.tolerance = float(tolerance)
        self.max_iterations = max_iterations

    def init(self, matrix: Any) -> Any:
        """The matrix `[N, N]` itself, as a tensor: there is nothing to prepare."""
        return check_matrix(matrix)

    def compute(self, state: Any, rhs: Any) -> Solution:
        """Solves for `rhs` `[N]`; the residual is evaluated in float64."""
        rhs = check_rhs(rhs, state.shape[0], state.dtype)
        x, details = self._iterate(lambda v: tf.linalg.matvec(state, v), rhs)
        return Solution(x, relative_residual(state, x, rhs), self.name, details)

    def solve_operator(self, matvec: Callable[[Any], Any], rhs: Any) -> Solution:
        """Solves with products only: `matvec` may be a Hessian-vector product.

        Args:
            matvec: From a tensor `[N]` to ``A`` times it, same shape and dtype. It is called
                in the body of a `tf.while_loop`: gradients of a persistent tape recorded
                outside may be taken there.
            rhs: Tensor or array `[N]`, float32 or float64.

        Returns:
            `Solution`; the residual takes one more product, in `rhs`'s dtype, its norms in
            float64.
        """
        rhs = check_rhs(rhs)
        x, details = self._iterate(matvec, rhs)
        return Solution(x, relative_norm(rhs - matvec(x), rhs), self.name, details)

    def _iterate(self, matvec: Callable[[Any], Any], rhs: Any) -> tuple[Any, dict[str, Any]]:
        # In units of max|b|, so that the squares of a small float32 gradient do not underflow.
        largest = tf.reduce_max(tf.abs(rhs))
        unit = tf.where(largest > 0, largest, tf.ones_like(largest))
        b = rhs / unit
        limit = 2 * tf.size(b) if self.max_iterations is None else self.max_iterations
        start = _dot(b, b)
        target = start * self.tolerance**2

        def unfinished(k: Any, x: Any, r: Any, p: Any, rr: Any, stop: Any, negative: Any) -> Any:
            return (rr > target) & ~stop & (k < limit)

        def step(k: Any, x: Any, r: Any, p: Any, rr: Any, stop: Any, negative: Any) -> Any:
            product = tf.ensure_shape(matvec(p), b.shape)
            curvature = _dot(p, product)
            convex = curvature > 0  # False for a NaN, too
            negative = curvature <= 0
            length = rr / tf.where(convex, curvature, tf.ones_like(curvature))
            stuck = tf.where(negative & (k == 0), b, x)
            x = tf.where(convex, x + length * p, stuck)
            r = tf.where(convex, r - length * product, r)
            new_rr = _dot(r, r)
            p = r + (new_rr / rr) * p
            return k + 1, x, r, p, new_rr, ~convex, negative

        state = (0, tf.zeros_like(b), b, b, start, False, False)
        k, x, _, _, _, _, negative = tf.while_loop(
            unfinished, step, tuple(tf.convert_to_tensor(value) for value in state)
        )
        if tf.executing_eagerly():
            k, negative = int(k), bool(negative)
        return x * unit, {"iterations": k, "negative_curvature": negative}

    def get_config(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "max_iterations": self.max_iterations}


def _dot(a: Any, b: Any) -> Any:
    return tf.reduce_sum(a * b)
