"""(H + s(λ) I)^(-1) g of a formed block, by the solver that the scheduler chooses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.conditioning import Spectrum, condition_number, extremal_eigenvalues
from keras_qnewton.conditioning.host_lanczos import extremal_eigenvalues_on_host
from keras_qnewton.conditioning.lanczos import EPSILON, largest_eigenvalue
from keras_qnewton.directions.attempts import Answer, Attempts, System
from keras_qnewton.directions.block_step import (
    FIXED_ROUTES,
    BlockStep,
    Keep,
    Numbers,
    computed,
    not_reshaped,
)
from keras_qnewton.directions.kept_factor import MIXED, kept_factor
from keras_qnewton.directions.reshaping import Reshaping, Trade
from keras_qnewton.directions.spectrum import (
    LANCZOS_STEPS,
    LARGE_END_STEPS,
    condition_estimate,
    full_products,
    kept_spectrum,
    largest,
    row_nonzeros,
    semidefinite_spectrum,
)
from keras_qnewton.solvers.blocked_cholesky import (
    BlockedFactor,
    packed_factor,
    unpacked_factor,
)
from keras_qnewton.solvers.mixed_precision import mixed_cholesky
from keras_qnewton.solvers.packing import Packable
from keras_qnewton.solvers.refinement import target
from keras_qnewton.types import Solution

# Where nothing but λ_min's error bound is between a fixed shift and a needlessly short step: on
# a pruned block of 1,040 weights the bound is 4e-3 after 20 steps, 6e-7 after 60 (λ_min -1e-2).
_DEFINITE_STEPS = 60
# From this N on a factorisation in float64 is what a step takes longest for.
_LARGE = 512
# κ up to which refinement makes up for one in float32.
_MIXED_CONDITION = 1e6


class Ends(NamedTuple):
    """What is known of a block before it is solved.

    Attributes:
        norm: Frobenius's of a semidefinite one, float64 scalar; else 0.
        spectrum: The ends of its spectrum.
        sparsity: d, float64 scalar.
        products: Products with it that were made, float64; NaN where κ may take a factorisation.
    """

    norm: tf.Tensor
    spectrum: Spectrum
    sparsity: tf.Tensor
    products: tf.Tensor


class Scheduled:
    """(H + s I)^(-1) g to float64 residuals, by the solver that the scheduler chooses.

    Attributes:
        ends: What was given, or was found of the matrix.
    """

    def __init__(
        self,
        matrix: tf.Tensor,
        gradient: tf.Tensor,
        damping: Any,
        scheduler: Any,
        semidefinite: bool = False,
        seed: int = 0,
        keep: Keep = computed,
        ends: Ends | None = None,
    ):
        self._gradient, self._damping, self._scheduler = gradient, damping, scheduler
        self._keep = keep
        self._size = int(matrix.shape[0])
        # A solve of a small block costs little beside the curvature: double precision makes the
        # residual check mean something at condition numbers up to 1e12.
        self._mixed = (
            semidefinite
            and self._size >= _LARGE
            and gradient.dtype == tf.float32
            and scheduler.possible(self._size) == ("cholesky",)
        )
        self._matrix = matrix if self._mixed else tf.cast(matrix, tf.float64)
        self._semidefinite = semidefinite
        self._bounded = damping.adaptive or damping.definite or semidefinite
        if ends is None:
            find = self._semidefinite_ends if semidefinite else self._both_ends
            ends = find(matrix, keep, seed)
        self.ends = ends
        self._norm, self._spectrum, self._sparsity, self.products = ends
        if scheduler.estimator is not None:
            self.products = tf.constant(math.nan, tf.float64)  # an estimate by factorisation
        self.scale = largest(self._spectrum)
        # Reshaping needs a lower bound of the eigenvalues, and a price to lower.
        priced = len(scheduler.candidates(self._bounded)) > 1 or scheduler.quantum is not None
        self._reshaping = None
        if scheduler.reshape is not None and self._bounded and priced and not self._mixed:
            self._reshaping = Reshaping(self._matrix, self._sparsity, scheduler)

    def _semidefinite_ends(self, matrix: tf.Tensor, keep: Keep, seed: int) -> Ends:
        """Only the large end is searched."""
        norm = tf.cast(tf.sqrt(2 * tf.nn.l2_loss(matrix)), tf.float64)
        # Rounding each entry moves no eigenvalue by more than that much of Frobenius's norm.
        rounding = -EPSILON[matrix.dtype] * norm
        operand = tf.cast(matrix, self._gradient.dtype)
        # A factorisation waits for the norm alone, and what is for the log is not to be before it.
        with tf.control_dependencies([rounding]):
            sparsity = row_nonzeros(matrix, shifted=True)
            spectrum = kept_spectrum(
                keep, lambda: largest_eigenvalue(operand, LARGE_END_STEPS, seed)
            )
        spectrum = semidefinite_spectrum(spectrum, rounding)
        return Ends(norm, spectrum, sparsity, full_products(spectrum, operand))

    def _both_ends(self, matrix: tf.Tensor, keep: Keep, seed: int) -> Ends:
        precise = self._damping.definite
        # Of a large matrix a product takes as long as it takes to be read.
        short = self._size >= _LARGE and not precise
        operand = matrix if short else self._matrix
        if short and self._scheduler.leaves_graph(self._size, self._bounded):
            spectrum = kept_spectrum(keep, lambda: extremal_eigenvalues_on_host(operand, seed=seed))
            products = full_products(spectrum, operand, part=0.5)
        else:
            same_time = LANCZOS_STEPS * tf.float64.size // operand.dtype.size
            steps = _DEFINITE_STEPS if precise else same_time
            spectrum = kept_spectrum(
                keep, lambda: extremal_eigenvalues(operand, iterations=steps, seed=seed)
            )
            products = full_products(spectrum, operand)
        products = products if self._bounded else tf.constant(math.nan, tf.float64)
        norm = tf.constant(0.0, tf.float64)
        return Ends(norm, spectrum, row_nonzeros(matrix, shifted=True), products)

    def estimate(self, damping: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """κ of H + s I, and s, at damping λ; scalars, float64."""
        shift = self._damping.shift(self._matrix, self._spectrum, damping)
        return self._condition_number(shift), shift

    def solve(self, damping: tf.Tensor) -> BlockStep:
        kappa, shift = self.estimate(damping)
        reshaping = self._reshaping
        if reshaping is None:
            return self._solve_as_it_is(kappa, shift)
        smallest = self._lowest(shift)
        largest = self._spectrum.lambda_max + self._spectrum.residual_max + shift
        trade = reshaping.pick(smallest, largest, kappa)

        step = tf.cond(
            trade.better,
            lambda: self._solve_reshaped(reshaping, trade, shift, smallest),
            self._not_solved,
        )
        # Written so that NaN fails.
        return tf.cond(
            step.error_bound <= self._scheduler.reshape.bound,
            lambda: step,
            lambda: self._solve_as_it_is(kappa, shift)._replace(error_bound=step.error_bound),
        )

    def _not_solved(self) -> BlockStep:
        """A `BlockStep` in which nothing is known."""
        unknown, none = tf.constant(math.nan, tf.float64), tf.constant(0)
        predicted = tf.fill([len(self._scheduler.routes)], unknown)
        return BlockStep(
            tf.zeros_like(self._gradient),
            *(unknown, unknown, none, none, none, unknown),
            predicted,
            unknown,
            *not_reshaped(),
        )

    def _solve_as_it_is(self, kappa: tf.Tensor, shift: tf.Tensor) -> BlockStep:
        """(H + s I) x = g."""
        choice = self._choice(kappa, self._sparsity, self._bounded)
        rhs = tf.cast(self._gradient, tf.float64)
        if self._mixed:
            answer = self._run_mixed(shift, rhs, kappa, choice[0], choice[1])
        else:
            answer = self._run(self._system(shift), rhs, kappa, choice[0], choice[1], shift)
        return self._step(kappa, self._sparsity, choice, answer, not_reshaped())

    def _solve_reshaped(
        self, reshaping: Reshaping, trade: Trade, shift: tf.Tensor, smallest: tf.Tensor
    ) -> BlockStep:
        """Â x̂ = g, and how far x̂ may be from the solution of the system as it is."""
        kappa, sparsity = trade.condition_number, trade.sparsity
        choice = self._choice(kappa, sparsity, definite=True)
        rhs = tf.cast(self._gradient, tf.float64)
        answer = self._run(reshaping.system(trade, shift), rhs, kappa, *choice[:2])
        gap = rhs - tf.linalg.matvec(self._matrix, answer[0]) - shift * answer[0]
        error = self._scheduler.reshape.checked_error(smallest, gap, answer[0])
        return self._step(kappa, sparsity, choice, answer, (self._sparsity, trade.shift, error))

    def _choice(self, kappa: tf.Tensor, sparsity: tf.Tensor, definite: bool) -> Numbers:
        """Route, predicted seconds, and rule, of `Scheduler.choose_index`."""
        choice: Numbers = self._scheduler.choose_index(
            self._size, kappa, sparsity, definite=definite
        )
        return choice

    def _step(
        self,
        kappa: tf.Tensor,
        sparsity: tf.Tensor,
        choice: Numbers,
        answer: Answer,
        reshaped: Numbers,
    ) -> BlockStep:
        """A `BlockStep`; `reshaped` are its last three."""
        (index, predicted, rule), (x, residual, used) = choice, answer
        return BlockStep(
            tf.cast(x, self._gradient.dtype),
            kappa,
            sparsity,
            index + len(FIXED_ROUTES),
            used,
            rule,
            residual,
            predicted,
            self.products,
            *reshaped,
        )

    def _lowest(self, shift: tf.Tensor) -> tf.Tensor:
        """σ: no eigenvalue of H + s I is below, given that Lanczos found the lower end."""
        return self._spectrum.lambda_min - self._spectrum.residual_min + shift

    def _system(self, shift: tf.Tensor) -> tf.Tensor:
        """H + s I in float64."""
        matrix = tf.cast(self._matrix, tf.float64)
        return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift)

    def _condition_number(self, shift: tf.Tensor) -> tf.Tensor:
        """κ(H + s I): the estimator's, if one is named; else by the spectrum's ends."""
        if self._scheduler.estimator is not None:
            return condition_number(self._system(shift), method=self._scheduler.estimator)
        by_ends = condition_estimate(self._spectrum, shift)
        if self._semidefinite:
            # Rounding, which would be taken off the shift, moves eigenvalues by far less.
            largest = self._spectrum.lambda_max + self._spectrum.residual_max + shift
            return tf.where(shift > 0, largest / shift, by_ends)
        if self._bounded:
            return by_ends

        def estimated() -> tf.Tensor:
            return condition_number(self._system(shift), method="lanczos")

        # Not shifted past its negative eigenvalues, maybe. Where κ decides, it is estimated to
        # 1 %, and where it is for the log alone, a factorisation is too much for it.
        if len(self._scheduler.possible(self._size)) > 1:
            return estimated()
        return tf.cond(self._lowest(shift) > 0, lambda: by_ends, estimated)

    def _run_mixed(
        self,
        shift: tf.Tensor,
        rhs: tf.Tensor,
        kappa: tf.Tensor,
        index: tf.Tensor,
        predicted: tf.Tensor,
    ) -> Answer:
        """`_run` by a factor in float32; in float64 where that does not reach the tolerance."""
        tolerance = target(None, np.float64)
        nan = tf.constant(float("nan"), tf.float64)

        def keep(factorised: Callable[[], BlockedFactor]) -> BlockedFactor:
            if self._keep is computed:
                return factorised()
            packed = kept_factor(self._keep, MIXED, shift, lambda: packed_factor(factorised()))
            return unpacked_factor(packed, tf.float32)

        x, residual = tf.cond(
            self._norm + shift <= _MIXED_CONDITION * shift,
            lambda: mixed_cholesky(self._matrix, shift, rhs, tolerance, keep),
            lambda: (tf.zeros_like(rhs), nan),
        )
        # Written so that a NaN residual fails.
        return tf.cond(
            residual <= tolerance,
            lambda: Answer(x, residual, tf.constant(len(FIXED_ROUTES))),
            lambda: self._run(self._system(shift), rhs, kappa, index, predicted, shift),
        )

    def _solved(
        self, solver: Any, kind: int, system: tf.Tensor, rhs: tf.Tensor, shift: tf.Tensor | None
    ) -> Solution:
        """By one solver; with the last step's factor, if that was of the same system."""
        if self._keep is computed or shift is None or not isinstance(solver, Packable):
            solution: Solution = solver.solve(system, rhs)
            return solution
        packed = kept_factor(self._keep, kind, shift, lambda: solver.pack(solver.init(system)))
        kept: Solution = solver.compute(solver.unpack(system, packed), rhs)
        return kept

    def _run(
        self,
        system: tf.Tensor,
        rhs: tf.Tensor,
        kappa: tf.Tensor,
        index: tf.Tensor,
        predicted: tf.Tensor,
        shift: tf.Tensor | None = None,
    ) -> Answer:
        """Solution, residual, and the index of the route that gave it.

        Args:
            system: `[N, N]`, float64.
            rhs: `[N]`, float64.
            kappa: κ of `system`.
            index: Of the route that was chosen.
            predicted: Seconds by route.
            shift: s, if the system is H + sI.
        """
        indefinite = tf.constant(False)
        if shift is not None:
            # One eigenvalue at least is below a Ritz value and its residual.
            ritz = self._spectrum.lambda_min + self._spectrum.residual_min
            indefinite = ritz + shift < 0
        attempts = Attempts(
            System(system, rhs, kappa, self._bounded, indefinite),
            self._scheduler,
            lambda solver, kind: self._solved(solver, kind, system, rhs, shift),
            tried_again=self._damping.adaptive,
        )
        return attempts.answer(index, predicted)
