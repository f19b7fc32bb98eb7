"""A positive definite system: factorised in float32, solved to float64's residuals.

    U^T U ≈ A + sI     float32, half the time and the memory of float64
    x += (U^T U)^-1 (b - (A + sI) x)     residual and x in float64, until it is small

Each step shrinks the residual by about κ·2⁻²⁴ (Higham 2002, Accuracy and Stability of Numerical
Algorithms, section 12.2): beyond κ of some 1e6 that does not converge, and the caller has to
factorise in float64. Of a large matrix the residuals are computed some rows at a time: it is not
held in float64, and what is factorised of it leaves out rows of zeros, of which the solution is
b / s: those of pixels that are always black and of units that never fire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.solvers.blocked_cholesky import (
    BlockedFactor,
    blocked_cholesky,
    blocked_cholesky_solve,
)
from keras_qnewton.solvers.checks import relative_norm

# Rows of a large matrix that are in float64 at a time: few enough to stay in the cache, or a
# product takes twice as long.
_ROWS, _LARGE = 32, 2048
_MOST_STEPS = 8
# Of a large matrix the smallest of these sixteenths is factorised that has all rows but zeros:
# each takes about half the work of the next. More of them are more to trace.
_SIXTEENTHS = (10, 13, 16)


# From a function that factorises A + sI in float32 to what it returns, or once returned.
KeepFactor = Callable[[Callable[[], BlockedFactor]], BlockedFactor]


def mixed_cholesky(
    matrix: Any,
    shift: Any,
    rhs: Any,
    tolerance: float,
    keep: KeepFactor = lambda factorised: factorised(),
) -> tuple[Any, Any]:
    """``(A + sI)^-1 b``.

    Args:
        matrix: A `[N, N]`, float32 or float64, symmetric and positive semidefinite; N is known when
            tracing.
        shift: s, float64 scalar.
        rhs: b `[N]`, float64.
        tolerance: Refines until ``||(A + sI) x - b|| <= tolerance ||b||``, or no further.
        keep: Spares what was factorised before; not asked for a large matrix.

    Returns:
        x `[N]`, float64, and its relative residual, float64 scalar: above `tolerance` or NaN
        where a factor in float32 does not do.
    """
    size = int(matrix.shape[0])
    single, small = tf.cast(matrix, tf.float32), tf.cast(shift, tf.float32)

    def solved(factor: BlockedFactor, gathered: Any, scattered: Any) -> tuple[Any, Any]:

        def apply_inverse(vector: Any) -> Any:
            return scattered(blocked_cholesky_solve(factor, gathered(vector)), vector)

        # Rather beside the factorisation than before it.
        with tf.control_dependencies([factor.diagonal[0]]):
            product = _product_with(matrix)
        x, residual = _refined(apply_inverse, product, shift, rhs, tolerance)
        return x, tf.where(factor.definite, residual, tf.constant(float("nan"), tf.float64))

    def as_it_is() -> tuple[Any, Any]:
        factor = factorised() if size > _LARGE else keep(factorised)
        return solved(factor, lambda vector: vector, lambda x, _: x)

    def factorised() -> BlockedFactor:
        return blocked_cholesky(single, small)

    if size <= _LARGE:
        return as_it_is()
    # A semidefinite matrix with a zero on its diagonal has zeros in all of that row.
    zero = tf.equal(tf.linalg.diag_part(matrix), 0)
    order = tf.argsort(tf.cast(zero, tf.int32), stable=True)
    count = size - tf.math.count_nonzero(zero, dtype=tf.int32)

    def without_zeros(kept: int) -> tuple[Any, Any]:
        rows = order[:kept]

        def scattered(x: Any, vector: Any) -> Any:
            return tf.tensor_scatter_nd_update(vector / small, rows[:, None], x)

        factor = blocked_cholesky(single, small, rows)
        return solved(factor, lambda vector: tf.gather(vector, rows), scattered)

    sizes = [-(-size * part // 16) for part in _SIXTEENTHS]
    return tf.switch_case(
        tf.searchsorted(sizes, [count])[0],
        [*(lambda kept=kept: without_zeros(kept) for kept in sizes[:-1]), as_it_is],
    )


def _refined(
    apply_inverse: Callable[[Any], Any],
    product: Callable[[Any], Any],
    shift: Any,
    rhs: Any,
    tolerance: float,
) -> tuple[Any, Any]:
    """x and its relative residual, from an inverse in float32 and v -> A v in float64."""

    def residual_of(x: Any) -> tuple[Any, Any]:
        gap = rhs - (product(x) + shift * x)
        return gap, relative_norm(gap, rhs)

    def unfinished(step: Any, _x: Any, _gap: Any, residual: Any, last: Any) -> Any:
        # A NaN ends it.
        return (step == 0) | (
            (step < _MOST_STEPS) & (residual > tolerance) & (residual < 0.5 * last)
        )

    def refine(step: Any, x: Any, gap: Any, residual: Any, _last: Any) -> tuple[Any, ...]:
        # Scaled, so that small residuals do not underflow.
        scale = tf.reduce_max(tf.abs(gap))
        scaled = tf.cast(tf.math.divide_no_nan(gap, scale), tf.float32)
        x += scale * tf.ensure_shape(tf.cast(apply_inverse(scaled), tf.float64), x.shape)
        gap, following = residual_of(x)
        return step + 1, x, gap, following, residual

    one = tf.ones([], tf.float64)
    _, x, _, residual, _ = tf.while_loop(
        unfinished,
        refine,
        (tf.constant(0), tf.zeros_like(rhs), rhs, one, one),
        parallel_iterations=1,
    )
    return x, residual


def _product_with(matrix: Any) -> Callable[[Any], Any]:
    """v -> A v in float64."""
    size = int(matrix.shape[0])
    if size <= _LARGE:
        double = tf.cast(matrix, tf.float64)
        return lambda vector: tf.linalg.matvec(double, vector)
    count = -(-size // _ROWS)

    def product(vector: Any) -> Any:
        def some(index: Any) -> Any:
            # The last rows overlap with those before: all pieces have one shape.
            start = tf.minimum(index * _ROWS, size - _ROWS)
            rows = tf.cast(tf.slice(matrix, [start, 0], [_ROWS, size]), tf.float64)
            return tf.linalg.matvec(rows, vector)

        pieces = tf.map_fn(
            some,
            tf.range(count),
            fn_output_signature=tf.TensorSpec([_ROWS], tf.float64),
            parallel_iterations=2,
        )
        head = tf.reshape(pieces[:-1], [-1])
        return tf.concat([head, pieces[-1, (count * _ROWS - size) :]], 0)

    return product
