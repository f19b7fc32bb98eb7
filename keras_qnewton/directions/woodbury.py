"""(UᵀU + D + s I)^(-1) g where a block is of low rank on this batch, another direction elsewhere.

    E = D + s                       D at least zero, from penalties on the weights        [N]
    g = Uᵀ c + h                    any such c and h                                      [r], [N]
    x = (h + Uᵀ y) / E              (I + U E⁻¹ Uᵀ) y = c - U E⁻¹ h                        [r]

With c = 0 that is Woodbury's formula. The gradient of a convex loss of the network's output is a
sum of rows, but for rounding, which that formula divides by E: at a small s that is a long step in
directions that this batch knows nothing of. So c is found with g = Uᵀ c in those weights that have
no penalty, and h is zero there, if what is left is no more than rounding. It is more where an
example's curvature is lost and its gradient is not: where a model is certain of it, and wrong.

U Uᵀ is formed once for all λ, and apart for weights with and without a penalty: where D is one
number in all that have one, it is the sum of both that differs. Else U E⁻¹ Uᵀ is formed at each λ.

References:
    Woodbury 1950; Golub & Van Loan 2013, section 2.1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import Spectrum, extremal_eigenvalues
from keras_qnewton.conditioning.lanczos import EPSILON, largest_eigenvalue
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.low_rank import MAX_RANK, LowRank, RowFactors
from keras_qnewton.directions.block_step import RULE_LOW_RANK, BlockStep, unscheduled
from keras_qnewton.directions.direction import AnyDirection, Direction, DirectionState
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.spectrum import (
    LARGE_END_STEPS,
    condition_estimate,
    largest,
    semidefinite_spectrum,
)
from keras_qnewton.norms import norm
from keras_qnewton.settings import Settings
from keras_qnewton.solvers import Cholesky
from keras_qnewton.solvers.checks import relative_norm
from keras_qnewton.types import Solution

# N from which on a block that could be formed is asked whether it has to be. Below, forming it and
# factorising it take no longer than a few small operations do.
_WORTH_IT = 256
# Share of U Uᵀ's largest eigenvalue below which an eigenvalue is rounding.
_NEGLIGIBLE = 1e-12
# Units in the last place of a sum's terms that rounding moves it by.
_ROUNDING = 8.0
_TINY = 2.0**-1022


class _Small(NamedTuple):
    """A system of few rows, U [r, N], as it is solved at any s; float64.

    Attributes:
        grams: U Uᵀ over the weights without and with a penalty; one of them if there is none. In
            the corner of a matrix of zeros `[max_rank, max_rank]`.
        coefficients: c of the module's formulas; the first r of `[max_rank]`.
        beside: h `[N]`.
        gradient: Uᵀ c + h `[N]`: the right side of the system of N unknowns.
        spectrum: Of UᵀU + D.
    """

    grams: tuple[tf.Tensor, ...]
    coefficients: tf.Tensor
    beside: tf.Tensor
    gradient: tf.Tensor
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
    """(UᵀU + D + s I)^(-1) g in r dimensions, or another direction; see the module.

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
            zeros = tf.zeros([problem.size], tf.float64)
            small = _Small(
                (tf.zeros([factors.max_rank] * 2, tf.float64),) * _count_of_grams(factors),
                tf.zeros([factors.max_rank], tf.float64),
                zeros,
                zeros,
                Spectrum(*(zero,) * len(Spectrum._fields)),
            )
            return small, state

        def small() -> tuple[_Small, DirectionState]:
            state = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs[0])
            return self._small(problem), state

        # The true branch is traced first: the other has to return as many tensors of its kinds.
        system, state = _tf_private.cond(~factors.holds, other, small)
        scale = tf.where(factors.holds, largest(system.spectrum), state.scale)
        # Zero, where the block is not formed, is `Formation.NOT_FORMED`.
        return WoodburyState(state.formation, scale, system, state)

    def solve(self, problem: BlockProblem, state: WoodburyState, damping: tf.Tensor) -> BlockStep:
        """x by the rows where they are few, else by the other direction."""
        return _tf_private.cond(
            _rows(problem).holds,
            lambda: self._solve(problem, state.small, damping),
            lambda: self._otherwise.solve(problem, state.other, damping),
        )

    def noted(
        self, problem: BlockProblem, state: WoodburyState, damping: tf.Tensor, step: BlockStep
    ) -> BlockStep:
        """See `Direction.noted`. Few rows have left nothing out."""
        other = self._otherwise.noted(problem, state.other, damping, step)
        few = _rows(problem).holds
        return tf.nest.map_structure(
            lambda known, found: known if found is known else tf.where(few, known, found),
            step,
            other,
        )

    def damped(self, problem: BlockProblem, state: WoodburyState, vector: tf.Tensor) -> tf.Tensor:
        """See `Direction.damped`. Few rows are not rescaled."""
        other = self._otherwise.damped(problem, state.other, vector)
        return tf.where(_rows(problem).holds, vector, other)

    def _small(self, problem: BlockProblem) -> _Small:
        rows, g = _rows(problem), tf.cast(problem.gradient, tf.float64)
        factors = rows.make()
        grams, spectrum = self._grams(problem.size, rows, factors)
        negligible = tf.maximum(_NEGLIGIBLE * spectrum.lambda_max, _TINY)
        # 1 in weights without a penalty, 0 in those with one.
        free = _of_diagonal(rows, lambda d: tf.cast(d <= negligible, tf.float64))
        gram = _weighted(rows, factors, grams, free)
        coefficients = _solved(gram, negligible, factors.project(free.of_weights * g))
        difference = g - factors.lift(coefficients)
        # The terms of a sum, of which rounding is a share.
        terms = tf.reduce_sum(tf.abs(coefficients) * tf.sqrt(tf.linalg.diag_part(gram)))
        rounding = _ROUNDING * EPSILON[problem.gradient.dtype] * terms
        inside = norm(free.of_weights * difference) <= rounding
        coefficients = tf.where(inside, coefficients, 0.0)
        beside = tf.where(inside, (1.0 - free.of_weights) * difference, g)
        # Padded to a known size: XLA wants one shape of both branches.
        missing = rows.max_rank - factors.rank
        return _Small(
            tuple(tf.pad(gram, [[0, missing], [0, missing]]) for gram in grams),
            tf.ensure_shape(tf.pad(coefficients, [[0, missing]]), [rows.max_rank]),
            beside,
            tf.where(inside, g - free.of_weights * difference, g),
            spectrum,
        )

    def _grams(
        self, size: int, rows: RowFactors, factors: LowRank
    ) -> tuple[tuple[tf.Tensor, ...], Spectrum]:
        """`_Small.grams` without padding, and the ends of the spectrum of UᵀU + D."""
        diagonal, seed = rows.diagonal, self._settings.seed
        if diagonal is None:
            gram = factors.gram()
            found = largest_eigenvalue(gram, LARGE_END_STEPS, seed)
            return (gram,), semidefinite_spectrum(found, tf.zeros_like(found.lambda_min))
        free = [not penalised for penalised in rows.penalised]
        found = extremal_eigenvalues(
            lambda v: factors.product(v) + diagonal * v, size, LARGE_END_STEPS, tf.float64, seed
        )
        grams = (factors.gram(of=free), factors.gram(of=rows.penalised))
        return grams, semidefinite_spectrum(found, tf.reduce_min(diagonal))

    def _solve(self, problem: BlockProblem, system: _Small, damping: tf.Tensor) -> BlockStep:
        rows = _rows(problem)
        factors = rows.make()
        # The rank is not kept with the system: XLA has to see that it is a constant.
        rank, g = factors.rank, system.gradient
        shift = self._settings.damping.shift(None, system.spectrum, damping)
        added = shift if rows.diagonal is None else rows.diagonal + shift  # E
        # All is multiplied by the smallest number in E: a block of zeros may have no shift.
        smallest = tf.maximum(tf.reduce_min(added), _TINY)
        relative = _of_diagonal(rows, lambda d: smallest / tf.maximum(d + shift, _TINY))
        grams = [gram[:rank, :rank] for gram in system.grams]
        apart = tf.math.divide_no_nan(system.beside, added)
        rhs = system.coefficients[:rank] - factors.project(apart)
        y = _solved(_weighted(rows, factors, grams, relative), smallest, rhs)
        x = apart + relative.of_weights * factors.lift(y)
        gap = factors.product(x) + added * x - g
        solution = Solution(
            tf.cast(x, problem.gradient.dtype),
            relative_norm(gap, g),
            "woodbury",
        )
        return unscheduled(
            solution,
            condition_number=condition_estimate(system.spectrum, shift),
            sparsity=tf.constant(problem.size, tf.float64),
            rule=RULE_LOW_RANK,
            scheduler=self._settings.scheduler,
        )


class _OfDiagonal(NamedTuple):
    """v(D) of a function v.

    Attributes:
        of_zero: v(0), scalar.
        of_largest: v(max D), scalar; that of zero if there is no D.
        of_weights: v(D) `[N]`, or a scalar if there is no D.
    """

    of_zero: tf.Tensor
    of_largest: tf.Tensor
    of_weights: tf.Tensor


def _of_diagonal(rows: RowFactors, function: Callable[[tf.Tensor], tf.Tensor]) -> _OfDiagonal:
    at_zero = function(tf.constant(0.0, tf.float64))
    if rows.diagonal is None:
        return _OfDiagonal(at_zero, at_zero, at_zero)
    largest_number = function(tf.reduce_max(rows.diagonal))
    return _OfDiagonal(at_zero, largest_number, function(rows.diagonal))


def _count_of_grams(rows: RowFactors) -> int:
    return 1 if rows.diagonal is None else 2


def _weighted(
    rows: RowFactors, factors: LowRank, grams: Sequence[tf.Tensor], weights: _OfDiagonal
) -> tf.Tensor:
    """U diag(v) Uᵀ `[r, r]` of v(D), from what is formed where D is one number, or zero."""
    if rows.diagonal is None:
        return weights.of_zero * grams[0]
    free, penalised = grams
    pieces = tf.split(rows.diagonal, factors.sizes)
    numbers = tf.concat([d for d, has in zip(pieces, rows.penalised, strict=True) if has], 0)
    return _tf_private.cond(
        tf.reduce_all(tf.equal(numbers, numbers[0])),
        lambda: weights.of_zero * free + weights.of_largest * penalised,
        lambda: factors.gram(weights.of_weights),
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
    paper's regularisation by max|H|, rescaling by the diagonal, or a later step.
    """
    damping, scheduler = settings.damping, settings.scheduler
    if not damping.positive:  # what the formula divides by
        return 0
    if not part.dense:
        return MAX_RANK
    seen = settings.keeps_factors or settings.pruning is not None
    seen |= scheduler.possible(part.size) != ("cholesky",)
    seen |= not damping.adaptive or damping.saddle_free(linear=True)
    seen |= settings.rescales and damping.scaling == "diagonal"
    return 0 if seen or part.size < _WORTH_IT else min(part.size // 2, MAX_RANK)
