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

from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum
from keras_qnewton.conditioning.lanczos import EPSILON, largest_eigenvalue
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.low_rank import MAX_RANK, RowFactors
from keras_qnewton.directions.block_step import RULE_LOW_RANK, BlockStep, unscheduled
from keras_qnewton.directions.direction import AnyDirection, Direction, DirectionState
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.spectrum import (
    LARGE_END_STEPS,
    condition_estimate,
    largest,
    semidefinite_spectrum,
)
from keras_qnewton.settings import Settings
from keras_qnewton.solvers import Cholesky
from keras_qnewton.types import Solution

# N from which on a block that could be formed is asked whether it has to be. Below, forming it and
# factorising it take no longer than a few small operations do.
_WORTH_IT = 256
# Share of U Uᵀ's largest eigenvalue below which an eigenvalue is rounding.
_NEGLIGIBLE = 1e-12
# Units in the last place of a sum's terms that rounding moves it by.
_ROUNDING = 8.0
_TINY = 1e-300


class _Small(NamedTuple):
    """A system of few rows, U [r, N], as it is solved at any s; float64.

    Attributes:
        gram: U Uᵀ, in the corner of a matrix of zeros `[max_rank, max_rank]`.
        rhs: c of the module's formulas, or U g; the first r of `[max_rank]`.
        gradient: Uᵀ c, or g `[N]`: the right side of the system of N unknowns.
        inside: Which of the two it is, scalar bool.
        spectrum: Of UᵀU.
    """

    gram: tf.Tensor
    rhs: tf.Tensor
    gradient: tf.Tensor
    inside: tf.Tensor
    spectrum: Spectrum


class WoodburyState(NamedTuple):
    """The system of few rows, and the other direction's state; one of them of zeros.

    Attributes:
        formation: See `DirectionState`.
        scale: See `DirectionState`.
        small: The system of few rows.
        other: What the other direction's `init` returned.
    """

    formation: tf.Tensor
    scale: tf.Tensor
    small: _Small
    other: DirectionState


class Woodbury(Direction[WoodburyState]):
    """(UᵀU + s I)^(-1) g in r dimensions, or another direction; see the module.

    A batch's size is known when the step runs, so both are in the graph. What the other
    direction is made of is computed where it is wanted, and zeros elsewhere.

    Args:
        settings: The policies of the step.
        otherwise: The other direction.
    """

    def __init__(self, settings: Settings, otherwise: AnyDirection):
        super().__init__(settings)
        self._otherwise = otherwise

    def init(self, problem: BlockProblem) -> WoodburyState:
        """The rows' Gram matrix, or what the other direction's `init` returns."""
        factors, specs = _rows(problem), []
        zero = tf.constant(0.0, tf.float64)

        def other() -> tuple[_Small, DirectionState]:
            state = tf.nest.map_structure(tf.convert_to_tensor, self._otherwise.init(problem))
            specs.append(tf.nest.map_structure(tf.TensorSpec.from_tensor, state))
            small = _Small(
                tf.zeros([factors.max_rank, factors.max_rank], tf.float64),
                tf.zeros([factors.max_rank], tf.float64),
                tf.zeros([problem.size], tf.float64),
                tf.constant(False),
                Spectrum(*(zero,) * len(Spectrum._fields)),
            )
            return small, state

        def small() -> tuple[_Small, DirectionState]:
            state = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs[0])
            return self._small(problem), state

        # The true branch is traced first: the other has to return as many tensors of its kinds.
        system, state = tf.cond(~factors.holds, other, small)
        scale = tf.where(factors.holds, largest(system.spectrum), state.scale)
        # Zero, where the block is not formed, is `Formation.NOT_FORMED`.
        return WoodburyState(state.formation, scale, system, state)

    def solve(self, problem: BlockProblem, state: WoodburyState, damping: tf.Tensor) -> BlockStep:
        """x by the rows where they are few, else by the other direction."""
        return tf.cond(
            _rows(problem).holds,
            lambda: self._solve(problem, state.small, damping),
            lambda: self._otherwise.solve(problem, state.other, damping),
        )

    def _small(self, problem: BlockProblem) -> _Small:
        factors, g = _rows(problem).make(), tf.cast(problem.gradient, tf.float64)
        gram, projected = factors.gram(), factors.project(g)
        found = largest_eigenvalue(gram, LARGE_END_STEPS, self._settings.seed)
        negligible = tf.maximum(_NEGLIGIBLE * found.lambda_max, _TINY)
        coefficients = _solved(gram, negligible, projected)
        within = factors.lift(coefficients)
        # The terms of a sum, of which rounding is a share.
        terms = tf.reduce_sum(tf.abs(coefficients) * tf.sqrt(tf.linalg.diag_part(gram)))
        rounding = _ROUNDING * EPSILON[problem.gradient.dtype] * terms
        inside = tf.norm(g - within) <= rounding
        # Padded to a known size: XLA wants one shape of both branches.
        largest_rank = _rows(problem).max_rank
        missing = largest_rank - factors.rank
        rhs = tf.where(inside, coefficients, projected)
        return _Small(
            tf.pad(gram, [[0, missing], [0, missing]]),
            tf.ensure_shape(tf.pad(rhs, [[0, missing]]), [largest_rank]),
            tf.where(inside, within, g),
            inside,
            semidefinite_spectrum(found, tf.zeros_like(found.lambda_min)),
        )

    def _solve(self, problem: BlockProblem, system: _Small, damping: tf.Tensor) -> BlockStep:
        factors = _rows(problem).make()
        # The rank is not kept with the system: XLA has to see that it is a constant.
        rank, g = factors.rank, system.gradient
        shift = self._settings.damping.shift(None, system.spectrum, damping)
        # A block of zeros may have no shift.
        y = _solved(system.gram[:rank, :rank], tf.maximum(shift, _TINY), system.rhs[:rank])
        lifted = factors.lift(y)
        x = tf.where(system.inside, lifted, tf.math.divide_no_nan(g - lifted, shift))
        gap = factors.product(x) + shift * x - g
        solution = Solution(
            tf.cast(x, problem.gradient.dtype),
            tf.math.divide_no_nan(tf.norm(gap), tf.norm(g)),
            "woodbury",
        )
        return unscheduled(
            solution,
            condition_number=condition_estimate(system.spectrum, shift),
            sparsity=tf.constant(problem.size, tf.float64),
            rule=RULE_LOW_RANK,
            scheduler=self._settings.scheduler,
        )


def _rows(problem: BlockProblem) -> RowFactors:
    if problem.low_rank is None:
        raise ValueError(f"Block {problem.part.name!r} has no rows to be solved by.")
    return problem.low_rank


def _solved(gram: tf.Tensor, shift: tf.Tensor, rhs: tf.Tensor) -> tf.Tensor:
    """(gram + shift I)^(-1) rhs."""
    system = tf.linalg.set_diag(gram, tf.linalg.diag_part(gram) + shift)
    x: tf.Tensor = Cholesky(refinements=0).solve(system, rhs).x
    return x


def max_rank(part: Part, settings: Settings) -> int:
    """Rows of U up to which a positive semidefinite block is solved by them; 0 if it is formed.

    A block is formed where somebody has to see it: a scheduler that has a choice, pruning, the
    paper's regularisation by max|H|, or a later step.
    """
    damping, scheduler = settings.damping, settings.scheduler
    if not damping.positive:  # what the formula divides by
        return 0
    if not part.dense:
        return MAX_RANK
    seen = settings.keeps_factors or settings.pruning is not None
    seen |= scheduler.possible(part.size) != ("cholesky",)
    seen |= not damping.adaptive or damping.saddle_free(linear=True)
    return 0 if seen or part.size < _WORTH_IT else min(part.size // 2, MAX_RANK)
