"""(H² + λ²I)^(-1/2) g, by eigendecomposition or by a circuit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import extremal_eigenvalues
from keras_qnewton.directions.block_step import (
    FIXED_ROUTES,
    RULE_ABSOLUTE,
    RULE_SADDLE_FREE,
    BlockStep,
    measured_alpha,
    no_lengths,
    not_reshaped,
    unscheduled,
)
from keras_qnewton.directions.direction import Direction
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.saddle import off_a_saddle
from keras_qnewton.directions.spectrum import (
    LANCZOS_STEPS,
    full_products,
    largest,
    row_nonzeros,
)
from keras_qnewton.norms import hypotenuse
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.solvers import Eigen, on_host
from keras_qnewton.solvers.checks import passes
from keras_qnewton.solvers.eigen import EigenState
from keras_qnewton.state import FactorKind
from keras_qnewton.types import AbsoluteSolver, QuantumSolver


class SaddleFreeState(NamedTuple):
    """A block's eigendecomposition; see `DirectionState`.

    Attributes:
        formation: See there.
        scale: See there.
        eigen: Eigenvalues and eigenvectors of H.
        magnitudes: |eigenvalues|, float64 `[N]`.
        sparsity: d, float64 scalar.
    """

    formation: tf.Tensor
    scale: tf.Tensor
    eigen: EigenState
    magnitudes: tf.Tensor
    sparsity: tf.Tensor


class SaddleFree(Direction[SaddleFreeState]):
    """(H² + λ²I)^(-1/2) g: saddle-free Newton, Dauphin et al. 2014 (arXiv:1406.2572).

    At a saddle point it is the way off; see `directions.saddle`. One eigendecomposition serves
    every λ.
    """

    def init(self, problem: BlockProblem) -> SaddleFreeState:
        """Decomposes the block."""
        formed, eigen = problem.form(), Eigen()
        matrix = tf.cast(formed.matrix, problem.gradient.dtype)
        sparsity = row_nonzeros(matrix)
        if problem.kept.has_factor:
            packed = problem.kept.factor(
                formed.unchanged,
                FactorKind.EIGEN,
                0.0,
                lambda: eigen.pack(eigen.init(matrix)),
            )
            decomposed = eigen.unpack(matrix, packed)
        else:
            decomposed = eigen.init(matrix)
        magnitudes = tf.abs(tf.cast(decomposed.eigenvalues, tf.float64))
        return SaddleFreeState(
            formed.how, tf.reduce_max(magnitudes), decomposed, magnitudes, sparsity
        )

    def solve(self, problem: BlockProblem, state: SaddleFreeState, damping: tf.Tensor) -> BlockStep:
        """x by the decomposition of `init`."""
        solution = Eigen().compute_absolute(state.eigen, problem.gradient, damping)
        x = off_a_saddle(solution.x, problem, state.eigen, damping)
        # The residual stays the solution's: what is added solves no system.
        solution = dataclasses.replace(solution, x=x)
        damped = hypotenuse(state.magnitudes, damping)
        return unscheduled(
            solution,
            condition_number=tf.reduce_max(damped) / tf.reduce_min(damped),
            sparsity=state.sparsity,
            rule=RULE_SADDLE_FREE,
            scheduler=self._settings.scheduler,
        )


class AbsoluteState(NamedTuple):
    """A block and its norm; see `DirectionState`.

    Attributes:
        formation: See there.
        scale: See there.
        matrix: H `[N, N]`.
        norm: An upper bound of ‖H‖₂, float64 scalar.
        sparsity: d, float64 scalar.
        products: Products with H that κ takes, float64 scalar.
    """

    formation: tf.Tensor
    scale: tf.Tensor
    matrix: tf.Tensor
    norm: tf.Tensor
    sparsity: tf.Tensor
    products: tf.Tensor


class Absolute(Direction[AbsoluteState]):
    """(H² + λ²I)^(-1/2) g by the quantum solver's `solve_absolute`, where the scheduler says so.

    It is asked with κ of (H² + λ²I)^(1/2), of which √(‖H‖² + λ²)/λ is a bound that needs no
    decomposition: 20 Lanczos steps for ‖H‖. Where it does not say so, or the circuit's residual is
    too large, an eigendecomposition solves; unlike `SaddleFree`'s, a new one for each λ.
    """

    @staticmethod
    def possible(scheduler: Scheduler, size: int) -> bool:
        """Whether a circuit could ever be chosen for a block of `size` weights."""
        quantum = scheduler.quantum
        return _solves_absolute(quantum) and quantum.name in scheduler.possible(size)

    def init(self, problem: BlockProblem) -> AbsoluteState:
        """Forms the block, and finds its norm by Lanczos."""
        formed = problem.form()
        matrix = tf.cast(formed.matrix, problem.gradient.dtype)
        sparsity = row_nonzeros(matrix)
        spectrum = problem.kept.spectrum(
            formed.unchanged,
            lambda: extremal_eigenvalues(
                matrix, iterations=LANCZOS_STEPS, seed=self._settings.seed
            ),
        )
        return AbsoluteState(
            formation=formed.how,
            # Ritz values: they are far closer than their residuals, and so the bound, say.
            scale=tf.maximum(tf.abs(spectrum.lambda_min), tf.abs(spectrum.lambda_max)),
            matrix=matrix,
            norm=largest(spectrum),
            sparsity=sparsity,
            products=full_products(spectrum, matrix),
        )

    def solve(self, problem: BlockProblem, state: AbsoluteState, damping: tf.Tensor) -> BlockStep:
        """x by the circuit or by an eigendecomposition."""
        scheduler, gradient = self._settings.scheduler, problem.gradient
        solver, eigen = scheduler.quantum, tf.constant(FIXED_ROUTES.index("eigen"))
        assert _solves_absolute(solver)  # see `possible`
        quantum = scheduler.routes.index(solver.name)
        kappa = hypotenuse(state.norm, damping) / damping
        measured: Mapping[str, Any] = {}
        if scheduler.measures(problem.size):
            measured = scheduler.quantum_price.measure(
                state.matrix, state.norm, kappa, state.sparsity
            )
        index, predicted, rule = scheduler.choose_index(
            problem.size, kappa, state.sparsity, absolute=True, measured=measured
        )
        chosen = tf.equal(index, quantum)

        def decomposed() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            solution = Eigen().solve_absolute(state.matrix, gradient, damping)
            return solution.x, tf.cast(solution.residual, tf.float64), eigen

        def circuit() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            solution = on_host.solve_absolute(solver, state.matrix, gradient, damping)
            answer = solution.x, solution.residual, tf.constant(len(FIXED_ROUTES) + quantum)
            return _tf_private.cond(
                passes(solution.residual, scheduler.tolerance), lambda: answer, decomposed
            )

        x, residual, used = _tf_private.cond(chosen, circuit, decomposed)
        route = tf.where(chosen, len(FIXED_ROUTES) + quantum, eigen)
        return BlockStep(
            x,
            kappa,
            state.sparsity,
            route,
            used,
            rule + RULE_ABSOLUTE,
            residual,
            predicted,
            state.products,
            *not_reshaped(),
            measured_alpha(measured),
            no_lengths(scheduler),
        )


def _solves_absolute(solver: QuantumSolver | None) -> TypeGuard[AbsoluteSolver]:
    # `isinstance` with a protocol would not see methods that a wrapper delegates.
    return hasattr(solver, "solve_absolute")
