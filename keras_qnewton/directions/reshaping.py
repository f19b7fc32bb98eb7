"""A block's system made sparser and better conditioned, as far as that pays and is safe.

The policy (`scheduling.reshape`) says what may be tried and at which error; the scheduler, what
each (d, ε) would cost. Finding out takes, on this machine: a sort of the block's entries once; at
each λ a pruning and ten products for each d that the sort has not ruled out; one product for the
check. Where a system is solved here in the end, that is more than it saves: it pays for a route
whose price depends on κ and d.

The check is as rigorous as its σ, which is λ for positive semidefinite curvature (up to rounding),
and Lanczos' lower bound of the smallest eigenvalue otherwise: one that the process has not found
yet can be below.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import extremal_eigenvalues, prune

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


class Reshaping:
    """The candidates of one block.

    Args:
        matrix: H `[N, N]`, float64, symmetric.
        sparsity: d of H + s I, scalar float64.
        scheduler: With a policy `reshape`.
    """

    def __init__(self, matrix: tf.Tensor, sparsity: tf.Tensor, scheduler: Any):
        self._matrix, self._sparsity, self._scheduler = matrix, sparsity, scheduler
        self._policy = scheduler.reshape
        self._size = int(matrix.shape[0])
        self._limits = self._policy.row_limits(self._size)
        self._least_drops = _least_drops(matrix, self._limits)

    def pick(self, smallest: tf.Tensor, largest: tf.Tensor, kappa: tf.Tensor) -> Trade:
        """The (d, ε) within the bound that is predicted to take the least time.

        Args:
            smallest: σ, a lower bound of the eigenvalues of A, float64.
            largest: An upper bound of them.
            kappa: κ(A), what A itself is priced with.
        """
        policy = self._policy
        nothing = tf.zeros([], tf.float64)
        dropped, sparsities = [nothing], [self._sparsity]
        for k, limit in enumerate(self._limits):
            hopeful = self._least_drops[k] <= policy.largest_drop(smallest)
            drop, d = tf.cond(hopeful, lambda limit=limit: self._pruned(limit), _hopeless)
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
            same = tf.ones_like(shifts)
            rows.append(tf.stack([k * same, shifts, kappas, d * same, bounds], 1))
        candidates = tf.concat(rows, 0)
        seconds = tf.map_fn(self._seconds, candidates, fn_output_signature=tf.float64)
        infinity = tf.constant(float("inf"), tf.float64)
        allowed = candidates[:, 4] <= policy.bound
        seconds = tf.where(allowed & ~tf.math.is_nan(seconds), seconds, infinity)
        best = tf.argmin(seconds)  # the first of equals: nothing is traded for nothing
        row = candidates[best]
        return Trade(tf.cast(row[0], tf.int32), row[1], row[2], row[3], (best > 0) & (smallest > 0))

    def system(self, trade: Trade, shift: tf.Tensor) -> tf.Tensor:
        """Â = prune(H) + (s + ε) I."""
        matrices = [lambda: self._matrix] + [
            lambda limit=limit: prune(self._matrix, limit).matrix for limit in self._limits
        ]
        matrix = tf.switch_case(trade.pruned, matrices)
        return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift + trade.shift)

    def _seconds(self, candidate: tf.Tensor) -> tf.Tensor:
        """What the route that would be chosen is predicted to take."""
        index, predicted, _ = self._scheduler.choose_index(
            self._size, candidate[2], candidate[3], definite=True
        )
        return tf.gather(predicted, index)

    def _pruned(self, limit: int) -> tuple[tf.Tensor, tf.Tensor]:
        """δ and d of one row limit."""
        pruned = prune(self._matrix, limit)
        dropped = self._matrix - pruned.matrix
        ends = extremal_eigenvalues(dropped, iterations=_LANCZOS_STEPS)
        norm = tf.maximum(
            tf.abs(ends.lambda_min) + ends.residual_min,
            tf.abs(ends.lambda_max) + ends.residual_max,
        )
        # The shift fills the diagonal.
        d = tf.math.count_nonzero(pruned.matrix, axis=1, dtype=tf.int32)
        d += tf.cast(tf.equal(tf.linalg.diag_part(pruned.matrix), 0), tf.int32)
        return tf.minimum(norm, pruned.spectral_bound), tf.cast(tf.reduce_max(d), tf.float64)


def _hopeless() -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(float("inf"), tf.float64), tf.constant(1.0, tf.float64)


def _least_drops(matrix: tf.Tensor, limits: tuple[int, ...]) -> tf.Tensor:
    """Lower bounds of ‖Δ‖₂ by row limit, float64 `[C]`, whichever entries are kept.

    A row that keeps d of its entries drops at least all but the largest d, and no row of Δ
    is longer than ‖Δ‖₂. The diagonal is not counted, as it is always kept.
    """
    if not limits:
        return tf.zeros([0], tf.float64)
    squares = tf.linalg.set_diag(matrix, tf.zeros_like(matrix[0])) ** 2
    ascending = tf.sort(squares, axis=1)
    size = int(matrix.shape[0])
    return tf.stack(
        [tf.sqrt(tf.reduce_max(tf.reduce_sum(ascending[:, : size - d], axis=1))) for d in limits]
    )
