"""(UᵀU + s I)^(-1) g where a block is of low rank on this batch, another direction elsewhere.

    (UᵀU + s I)⁻¹ g = (g - Uᵀ (U Uᵀ + s I)⁻¹ U g) / s          U [r, N], g [N]
                    = Uᵀ (U Uᵀ + s I)⁻¹ c     for g = Uᵀ c     c [r]

The gradient of a convex loss of the network's output is such a sum of rows, but for rounding, which
the first formula divides by s: at a small s that is a long step in directions that this batch knows
nothing of. So the second is taken where g - Uᵀ c is no more than rounding. It is more where an
example's curvature is lost and its gradient is not: where a model is certain of it, and wrong.

References:
    Woodbury 1950; Golub & Van Loan 2013, section 2.1.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum
from keras_qnewton.conditioning.lanczos import EPSILON, largest_eigenvalue
from keras_qnewton.curvature.low_rank import MAX_RANK, Few
from keras_qnewton.directions.block_step import (
    RULE_LOW_RANK,
    BlockStep,
    Direction,
    unscheduled,
)
from keras_qnewton.directions.spectrum import (
    LARGE_END_STEPS,
    condition_estimate,
    largest,
    semidefinite_spectrum,
)
from keras_qnewton.solvers import Cholesky
from keras_qnewton.types import Solution

# N from which on a block that could be formed is asked whether it has to be. Below, forming it and
# factorising it take no longer than a few small operations do.
_WORTH_IT = 256
# Of the largest eigenvalue of U Uᵀ: what rounding leaves of those that are zero is less.
_NEGLIGIBLE = 1e-12
# Units in the last place of a sum's terms that rounding moves it by.
_ROUNDING = 8.0
_TINY = 1e-300


class _Small(NamedTuple):
    """A system of few rows, U [r, N], as it is solved at any s; float64.

    Attributes:
        gram: U Uᵀ, in the corner of a matrix of zeros `[most, most]`.
        rhs: c of the module's formulas, or U g; the first r of `[most]`.
        gradient: Uᵀ c, or g `[N]`: the right side of the system of N unknowns.
        inside: Which of the two it is, scalar bool.
        spectrum: Of UᵀU.
    """

    gram: tf.Tensor
    rhs: tf.Tensor
    gradient: tf.Tensor
    inside: tf.Tensor
    spectrum: Spectrum


class Woodbury:
    """(UᵀU + s I)^(-1) g in r dimensions, or another direction; see the module.

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
        size, specs = int(gradient.shape[0]), []
        nothing = tf.constant(0.0, tf.float64)

        def other() -> tuple[_Small, Any]:
            state = init()
            specs.append(tf.nest.map_structure(tf.TensorSpec.from_tensor, state))
            small = _Small(
                tf.zeros([few.most, few.most], tf.float64),
                tf.zeros([few.most], tf.float64),
                tf.zeros([size], tf.float64),
                tf.constant(False),
                Spectrum(*(nothing,) * len(Spectrum._fields)),
            )
            return small, state

        def small() -> tuple[_Small, Any]:
            state = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs[0])
            return self._small(seed), state

        # The true branch is traced first: the other has to return as many tensors of its kinds.
        self._system, self.state = tf.cond(~few.holds, other, small)
        self._other = resume(self.state)
        self.scale = tf.where(few.holds, largest(self._system.spectrum), self._other.scale)

    def _small(self, seed: int) -> _Small:
        factors, g = self._few.make(), tf.cast(self._gradient, tf.float64)
        gram, projected = factors.gram(), factors.project(g)
        found = largest_eigenvalue(gram, LARGE_END_STEPS, seed)
        negligible = tf.maximum(_NEGLIGIBLE * found.lambda_max, _TINY)
        coefficients = _solved(gram, negligible, projected)
        within = factors.lift(coefficients)
        # The terms of a sum, of which rounding is a share.
        terms = tf.reduce_sum(tf.abs(coefficients) * tf.sqrt(tf.linalg.diag_part(gram)))
        rounding = _ROUNDING * EPSILON[self._gradient.dtype] * terms
        inside = tf.norm(g - within) <= rounding
        # Padded to a known size: XLA wants one shape of both branches.
        missing = self._few.most - factors.rank
        rhs = tf.where(inside, coefficients, projected)
        return _Small(
            tf.pad(gram, [[0, missing], [0, missing]]),
            tf.ensure_shape(tf.pad(rhs, [[0, missing]]), [self._few.most]),
            tf.where(inside, within, g),
            inside,
            semidefinite_spectrum(found, tf.zeros_like(found.lambda_min)),
        )

    def solve(self, damping: tf.Tensor) -> BlockStep:
        return tf.cond(
            self._few.holds, lambda: self._solve(damping), lambda: self._other.solve(damping)
        )

    def _solve(self, damping: tf.Tensor) -> BlockStep:
        factors, system = self._few.make(), self._system
        # Not kept with the system: XLA has to see that it is a constant.
        rank, g = factors.rank, system.gradient
        shift = self._damping.shift(None, system.spectrum, damping)
        # No shift is that of a block of zeros.
        y = _solved(system.gram[:rank, :rank], tf.maximum(shift, _TINY), system.rhs[:rank])
        lifted = factors.lift(y)
        x = tf.where(system.inside, lifted, tf.math.divide_no_nan(g - lifted, shift))
        gap = factors.product(x) + shift * x - g
        solution = Solution(
            tf.cast(x, self._gradient.dtype),
            tf.math.divide_no_nan(tf.norm(gap), tf.norm(g)),
            "woodbury",
        )
        return unscheduled(
            solution,
            condition_number=condition_estimate(system.spectrum, shift),
            sparsity=tf.constant(int(self._gradient.shape[0]), tf.float64),
            rule=RULE_LOW_RANK,
            scheduler=self._scheduler,
        )


def _solved(gram: tf.Tensor, shift: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """(gram + shift I)^(-1) rhs."""
    system = tf.linalg.set_diag(gram, tf.linalg.diag_part(gram) + shift)
    x: tf.Tensor = Cholesky(refinements=0).solve(system, rhs).x
    return x


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
    return 0 if seen or part.size < _WORTH_IT else min(part.size // 2, MAX_RANK)
