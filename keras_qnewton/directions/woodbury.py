"""(UᵀU + s I)^(-1) g where a block is of low rank on this batch, another direction elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum
from keras_qnewton.conditioning.lanczos import largest_eigenvalue
from keras_qnewton.curvature.low_rank import MAX_RANK, Few
from keras_qnewton.directions.block_step import (
    RULE_LOW_RANK,
    BlockStep,
    Direction,
    unscheduled,
)
from keras_qnewton.directions.spectrum import LARGE_END_STEPS, condition_estimate, largest
from keras_qnewton.solvers import Cholesky
from keras_qnewton.types import Solution

# N from which on a block that could be formed is asked whether it has to be. Below, forming it and
# factorising it take no longer than a few small operations do.
_WORTH_IT = 256


class Woodbury:
    """(UᵀU + s I)^(-1) g = (g - Uᵀ (UUᵀ + s I)^(-1) U g) / s in float64, or another direction.

    A batch's size is known when the step runs, so both are in the graph. What the other
    direction is made of is computed where it is wanted, and zeros elsewhere.

    Args:
        few: U, and whether the block has it.
        gradient: g `[N]`.
        damping: Damping policy.
        scheduler: Its routes are logged.
        seed: Of the Lanczos start vector.
        init: Computes what the other direction is made of, a nest of tensors.
        resume: Makes it of that.

    Attributes:
        state: What `init` computed, or zeros.
    """

    def __init__(
        self,
        few: Few,
        gradient: tf.Tensor,
        damping: Any,
        scheduler: Any,
        seed: int,
        init: Callable[[], Any],
        resume: Callable[[Any], Direction],
    ):
        self._few, self._gradient = few, gradient
        self._damping, self._scheduler = damping, scheduler
        specs: list[Any] = []

        def other() -> tuple[tf.Tensor, Spectrum, Any]:
            state = init()
            specs.append(tf.nest.map_structure(tf.TensorSpec.from_tensor, state))
            nothing = tf.constant(0.0, tf.float64)
            gram = tf.zeros([few.most, few.most], tf.float64)
            return gram, Spectrum(*(nothing,) * len(Spectrum._fields)), state

        # Padded to a known size: XLA wants one shape of both branches.
        def small() -> tuple[tf.Tensor, Spectrum, Any]:
            gram = few.make().gram()
            missing = few.most - tf.shape(gram)[0]
            padded = tf.pad(gram, [[0, missing], [0, missing]])
            found = largest_eigenvalue(gram, LARGE_END_STEPS, seed)
            # The rest of the block's spectrum is zero, exactly.
            nothing = tf.zeros_like(found.lambda_min)
            found = found._replace(lambda_min=nothing, residual_min=nothing)
            state = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs[0])
            return padded, found, state

        self._gram, self._spectrum, self.state = tf.cond(~few.holds, other, small)
        self._other = resume(self.state)
        self.scale = tf.where(few.holds, largest(self._spectrum), self._other.scale)

    def solve(self, damping: tf.Tensor) -> BlockStep:
        return tf.cond(
            self._few.holds, lambda: self._solve(damping), lambda: self._other.solve(damping)
        )

    def _solve(self, damping: tf.Tensor) -> BlockStep:
        factors = self._few.make()
        shift = self._damping.shift(None, self._spectrum, damping)
        g = tf.cast(self._gradient, tf.float64)
        projected = factors.project(g)
        rank = tf.size(projected)
        small = self._gram[:rank, :rank] + shift * tf.eye(rank, dtype=tf.float64)
        y = Cholesky(refinements=0).solve(small, projected).x
        # A shift of zero is that of a block of zeros, whose gradient is zero, too.
        x = tf.math.divide_no_nan(g - factors.lift(y), shift)
        gap = factors.product(x) + shift * x - g
        solution = Solution(
            tf.cast(x, self._gradient.dtype),
            tf.math.divide_no_nan(tf.norm(gap), tf.norm(g)),
            "woodbury",
        )
        return unscheduled(
            solution,
            condition_number=condition_estimate(self._spectrum, shift),
            sparsity=tf.constant(int(self._gradient.shape[0]), tf.float64),
            rule=RULE_LOW_RANK,
            scheduler=self._scheduler,
        )


def most_rows(part: Any, damping: Any, scheduler: Any, pruning: Any, kept: bool) -> int:
    """Rows of U up to which a positive semidefinite block is solved by them; 0 if it is formed.

    A block is formed where somebody has to see it: a scheduler that has a choice, pruning, the
    paper's regularisation by max|H|, or a later step.

    Args:
        part: The block's `Part`.
        damping: Damping policy.
        scheduler: Chooses among linear solvers.
        pruning: None to keep all.
        kept: Whether a block is that of several steps.
    """
    if not damping.positive:  # what the formula divides by
        return 0
    if not part.dense:
        return MAX_RANK
    seen = kept or pruning is not None or scheduler.possible(part.size) != ("cholesky",)
    seen |= not damping.adaptive or damping.saddle_free(linear=True)
    return 0 if seen or part.size < _WORTH_IT else part.size // 2
