"""A positive definite system: factorised in float32, solved to float64's residuals.

    U^T U ≈ A + sI     float32, half the time and the memory of float64
    x += (U^T U)^-1 (b - (A + sI) x)     residual and x in float64, until it is small

Each step shrinks the residual by about κ·2⁻²⁴ (Higham 2002, Accuracy and Stability of Numerical
Algorithms, section 12.2): beyond κ of some 1e6 that does not converge, and the caller has to
factorise in float64. A large matrix is not cast to float64 as a whole: its residuals are computed
some rows at a time. Nor is all of it factorised: rows of zeros (pixels that are always black, units
that never fire) are left out, since the solution is b / s there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.solvers.blocked_cholesky import (
    BlockedFactor,
    blocked_cholesky,
    blocked_cholesky_solve,
)
from keras_qnewton.solvers.checks import relative_norm

# N above which a matrix is large.
_LARGE = 2048
# Rows of a large matrix that are in float64 at a time: with more, which leave the cache, a product
# takes twice as long.
_ROWS = 32
_MAX_STEPS = 8
# Drop zero rows; pad the rest to the smallest sufficient sixteenth of N. Each of these takes about
# half the work of the next; more of them are more to trace.
_SIXTEENTHS = (10, 13, 16)


# From a function that factorises A + sI in float32 to its result, computed now or before.
FactorReuse = Callable[[Callable[[], BlockedFactor]], BlockedFactor]


class _Iterate(NamedTuple):
    """The state of the refinement.

    Attributes:
        step: Number of refinements so far, int32.
        x: The iterate `[N]`, float64.
        gap: ``b - (A + sI) x``.
        residual: Its relative size, float64.
        last: That of the iterate before.
    """

    step: tf.Tensor
    x: tf.Tensor
    gap: tf.Tensor
    residual: tf.Tensor
    last: tf.Tensor


def mixed_cholesky(
    matrix: tf.Tensor,
    shift: tf.Tensor,
    rhs: tf.Tensor,
    tolerance: float,
    reuse: FactorReuse = lambda factorised: factorised(),
    large: int = _LARGE,
) -> tuple[tf.Tensor, tf.Tensor]:
    """``(A + sI)^-1 b``.

    Args:
        matrix: A `[N, N]`, float32 or float64, symmetric and positive semidefinite; N is known when
            tracing.
        shift: s, float64 scalar.
        rhs: b `[N]`, float64.
        tolerance: Refines until ``||(A + sI) x - b|| <= tolerance ||b||``, or no further.
        reuse: Called with the factorisation of a matrix that is not large: runs it, or returns
            the factor of a run before.
        large: N above which rows of zeros are left out, and products made some rows at a time.

    Returns:
        x `[N]`, float64, and its relative residual, float64 scalar: above `tolerance` or NaN
        where a factor in float32 does not do.
    """
    size = int(matrix.shape[0])
    single, small = tf.cast(matrix, tf.float32), tf.cast(shift, tf.float32)

    def solved(
        factor: BlockedFactor,
        gathered: Callable[[tf.Tensor], tf.Tensor],
        scattered: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """By a factor of some rows: those that `gathered` takes, and `scattered` puts back."""

        def apply_inverse(vector: tf.Tensor) -> tf.Tensor:
            return scattered(blocked_cholesky_solve(factor, gathered(vector)), vector)

        # After the factorisation, which does not wait for the copy in double precision.
        with tf.control_dependencies([factor.diagonal[0]]):
            product = _product_by_rows(matrix) if size > large else _product(matrix)
        x, residual = _refined(apply_inverse, product, shift, rhs, tolerance)
        return x, tf.where(factor.definite, residual, tf.constant(float("nan"), tf.float64))

    def whole() -> tuple[tf.Tensor, tf.Tensor]:
        factor = factorised() if size > large else reuse(factorised)
        return solved(factor, lambda vector: vector, lambda x, _: x)

    def factorised() -> BlockedFactor:
        return blocked_cholesky(single, small)

    if size <= large:
        return whole()
    # A semidefinite matrix with a zero on its diagonal has zeros in all of that row.
    zero = tf.equal(tf.linalg.diag_part(matrix), 0)
    order = tf.argsort(tf.cast(zero, tf.int32), stable=True)
    count = size - tf.math.count_nonzero(zero, dtype=tf.int32)

    def without_zeros(live: int) -> tuple[tf.Tensor, tf.Tensor]:
        rows = order[:live]

        def scattered(x: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
            return tf.tensor_scatter_nd_update(vector / small, rows[:, None], x)

        factor = blocked_cholesky(single, small, rows)
        return solved(factor, lambda vector: tf.gather(vector, rows), scattered)

    sizes = [-(-size * part // 16) for part in _SIXTEENTHS]
    return tf.switch_case(
        tf.searchsorted(sizes, [count])[0],
        [*(lambda live=live: without_zeros(live) for live in sizes[:-1]), whole],
    )


def _refined(
    apply_inverse: Callable[[tf.Tensor], tf.Tensor],
    product: Callable[[tf.Tensor], tf.Tensor],
    shift: tf.Tensor,
    rhs: tf.Tensor,
    tolerance: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """x and its relative residual, from an inverse in float32 and v -> A v in float64."""

    def residual_of(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gap = rhs - (product(x) + shift * x)
        return gap, relative_norm(gap, rhs)

    def unfinished(at: _Iterate) -> tf.Tensor:
        # A NaN, which exceeds nothing, ends it.
        return (at.step == 0) | (
            (at.step < _MAX_STEPS) & (at.residual > tolerance) & (at.residual < 0.5 * at.last)
        )

    def refine(at: _Iterate) -> tuple[_Iterate]:
        # Scaled, so that small residuals do not underflow.
        scale = tf.reduce_max(tf.abs(at.gap))
        scaled = tf.cast(tf.math.divide_no_nan(at.gap, scale), tf.float32)
        change = scale * tf.ensure_shape(tf.cast(apply_inverse(scaled), tf.float64), at.x.shape)
        x = at.x + change
        gap, residual = residual_of(x)
        return (_Iterate(at.step + 1, x, gap, residual, at.residual),)

    one = tf.ones([], tf.float64)
    (last,) = tf.while_loop(
        unfinished,
        refine,
        (_Iterate(tf.constant(0), tf.zeros_like(rhs), rhs, one, one),),
        parallel_iterations=1,
    )
    return last.x, last.residual


def _product(matrix: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """v -> A v in float64."""
    double = tf.cast(matrix, tf.float64)
    return lambda vector: tf.linalg.matvec(double, vector)


def _product_by_rows(matrix: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """v -> A v in float64, of which A holds only `_ROWS` rows at a time."""
    size = int(matrix.shape[0])
    count = -(-size // _ROWS)

    def product(vector: tf.Tensor) -> tf.Tensor:
        def piece(index: tf.Tensor) -> tf.Tensor:
            # The last rows overlap with those before: all pieces have one shape.
            start = tf.minimum(index * _ROWS, size - _ROWS)
            rows = tf.cast(tf.slice(matrix, [start, 0], [_ROWS, size]), tf.float64)
            return tf.linalg.matvec(rows, vector)

        pieces = tf.map_fn(
            piece,
            tf.range(count),
            fn_output_signature=tf.TensorSpec([_ROWS], tf.float64),
            parallel_iterations=2,
        )
        head = tf.reshape(pieces[:-1], [-1])
        return tf.concat([head, pieces[-1, (count * _ROWS - size) :]], 0)

    return product
