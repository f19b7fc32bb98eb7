"""(H + s(λ) I)^(-1) g of a formed block, by the solver that the scheduler chooses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import condition_number
from keras_qnewton.directions.attempts import Answer, Attempts, System
from keras_qnewton.directions.block_step import (
    FIXED_ROUTES,
    BlockStep,
    measured_alpha,
    not_reshaped,
    unknown,
)
from keras_qnewton.directions.direction import Direction
from keras_qnewton.directions.ends import Ends, ends_of
from keras_qnewton.directions.jacobian import DampedRows, no_rows
from keras_qnewton.directions.lengths import at_shift, left_by
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.reshaping import Candidates, Reshaping, Trade
from keras_qnewton.directions.spectrum import condition_estimate, largest
from keras_qnewton.directions.traits import is_bounded, is_mixed, is_semidefinite
from keras_qnewton.solvers import on_host
from keras_qnewton.solvers.blocked_cholesky import (
    BlockedFactor,
    packed_factor,
    unpacked_factor,
)
from keras_qnewton.solvers.checks import passes
from keras_qnewton.solvers.mixed_precision import mixed_cholesky
from keras_qnewton.solvers.packing import Packable
from keras_qnewton.solvers.refinement import target
from keras_qnewton.state import FactorKind
from keras_qnewton.types import Solution, Solver

# κ up to which refinement makes up for a factorisation in float32.
_MIXED_CONDITION = 1e6


class ScheduledState(NamedTuple):
    """A formed block and what was found of it; see `DirectionState`.

    Attributes:
        formation: See there.
        scale: See there.
        matrix: H `[N, N]`; float64, but where it is factorised in float32.
        precise: Whether it was formed in double precision.
        unchanged: Whether it is that of the last step, bool or scalar bool tensor.
        ends: Its spectrum's ends, and d.
        reshaping: Its candidates for being replaced; empty where it may not be.
    """

    formation: tf.Tensor
    scale: tf.Tensor
    matrix: tf.Tensor
    precise: tf.Tensor | bool
    unchanged: tf.Tensor | bool
    ends: Ends
    reshaping: Candidates | tuple[()]


@dataclasses.dataclass(frozen=True)
class _Damped:
    """H + s I at one λ, and what is known of it.

    Attributes:
        problem: The block's.
        state: The block's.
        shift: s, float64 scalar.
        condition_number: κ, float64 scalar.
        rhs: g `[N]`, float64.
    """

    problem: BlockProblem
    state: ScheduledState
    shift: tf.Tensor
    condition_number: tf.Tensor
    rhs: tf.Tensor


class Choice(NamedTuple):
    """What `Scheduler.choose_index` returns: a route, predicted seconds, and a rule."""

    index: tf.Tensor
    predicted: tf.Tensor
    rule: tf.Tensor


class Scheduled(Direction[ScheduledState]):
    """(H + s I)^(-1) g to float64 residuals, by the solver that the scheduler chooses."""

    def init(self, problem: BlockProblem) -> ScheduledState:
        """Forms the block, and finds the ends of its spectrum."""
        settings, formed = self._settings, problem.form()
        matrix, ends = formed.matrix, ends_of(formed, problem, settings)
        # A solve of a small block costs little beside the curvature: double precision makes the
        # residual check mean something at condition numbers up to 1e12.
        if not is_mixed(problem, settings):
            matrix = tf.cast(matrix, tf.float64)
        reshaping = self._reshaping(problem)
        return ScheduledState(
            formation=formed.how,
            scale=largest(ends.spectrum),
            matrix=matrix,
            precise=formed.matrix.dtype == tf.float64,
            unchanged=formed.unchanged,
            ends=ends,
            reshaping=() if reshaping is None else reshaping.init(matrix, ends.sparsity),
        )

    def product(
        self, problem: BlockProblem, state: ScheduledState, vector: tf.Tensor
    ) -> tf.Tensor | None:
        """See `Direction.product`."""
        whole = state.precise is True and self._settings.pruning is None
        if not whole or state.unchanged is not False:
            return None
        return tf.cast(tf.linalg.matvec(state.matrix, tf.cast(vector, tf.float64)), vector.dtype)

    def estimate(
        self, problem: BlockProblem, state: ScheduledState, damping: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """κ of H + s I, and s, at damping λ; scalars, float64."""
        shift = self._settings.damping.shift(state.matrix, state.ends.spectrum, damping)
        return self._condition_number(problem, state, shift), shift

    def solve(self, problem: BlockProblem, state: ScheduledState, damping: tf.Tensor) -> BlockStep:
        """x of the system as it is, or of a cheaper one that is near enough."""
        rhs = tf.cast(problem.gradient, tf.float64)
        if self._decides_nothing(problem):
            # What is counted and searched for is found while the system is factorised: see `noted`.
            nan = tf.constant(math.nan, tf.float64)
            ahead = state._replace(ends=state.ends._replace(sparsity=nan, products=nan))
            shift = self._settings.damping.shift(state.matrix, state.ends.spectrum, damping)
            kappa = (state.ends.norm + shift) / shift
            return self._solve_as_it_is(_Damped(problem, ahead, shift, kappa, rhs))
        kappa, shift = self.estimate(problem, state, damping)
        damped = _Damped(problem, state, shift, kappa, rhs)
        reshaping, candidates = self._reshaping(problem), state.reshaping
        if reshaping is None or not isinstance(candidates, Candidates):
            return self._solve_as_it_is(damped)
        step = self._solve_reshaped(damped, reshaping, candidates)
        return _tf_private.cond(
            passes(step.error_bound, reshaping.bound),
            lambda: step,
            lambda: self._solve_as_it_is(damped)._replace(error_bound=step.error_bound),
        )

    def noted(
        self, problem: BlockProblem, state: ScheduledState, damping: tf.Tensor, step: BlockStep
    ) -> BlockStep:
        """See `Direction.noted`: κ, the products that it took, and d."""
        if not self._decides_nothing(problem):
            return step
        kappa, _ = self.estimate(problem, state, damping)
        sparsity, products = state.ends.sparsity, state.ends.products
        return step._replace(condition_number=kappa, sparsity=sparsity, products=products)

    def _decides_nothing(self, problem: BlockProblem) -> bool:
        """Whether κ is for the log alone, and there is a bound of it that takes no products."""
        scheduler = self._settings.scheduler
        return (
            # Of attempts that are not made again, κ tells which residual is rounding's.
            self._settings.damping.adaptive
            and scheduler.quantum is None
            and scheduler.estimator is None
            and len(scheduler.candidates(definite=True)) == 1
            and is_semidefinite(problem, self._settings)
        )

    def _reshaping(self, problem: BlockProblem) -> Reshaping | None:
        """The policy's search; None where no eigenvalue is bounded or no price could fall."""
        scheduler, bounded = self._settings.scheduler, is_bounded(problem, self._settings)
        priced = len(scheduler.candidates(bounded)) > 1 or scheduler.quantum is not None
        mixed = is_mixed(problem, self._settings)
        if scheduler.reshape is None or mixed or not (bounded and priced):
            return None
        if scheduler.by_rows:
            raise ValueError(
                "Argument `reshape` changes a matrix, and the quantum solver takes the Jacobian's "
                "rows in its place. Leave `reshape` out, or take another `quantum`. "
                f"Received: scheduler={scheduler!r}"
            )
        return Reshaping(scheduler.reshape, scheduler)

    def _solve_as_it_is(self, damped: _Damped) -> BlockStep:
        """(H + s I) x = g."""
        bounded = is_bounded(damped.problem, self._settings)
        sparsity = damped.state.ends.sparsity
        price = self._settings.scheduler.quantum_price
        rows = self._rows(damped)
        measured = self._measured(damped, rows)
        tolerance = damped.problem.tolerance
        if rows is not None and tolerance is not None:
            tolerance = tf.convert_to_tensor(rows.within(tolerance))
        told = {**measured, **price.of_tolerance(tolerance)}
        choice = self._choice(damped, damped.condition_number, sparsity, bounded, told)
        mixed = is_mixed(damped.problem, self._settings)
        answer = self._answer_mixed(damped, choice) if mixed else self._answer(damped, choice, rows)
        kappa = damped.condition_number
        step = _block_step(damped, kappa, sparsity, choice, answer, not_reshaped())
        # Of an encoding of the matrix: rows have another.
        alpha = measured_alpha({} if rows is not None else measured)
        return step._replace(alpha=alpha, lengths=self._lengths(damped, answer))

    def _rows(self, damped: _Damped) -> DampedRows | None:
        """The system by the Jacobian's rows, for a circuit that takes them; None without any."""
        solver: Any = self._settings.scheduler.quantum
        if damped.problem.jacobian is None:
            return None
        state = damped.state
        highest = state.ends.spectrum.lambda_max
        given = tf.cast(state.matrix, tf.float64), highest, damped.shift, damped.rhs
        return DampedRows(damped.problem, solver, *given, seed=self._settings.seed)

    def _measured(self, damped: _Damped, rows: DampedRows | None) -> Mapping[str, Any]:
        """What the cost model is told of H + s I."""
        scheduler, sparsity = self._settings.scheduler, damped.state.ends.sparsity
        if scheduler.by_rows and rows is None:
            return no_rows()
        found: dict[str, Any] = {}
        if scheduler.measures(damped.problem.size):
            matrix, kappa = _shifted(damped.state, damped.shift), damped.condition_number
            measure = scheduler.quantum_price.measure
            found = measure(matrix, self._norm(damped), kappa, sparsity)
        if rows is None:
            return found
        return scheduler.quantum_price.of_rows(rows.measured(), found)

    def _solve_reshaped(
        self, damped: _Damped, reshaping: Reshaping, candidates: Candidates
    ) -> BlockStep:
        """Â x̂ = g, if that is predicted to take less time; else a step that nobody knows."""
        problem = damped.problem
        smallest = _lowest(damped.state, damped.shift)
        highest = _highest(damped.state, damped.shift)
        trade = reshaping.pick(candidates, smallest, highest, damped.condition_number)
        return _tf_private.cond(
            trade.better,
            lambda: self._solve_traded(damped, trade, reshaping, candidates),
            lambda: unknown(problem.size, problem.gradient.dtype, self._settings.scheduler),
        )

    def _solve_traded(
        self, damped: _Damped, trade: Trade, reshaping: Reshaping, candidates: Candidates
    ) -> BlockStep:
        """Â x̂ = g, and how far x̂ may be from the solution of the system as it is."""
        kappa, sparsity, state = trade.condition_number, trade.sparsity, damped.state
        matrix = reshaping.system(candidates, trade, damped.shift)
        measured: Mapping[str, Any] = {}
        if self._settings.scheduler.measures(damped.problem.size):
            norm = _highest(state, damped.shift) + trade.shift
            measured = self._settings.scheduler.quantum_price.measure(matrix, norm, kappa, sparsity)
        choice = self._choice(damped, kappa, sparsity, True, measured)
        system = System(
            matrix=matrix,
            rhs=damped.rhs,
            condition_number=kappa,
            definite=is_bounded(damped.problem, self._settings),
            indefinite=tf.constant(False),
        )

        def solved(solver: Solver, kind: int) -> Solution:
            del kind  # another matrix than the kept factor's
            return on_host.solve(solver, system.matrix, system.rhs)

        answer = self._attempts(system, solved).answer(choice.index, choice.predicted)
        gap = damped.rhs - tf.linalg.matvec(state.matrix, answer.x) - damped.shift * answer.x
        error = reshaping.checked_error(_lowest(state, damped.shift), gap, answer.x)
        changes = state.ends.sparsity, trade.shift, error
        step = _block_step(damped, kappa, sparsity, choice, answer, changes)
        lengths = () if damped.problem.lengths is None else damped.problem.lengths
        return step._replace(alpha=measured_alpha(measured), lengths=lengths)

    def _lengths(self, damped: _Damped, answer: Answer) -> tf.Tensor | tuple[()]:
        """`BlockStep.lengths`."""
        if damped.problem.lengths is None:
            return ()
        found = answer.lengths
        if isinstance(found, tuple):
            found = at_shift(damped.problem.lengths, damped.shift)
        return left_by(answer.x, damped.rhs, found[1], damped.shift)

    def _choice(
        self,
        damped: _Damped,
        kappa: tf.Tensor,
        sparsity: tf.Tensor,
        definite: bool,
        measured: Mapping[str, Any],
    ) -> Choice:
        return Choice(
            *self._settings.scheduler.choose_index(
                damped.problem.size, kappa, sparsity, definite=definite, measured=measured
            )
        )

    def _condition_number(
        self, problem: BlockProblem, state: ScheduledState, shift: tf.Tensor
    ) -> tf.Tensor:
        """κ(H + s I): the estimator's, if one is named; else by the spectrum's ends."""
        scheduler, spectrum = self._settings.scheduler, state.ends.spectrum

        def estimated(method: str | None = None) -> tf.Tensor:
            # XLA has no LU, which the quick one takes.
            default = "exact" if _tf_private.compiled_by_xla() else "lanczos"
            return condition_number(_shifted(state, shift), method=method or default)

        if scheduler.estimator is not None:
            return estimated(scheduler.estimator)
        by_ends = condition_estimate(spectrum, shift)
        if is_semidefinite(problem, self._settings):
            # Rounding, which would be taken off the shift, moves eigenvalues by far less.
            highest = _highest(state, shift)
            return tf.where(shift > 0, highest / shift, by_ends)
        if is_bounded(problem, self._settings):
            return by_ends
        # The shift may leave negative eigenvalues. Where κ decides, it is estimated to 1 %, and
        # where it is for the log alone, a factorisation is too much for it.
        if len(scheduler.possible(problem.size)) > 1:
            return estimated()
        return _tf_private.cond(_lowest(state, shift) > 0, lambda: by_ends, estimated)

    def _norm(self, damped: _Damped) -> tf.Tensor:
        """‖H + s I‖₂ as `_condition_number` has it."""
        if is_semidefinite(damped.problem, self._settings):
            return _highest(damped.state, damped.shift)
        spectrum, shift = damped.state.ends.spectrum, damped.shift
        return tf.maximum(tf.abs(spectrum.lambda_min + shift), tf.abs(spectrum.lambda_max + shift))

    def _answer_mixed(self, damped: _Damped, choice: Choice) -> Answer:
        """`_answer` by a factor in float32; in float64 where that does not reach the tolerance."""
        tolerance = target(None, np.float64)
        problem, state, shift = damped.problem, damped.state, damped.shift

        def kept(factorised: Callable[[], BlockedFactor]) -> BlockedFactor:
            if not problem.kept.has_factor:
                return factorised()
            packed = problem.kept.factor(
                state.unchanged, FactorKind.MIXED, shift, lambda: packed_factor(factorised())
            )
            return unpacked_factor(packed, tf.float32)

        x, residual = _tf_private.cond(
            state.ends.norm + shift <= _MIXED_CONDITION * shift,
            lambda: mixed_cholesky(state.matrix, shift, damped.rhs, tolerance, kept),
            lambda: (tf.zeros_like(damped.rhs), tf.constant(math.nan, tf.float64)),
        )
        return _tf_private.cond(
            passes(residual, tolerance),
            lambda: Answer(x, residual, tf.constant(len(FIXED_ROUTES))),
            lambda: self._answer(damped, choice)._replace(lengths=()),
        )

    def _answer(self, damped: _Damped, choice: Choice, rows: DampedRows | None = None) -> Answer:
        """x of (H + s I) x = g, its residual, and the route that gave it."""
        problem, state, spectrum = damped.problem, damped.state, damped.state.ends.spectrum
        # One eigenvalue at least is below a Ritz value and its residual.
        ritz = spectrum.lambda_min + spectrum.residual_min
        system = System(
            matrix=_shifted(state, damped.shift),
            rhs=damped.rhs,
            condition_number=self._for_rounding(damped),
            definite=is_bounded(problem, self._settings),
            indefinite=ritz + damped.shift < 0,
            tolerance=problem.tolerance,
            lengths=None if problem.lengths is None else at_shift(problem.lengths, damped.shift),
            by_rows=None if rows is None else rows.solve,
        )

        def solved(solver: Solver, kind: int) -> Solution:
            """By one solver; with the last step's factor, if that was of the same system."""
            if not problem.kept.has_factor or not isinstance(solver, Packable):
                return on_host.solve(solver, system.matrix, system.rhs, system.tolerance)
            packed = problem.kept.factor(
                state.unchanged, kind, damped.shift, lambda: solver.pack(solver.init(system.matrix))
            )
            return solver.compute(solver.unpack(system.matrix, packed), system.rhs)

        return self._attempts(system, solved).answer(choice.index, choice.predicted)

    def _for_rounding(self, damped: _Damped) -> tf.Tensor:
        """κ that says which residual rounding explains: a loose bound of it would explain any."""
        if self._settings.scheduler.estimator is None:
            return damped.condition_number
        return condition_estimate(damped.state.ends.spectrum, damped.shift)

    def _attempts(self, system: System, solved: Callable[[Solver, int], Solution]) -> Attempts:
        scheduler, damping = self._settings.scheduler, self._settings.damping
        return Attempts(system, scheduler, solved, tried_again=damping.adaptive)


def _shifted(state: ScheduledState, shift: tf.Tensor) -> tf.Tensor:
    """H + s I in float64."""
    matrix = tf.cast(state.matrix, tf.float64)
    return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift)


def _lowest(state: ScheduledState, shift: tf.Tensor) -> tf.Tensor:
    """σ: no eigenvalue of H + s I is below, given that Lanczos found the lower end."""
    return state.ends.spectrum.lambda_min - state.ends.spectrum.residual_min + shift


def _highest(state: ScheduledState, shift: tf.Tensor) -> tf.Tensor:
    """No eigenvalue of H + s I is above."""
    return state.ends.spectrum.lambda_max + state.ends.spectrum.residual_max + shift


def _block_step(
    damped: _Damped,
    kappa: tf.Tensor,
    sparsity: tf.Tensor,
    choice: Choice,
    answer: Answer,
    reshaped: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
) -> BlockStep:
    """A `BlockStep` whose α is not known; `reshaped` are the three of that."""
    return BlockStep(
        tf.cast(answer.x, damped.problem.gradient.dtype),
        kappa,
        sparsity,
        choice.index + len(FIXED_ROUTES),
        answer.route,
        choice.rule,
        answer.residual,
        choice.predicted,
        damped.state.ends.products,
        *reshaped,
        tf.constant(math.nan, tf.float64),
    )
