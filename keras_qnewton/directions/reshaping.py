"""A block's system made sparser and better conditioned, as far as that pays and is safe.

The policy (`scheduling.reshape`) says what may be tried and at which error; the scheduler, what
each (d, ε) would cost. For d, all entries up to a magnitude are dropped, the smallest that leaves
no row more than d: symmetric as it is, and no search, where matching keeps more of the rows whose
entries are small (`conditioning.prune`). Finding out takes, on this machine: a sort of the block's
entries once; at each λ ten products for each d that the sort has not ruled out; one product for
the check. Where a system is solved here in the end, that is more than it saves: it pays for a route
whose price depends on κ and d.

The check is as rigorous as its σ, which is λ for positive semidefinite curvature (up to rounding),
and Lanczos' lower bound of the smallest eigenvalue otherwise: one that the process has not found
yet can be below.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import extremal_eigenvalues
from keras_qnewton.directions.spectrum import row_nonzeros
from keras_qnewton.scheduling import Reshape, Scheduler

_LANCZOS_STEPS = 10


class Trade(NamedTuple):
    """What a system is replaced by; scalars, float64 but for `pruned`.

    Attributes:
        pruned: Number of the row limit, from 1; 0 for the matrix as it is. int32.
        shift: ε.
        condition_number: κ(Â), an upper bound.
        sparsity: d of Â.
        better: Whether it is predicted to take less time than A, bool.
    """

    pruned: tf.Tensor
    shift: tf.Tensor
    condition_number: tf.Tensor
    sparsity: tf.Tensor
    better: tf.Tensor


class Candidates(NamedTuple):
    """A block, and up to which magnitude its entries are dropped for each row limit.

    Attributes:
        matrix: H `[N, N]`, float64, symmetric.
        sparsity: d of H + s I, scalar float64.
        thresholds: Float64, one a row limit.
        least_drops: Lower bounds of ‖Δ‖₂, likewise.
    """

    matrix: tf.Tensor
    sparsity: tf.Tensor
    thresholds: tf.Tensor
    least_drops: tf.Tensor


class Reshaping:
    """Finds what a system is worth replacing by.

    Args:
        policy: Says what may be tried and at which error.
        scheduler: Prices it.
    """

    def __init__(self, policy: Reshape, scheduler: Scheduler):
        self._policy, self._scheduler = policy, scheduler

    def init(self, matrix: tf.Tensor, sparsity: tf.Tensor) -> Candidates:
        """Sorts the block's entries: once for all λ.

        Args:
            matrix: H `[N, N]`, float64, symmetric.
            sparsity: d of H + s I, scalar float64.
        """
        limits = self._policy.row_limits(int(matrix.shape[0]))
        return Candidates(matrix, sparsity, *_thresholds(matrix, limits))

    def pick(
        self, block: Candidates, smallest: tf.Tensor, largest: tf.Tensor, kappa: tf.Tensor
    ) -> Trade:
        """The (d, ε) within the bound that is predicted to take the least time.

        Args:
            block: From `init`.
            smallest: σ, a lower bound of the eigenvalues of A, float64.
            largest: An upper bound of them.
            kappa: κ(A), what A itself is priced with.
        """
        policy, size = self._policy, int(block.matrix.shape[0])
        zero = tf.zeros([], tf.float64)
        dropped, sparsities = [zero], [block.sparsity]
        for k in range(int(block.thresholds.shape[0])):
            hopeful = block.least_drops[k] <= policy.largest_drop(smallest)
            drop, d = _tf_private.cond(hopeful, functools.partial(_dropped, block, k), _hopeless)
            dropped.append(drop)
            sparsities.append(d)
        rows = []
        for k, (drop, d) in enumerate(zip(dropped, sparsities, strict=True)):
            shifts = policy.shifts_for(smallest, drop)
            bounds = policy.error_bound(smallest, drop, shifts)
            kappas = (largest + drop + shifts) / (smallest - drop + shifts)
            kappas = tf.where(
                tf.equal(drop, 0) & tf.equal(shifts, 0), tf.fill(tf.shape(shifts), kappa), kappas
            )
            ones = tf.ones_like(shifts)
            rows.append(tf.stack([k * ones, shifts, kappas, d * ones, bounds], 1))
        candidates = tf.concat(rows, 0)
        seconds = tf.map_fn(
            functools.partial(self._seconds, size), candidates, fn_output_signature=tf.float64
        )
        infinity = tf.constant(float("inf"), tf.float64)
        allowed = candidates[:, 4] <= policy.bound
        seconds = tf.where(allowed & ~tf.math.is_nan(seconds), seconds, infinity)
        best = tf.argmin(seconds)  # the first of equals: nothing is traded for nothing
        row = candidates[best]
        return Trade(tf.cast(row[0], tf.int32), row[1], row[2], row[3], (best > 0) & (smallest > 0))

    def system(self, block: Candidates, trade: Trade, shift: tf.Tensor) -> tf.Tensor:
        """Â = prune(H) + (s + ε) I."""
        zero = tf.zeros([1], tf.float64)
        matrix = _above(block.matrix, tf.concat([zero, block.thresholds], 0)[trade.pruned])
        return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift + trade.shift)

    @property
    def bound(self) -> float:
        """The largest relative error of the step."""
        return self._policy.bound

    def checked_error(self, smallest: tf.Tensor, gap: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """An upper bound of x̂'s relative error; see `Reshape.checked_error`."""
        return self._policy.checked_error(smallest, gap, x)

    def _seconds(self, size: int, candidate: tf.Tensor) -> tf.Tensor:
        """What the route that would be chosen is predicted to take."""
        index, predicted, _ = self._scheduler.choose_index(
            size, candidate[2], candidate[3], definite=True
        )
        return tf.gather(predicted, index)


def _above(matrix: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """`matrix` without its entries up to `threshold`, but for the diagonal."""
    kept = tf.where(tf.abs(matrix) > threshold, matrix, 0.0)
    return tf.linalg.set_diag(kept, tf.linalg.diag_part(matrix))


def _dropped(block: Candidates, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """δ and d of one row limit."""
    pruned = _above(block.matrix, block.thresholds[k])
    dropped = block.matrix - pruned
    ends = extremal_eigenvalues(dropped, iterations=_LANCZOS_STEPS)
    norm = tf.maximum(
        tf.abs(ends.lambda_min) + ends.residual_min,
        tf.abs(ends.lambda_max) + ends.residual_max,
    )
    # ‖Δ‖₂ ≤ ‖Δ‖_F and, for symmetric Δ, ≤ ‖Δ‖_∞.
    row_sum = tf.reduce_max(tf.reduce_sum(tf.abs(dropped), axis=1))
    norm = tf.reduce_min([norm, row_sum, tf.norm(dropped)])
    return norm, row_nonzeros(pruned, shifted=True)


def _hopeless() -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(float("inf"), tf.float64), tf.constant(1.0, tf.float64)


def _thresholds(matrix: tf.Tensor, limits: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """By row limit, float64 `[C]` each: below which entries are dropped, and how much that is.

    The first leaves at most d in a row, of which one is the diagonal. The second is a lower bound
    of ‖Δ‖₂ whichever entries are kept: a row that keeps d of its entries drops at least all but the
    largest d, and no row of Δ is longer than ‖Δ‖₂.
    """
    if not limits:
        return tf.zeros([0], tf.float64), tf.zeros([0], tf.float64)
    size = int(matrix.shape[0])
    ascending = tf.sort(tf.abs(tf.linalg.set_diag(matrix, tf.zeros_like(matrix[0]))), axis=1)
    return (
        tf.stack([tf.reduce_max(ascending[:, size - d]) for d in limits]),
        tf.stack([tf.reduce_max(tf.norm(ascending[:, : size - d], axis=1)) for d in limits]),
    )
