"""(H² + λ²I)^(-1/2) g, by eigendecomposition or by a circuit."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_qnewton.conditioning import extremal_eigenvalues
from keras_qnewton.directions.block_step import (
    FIXED_ROUTES,
    RULE_ABSOLUTE,
    RULE_SADDLE_FREE,
    BlockStep,
    Keep,
    computed,
    not_reshaped,
    unscheduled,
)
from keras_qnewton.directions.kept_factor import EIGEN, kept_factor
from keras_qnewton.directions.spectrum import (
    LANCZOS_STEPS,
    full_products,
    kept_spectrum,
    largest,
    row_nonzeros,
)
from keras_qnewton.solvers import Eigen
from keras_qnewton.solvers.eigen import EigenState


class SaddleFree:
    """(H² + λ²I)^(-1/2) g: saddle-free Newton, Dauphin et al. 2014 (arXiv:1406.2572)."""

    def __init__(
        self,
        matrix: tf.Tensor,
        gradient: tf.Tensor,
        scheduler: Any,
        keep: Keep = computed,
    ):
        self._gradient, self._scheduler = gradient, scheduler
        self._sparsity = row_nonzeros(matrix)
        self._eigen = Eigen()
        self._state = self._decomposed(matrix, keep)
        self._magnitudes = tf.abs(tf.cast(self._state.eigenvalues, tf.float64))
        self.scale = tf.reduce_max(self._magnitudes)

    def _decomposed(self, matrix: tf.Tensor, keep: Keep) -> EigenState:
        if keep is computed:
            return self._eigen.init(matrix)
        packed = kept_factor(keep, EIGEN, 0.0, lambda: self._eigen.pack(self._eigen.init(matrix)))
        return self._eigen.unpack(matrix, packed)

    def solve(self, damping: tf.Tensor) -> BlockStep:
        solution = self._eigen.compute_absolute(self._state, self._gradient, damping)
        damped = tf.sqrt(self._magnitudes**2 + damping**2)
        return unscheduled(
            solution,
            condition_number=tf.reduce_max(damped) / tf.reduce_min(damped),
            sparsity=self._sparsity,
            rule=RULE_SADDLE_FREE,
            scheduler=self._scheduler,
        )


class Absolute:
    """(H² + λ²I)^(-1/2) g by the quantum solver's `solve_absolute`, where the scheduler says so.

    It is asked with κ of (H² + λ²I)^(1/2), of which √(‖H‖² + λ²)/λ is a bound that needs no
    decomposition: 20 Lanczos steps for ‖H‖. Where it does not say so, or the circuit's residual is
    too large, an eigendecomposition solves; unlike `SaddleFree`'s, a new one for each λ.
    """

    @staticmethod
    def possible(scheduler: Any, size: int) -> bool:
        """Whether a circuit could ever be chosen for a block of `size` weights."""
        quantum = scheduler.quantum
        return hasattr(quantum, "solve_absolute") and quantum.name in scheduler.possible(size)

    def __init__(
        self,
        matrix: tf.Tensor,
        gradient: tf.Tensor,
        scheduler: Any,
        seed: int = 0,
        keep: Keep = computed,
    ):
        self._matrix, self._gradient, self._scheduler = matrix, gradient, scheduler
        self._sparsity = row_nonzeros(matrix)
        spectrum = kept_spectrum(
            keep, lambda: extremal_eigenvalues(matrix, iterations=LANCZOS_STEPS, seed=seed)
        )
        self._products = full_products(spectrum, matrix)
        self._norm = largest(spectrum)
        # Not the bound: Ritz values are far closer than their residuals say.
        self.scale = tf.maximum(tf.abs(spectrum.lambda_min), tf.abs(spectrum.lambda_max))

    def solve(self, damping: tf.Tensor) -> BlockStep:
        scheduler, eigen = self._scheduler, tf.constant(FIXED_ROUTES.index("eigen"))
        quantum = scheduler.routes.index(scheduler.quantum.name)
        kappa = tf.sqrt(self._norm**2 + damping**2) / damping
        size = int(self._matrix.shape[0])
        index, predicted, rule = scheduler.choose_index(size, kappa, self._sparsity, absolute=True)
        chosen = tf.equal(index, quantum)

        def decomposed() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            solution = Eigen().solve_absolute(self._matrix, self._gradient, damping)
            return solution.x, tf.cast(solution.residual, tf.float64), eigen

        def circuit() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            solution = scheduler.quantum.solve_absolute(self._matrix, self._gradient, damping)
            # Written so that a NaN residual fails.
            passed = solution.residual <= scheduler.tolerance
            answer = solution.x, solution.residual, tf.constant(len(FIXED_ROUTES) + quantum)
            return tf.cond(passed, lambda: answer, decomposed)

        x, residual, used = tf.cond(chosen, circuit, decomposed)
        route = tf.where(chosen, len(FIXED_ROUTES) + quantum, eigen)
        return BlockStep(
            x,
            kappa,
            self._sparsity,
            route,
            used,
            rule + RULE_ABSOLUTE,
            residual,
            predicted,
            self._products,
            *not_reshaped(),
        )
