"""(H + s(λ) I)^(-1) g of a block that is too large to be formed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_qnewton.conditioning import Spectrum, extremal_eigenvalues
from keras_qnewton.conditioning.lanczos import EPSILON
from keras_qnewton.curvature.low_rank import MAX_RANK
from keras_qnewton.directions.block_step import (
    RULE_LOW_RANK,
    RULE_MATRIX_FREE,
    BlockStep,
    unscheduled,
)
from keras_qnewton.directions.spectrum import (
    LANCZOS_STEPS,
    condition_estimate,
    largest,
    semidefinite_spectrum,
)
from keras_qnewton.solvers import Cholesky, ConjugateGradient
from keras_qnewton.types import Solution


class MatrixFree:
    """Truncated conjugate gradients on H v (Steihaug 1983).

    (H + sI)x = g, with a shift s that makes it positive definite. Or, where the damping asks
    for |H| (`negative_curvature="absolute"`) and the curvature may be indefinite, (H + λI)x = g
    inside the trust region ‖x‖ ≤ ‖g‖/λ, the bound that the saddle-free step has: a direction of
    negative curvature is followed to its boundary. The first does better on digits (loss 2e-6
    against 9e-4 after 25 steps), which is why it is the default.
    """

    def __init__(
        self, at: Any, k: int, size: int, gradient: tf.Tensor, damping: Any, scheduler: Any
    ):
        self.size, self.gradient = size, gradient
        self.damping, self.scheduler = damping, scheduler
        self._product = lambda v: at.block_product(k, v)
        self._semidefinite = at.positive_semidefinite
        self._trust_region = not at.positive_semidefinite and damping.saddle_free(linear=True)
        # An inexact Newton step needs no accurate solution (Nocedal & Wright, section 7.1).
        self._cg = ConjugateGradient(tolerance=1e-3, max_iterations=min(2 * size, 250))

    def spectrum(self, seed: int) -> Spectrum:
        """The ends of the block's spectrum."""
        dtype = self.gradient.dtype
        found = extremal_eigenvalues(
            self._product, self.size, iterations=LANCZOS_STEPS, dtype=dtype, seed=seed
        )
        if not self._semidefinite:
            return found
        rounding = -EPSILON[dtype] * (found.lambda_max + found.residual_max)
        return semidefinite_spectrum(found, rounding)

    def solve(self, spectrum: Spectrum, damping: tf.Tensor) -> BlockStep:
        shift = self.damping.shift(None, spectrum, damping)
        kappa, radius = condition_estimate(spectrum, shift), None
        if self._trust_region:
            shift = damping
            radius = tf.norm(self.gradient) / tf.cast(damping, self.gradient.dtype)
        s = tf.cast(shift, self.gradient.dtype)
        solution = self._cg.solve_operator(
            lambda v: self._product(v) + s * v, self.gradient, radius=radius
        )
        return unscheduled(
            solution,
            condition_number=kappa,
            sparsity=tf.constant(self.size, tf.float64),
            rule=RULE_MATRIX_FREE,
            scheduler=self.scheduler,
        )


class Woodbury:
    """(UᵀU + s I)^(-1) g = (g - Uᵀ (UUᵀ + s I)^(-1) U g) / s in float64.

    Args:
        factors: U (`curvature.low_rank.LowRank`).
        gram: U Uᵀ `[r, r]`, in the corner of a larger matrix.
        free: The same block's `MatrixFree`.
    """

    def __init__(self, factors: Any, gram: tf.Tensor, free: MatrixFree):
        self._factors, self._gram, self._free = factors, gram, free

    def solve(self, spectrum: Spectrum, damping: tf.Tensor) -> BlockStep:
        free = self._free
        shift = free.damping.shift(None, spectrum, damping)
        g = tf.cast(free.gradient, tf.float64)
        projected = self._factors.project(g)
        rank = tf.size(projected)
        small = self._gram[:rank, :rank] + shift * tf.eye(rank, dtype=tf.float64)
        y = Cholesky(refinements=0).solve(small, projected).x
        x = (g - self._factors.lift(y)) / shift
        gap = self._factors.product(x) + shift * x - g
        solution = Solution(
            tf.cast(x, free.gradient.dtype),
            tf.math.divide_no_nan(tf.norm(gap), tf.norm(g)),
            "woodbury",
        )
        return unscheduled(
            solution,
            condition_number=condition_estimate(spectrum, shift),
            sparsity=tf.constant(free.size, tf.float64),
            rule=RULE_LOW_RANK,
            scheduler=free.scheduler,
        )


class Large:
    """A block that is too large to be formed: `Woodbury` where it is of low rank on this batch.

    Args:
        free: The block's `MatrixFree`.
        seed: Of the Lanczos start vector.
        holds: Whether the block has factors of low rank, a scalar bool.
        make: Makes them.
    """

    def __init__(
        self,
        free: MatrixFree,
        seed: int,
        holds: tf.Tensor | None = None,
        make: Callable[[], Any] | None = None,
    ):
        self._free, self._holds, self._make = free, holds, make
        if holds is None or make is None:
            self._spectrum = free.spectrum(seed)
        else:
            # Padded to a known size: XLA wants one shape of both branches.
            def small() -> tuple[tf.Tensor, Spectrum]:
                gram = make().gram()
                missing = MAX_RANK - tf.shape(gram)[0]
                padded = tf.pad(gram, [[0, missing], [0, missing]])
                found = extremal_eigenvalues(gram, iterations=LANCZOS_STEPS, seed=seed)
                # The rest of the block's spectrum is zero, exactly.
                nothing = tf.zeros_like(found.lambda_min)
                return padded, found._replace(lambda_min=nothing, residual_min=nothing)

            nothing = tf.zeros([MAX_RANK, MAX_RANK], tf.float64)
            self._gram, self._spectrum = tf.cond(
                holds, small, lambda: (nothing, free.spectrum(seed))
            )
        self.scale = largest(self._spectrum)

    def solve(self, damping: tf.Tensor) -> BlockStep:
        make = self._make
        if self._holds is None or make is None:
            return self._free.solve(self._spectrum, damping)
        # Woodbury's formula divides by the shift.
        shift = self._free.damping.shift(None, self._spectrum, damping)
        return tf.cond(
            self._holds & (shift > 0),
            lambda: Woodbury(make(), self._gram, self._free).solve(self._spectrum, damping),
            lambda: self._free.solve(self._spectrum, damping),
        )
