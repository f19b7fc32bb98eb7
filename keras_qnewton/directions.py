"""The direction x_k of one Hessian block, in the five ways there are.

    SaddleFree   (H² + λ²I)^(-1/2) g   dense, by eigendecomposition; one for all λ
    Absolute     (H² + λ²I)^(-1/2) g   dense, by a circuit or by eigendecomposition, as the
                                       scheduler chooses
    Scheduled    (H + s(λ) I)^(-1) g   dense, by whichever solver the scheduler chooses: for
                                       positive semidefinite curvature, and for circuits
    MatrixFree   (H + s(λ) I)^(-1) g   too large to be formed: conjugate gradients on H v
    Woodbury     (UᵀU + s(λ)I)^(-1) g  too large to be formed, of low rank on a small batch

Each is built once a step from the block's curvature and then solved for as many λ as the
step tries. A circuit's solution that fails its residual check is solved again classically.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from keras_qnewton.conditioning import Spectrum, condition_number, extremal_eigenvalues
from keras_qnewton.conditioning.lanczos import EPSILON
from keras_qnewton.curvature.low_rank import MAX_RANK
from keras_qnewton.reshaping import Reshaping, Trade
from keras_qnewton.solvers import Cholesky, ConjugateGradient, Eigen
from keras_qnewton.solvers.eigen import EigenState
from keras_qnewton.solvers.mixed_precision import mixed_cholesky
from keras_qnewton.solvers.refinement import target
from keras_qnewton.types import Solution

# Routes that are not the scheduler's to choose, before its own.
FIXED_ROUTES = ("eigen", "cg", "woodbury")
# A matrix that no linear solver can take (Cholesky: not positive definite; LU: singular).
_LAST_RESORT = FIXED_ROUTES.index("eigen")
# Which rule decided, where the scheduler was not asked (its own rules count from 0).
RULE_SADDLE_FREE, RULE_MATRIX_FREE, RULE_LOW_RANK = -1, -2, -3
# Added to the scheduler's rule where it chose for a saddle-free step.
RULE_ABSOLUTE = 100

_EXPLANATIONS = {
    RULE_SADDLE_FREE: ("a saddle-free step takes an eigendecomposition, whatever it costs"),
    RULE_MATRIX_FREE: (
        "too large a block to be formed: conjugate gradients on Hessian-vector products"
    ),
    RULE_LOW_RANK: (
        "too large a block to be formed, but of low rank on so small a batch: solved exactly in "
        "as many dimensions as its rank (Woodbury)"
    ),
}
_LANCZOS_STEPS = 20
# Where nothing but λ_min's error bound is between a fixed shift and a needlessly short step: on
# a pruned block of 1,040 weights the bound is 4e-3 after 20 steps, 6e-7 after 60 (λ_min -1e-2).
_DEFINITE_STEPS = 60
# From this N on a factorisation in float64 is what a step takes longest for.
_LARGE = 512
# κ up to which refinement makes up for one in float32.
_MIXED_CONDITION = 1e6
# Of a backward stable solve's residual, ‖Ax - b‖ ≤ c u κ ‖b‖ (Higham 2002, section 7.1).
_ROUNDING = 8.0
# x = 0 has the residual 1.
_NO_SOLUTION = 0.1

# Solution, residual, and the index of the route that gave it.
_Answer = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
_Numbers = tuple[tf.Tensor, ...]
# From a name and a function that computes something of a block's matrix to that, or what it was at
# an earlier step with the same matrix, and whether it is new.
Keep = Callable[[str, Callable[[], _Numbers]], tuple[_Numbers, tf.Tensor]]


def _computed(_: str, compute: Callable[[], _Numbers]) -> tuple[_Numbers, tf.Tensor]:
    """Keeps nothing."""
    return compute(), tf.constant(True)


class BlockStep(NamedTuple):
    """One block's solution at one λ, as tensors.

    Attributes:
        x: `[N]`, the dtype of the curvature.
        condition_number: κ of the system, float64 scalar: exact, or an upper bound.
        sparsity: d, largest number of non-zeros in a row, float64 scalar.
        route: What was chosen, int32 index into `FIXED_ROUTES` + the scheduler's routes.
        solved_by: What solved it in the end, likewise.
        rule: Which rule decided, int32.
        residual: `||A x - b|| / ||b||`, float64 scalar.
        predicted: Seconds by scheduler route, float64 `[R]`; NaN where nothing was priced.
        products: Products with the matrix that κ took, float64; NaN where it took something else.
        sparsity_before: d before reshaping, float64; NaN for a system solved as it is.
        added_shift: ε of reshaping, likewise.
        error_bound: Of a reshaped system's solution, as checked; NaN if none was tried.
    """

    x: tf.Tensor
    condition_number: tf.Tensor
    sparsity: tf.Tensor
    route: tf.Tensor
    solved_by: tf.Tensor
    rule: tf.Tensor
    residual: tf.Tensor
    predicted: tf.Tensor
    products: tf.Tensor
    sparsity_before: tf.Tensor
    added_shift: tf.Tensor
    error_bound: tf.Tensor


class Direction(Protocol):
    """Attributes: `scale`, the largest |eigenvalue| of the block, a float64 scalar."""

    scale: tf.Tensor

    def solve(self, damping: tf.Tensor) -> BlockStep:
        """The direction at damping λ, a float64 scalar."""
        ...


def direction(
    at: Any,
    k: int,
    part: Any,
    matrix: tf.Tensor | None,
    gradient: tf.Tensor,
    damping: Any,
    scheduler: Any,
    pruning: Any,
    seed: int,
    keep: Keep = _computed,
) -> Direction:
    """The way in which the k-th block is solved.

    Args:
        at: Curvature at the present weights (`curvature.linearized.Linearized`).
        k: Block number.
        part: The block's `Part`.
        matrix: H_k `[N, N]`, or None if the block is too large to be formed.
        gradient: g_k `[N]`.
        damping: Damping policy.
        scheduler: Chooses among linear solvers.
        pruning: From a matrix to a `Pruned`, or None to keep all.
        seed: Of the Lanczos start vectors.
        keep: Spares what was computed of the same matrix at an earlier step.
    """
    if matrix is None:
        free = MatrixFree(at, k, part.size, gradient, damping, scheduler)
        factors = at.low_rank(k)
        return Large(free, seed) if factors is None else Large(free, seed, *factors)
    if pruning is not None:
        matrix = pruning(matrix).matrix
    linear = scheduler.quantum is not None or at.positive_semidefinite
    if damping.saddle_free(linear=linear):
        if Absolute.possible(scheduler, part.size):
            return Absolute(matrix, gradient, scheduler, seed, keep)
        return SaddleFree(matrix, gradient, scheduler, keep)
    # Pruning may take a semidefinite matrix's definiteness away.
    semidefinite = at.positive_semidefinite and pruning is None
    return Scheduled(matrix, gradient, damping, scheduler, semidefinite, seed, keep)


def explain(rule: int) -> str:
    """The sentence for a rule of this module."""
    return _EXPLANATIONS[rule]


class SaddleFree:
    """(H² + λ²I)^(-1/2) g: saddle-free Newton, Dauphin et al. 2014 (arXiv:1406.2572)."""

    def __init__(
        self,
        matrix: tf.Tensor,
        gradient: tf.Tensor,
        scheduler: Any,
        keep: Keep = _computed,
    ):
        self._gradient, self._scheduler = gradient, scheduler
        self._sparsity = _row_nonzeros(matrix)
        self._eigen = Eigen()
        self._state = EigenState(matrix, *keep("eigen", lambda: self._eigen.init(matrix)[1:])[0])
        self._magnitudes = tf.abs(tf.cast(self._state.eigenvalues, tf.float64))
        self.scale = tf.reduce_max(self._magnitudes)

    def solve(self, damping: tf.Tensor) -> BlockStep:
        solution = self._eigen.compute_absolute(self._state, self._gradient, damping)
        damped = tf.sqrt(self._magnitudes**2 + damping**2)
        return _unscheduled(
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
        keep: Keep = _computed,
    ):
        self._matrix, self._gradient, self._scheduler = matrix, gradient, scheduler
        self._sparsity = _row_nonzeros(matrix)
        spectrum, new = _kept_spectrum(
            keep, lambda: extremal_eigenvalues(matrix, iterations=_LANCZOS_STEPS, seed=seed)
        )
        self._products = _products(_LANCZOS_STEPS, matrix, new)
        self._norm = _largest(spectrum)
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
            *_not_reshaped(),
        )


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
            self._product, self.size, iterations=_LANCZOS_STEPS, dtype=dtype, seed=seed
        )
        return _semidefinite(found, dtype) if self._semidefinite else found

    def solve(self, spectrum: Spectrum, damping: tf.Tensor) -> BlockStep:
        shift = self.damping.shift(None, spectrum, damping)
        kappa, radius = _bound(spectrum, shift), None
        if self._trust_region:
            shift = damping
            radius = tf.norm(self.gradient) / tf.cast(damping, self.gradient.dtype)
        s = tf.cast(shift, self.gradient.dtype)
        solution = self._cg.solve_operator(
            lambda v: self._product(v) + s * v, self.gradient, radius=radius
        )
        return _unscheduled(
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
        return _unscheduled(
            solution,
            condition_number=_bound(spectrum, shift),
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
                found = extremal_eigenvalues(gram, iterations=_LANCZOS_STEPS, seed=seed)
                # The rest of the block's spectrum is zero, exactly.
                nothing = tf.zeros_like(found.lambda_min)
                return padded, found._replace(lambda_min=nothing, residual_min=nothing)

            nothing = tf.zeros([MAX_RANK, MAX_RANK], tf.float64)
            self._gram, self._spectrum = tf.cond(
                holds, small, lambda: (nothing, free.spectrum(seed))
            )
        self.scale = _largest(self._spectrum)

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


class Scheduled:
    """(H + s I)^(-1) g to float64 residuals, by the solver that the scheduler chooses."""

    def __init__(
        self,
        matrix: tf.Tensor,
        gradient: tf.Tensor,
        damping: Any,
        scheduler: Any,
        semidefinite: bool = False,
        seed: int = 0,
        keep: Keep = _computed,
    ):
        self._gradient, self._damping, self._scheduler = gradient, damping, scheduler
        self._size = int(matrix.shape[0])
        # A solve of a small block costs little beside the curvature: double precision makes the
        # residual check mean something at condition numbers up to 1e12.
        self._mixed = (
            semidefinite
            and self._size >= _LARGE
            and matrix.dtype == tf.float32
            and scheduler.possible(self._size) == ("cholesky",)
        )
        self._matrix = matrix if self._mixed else tf.cast(matrix, tf.float64)
        self._sparsity = _row_nonzeros(matrix, shifted=True)
        steps = _DEFINITE_STEPS if damping.definite else _LANCZOS_STEPS
        if semidefinite:
            steps = _LANCZOS_STEPS // 2

        def ends() -> Spectrum:
            if not semidefinite:
                return extremal_eigenvalues(self._matrix, iterations=steps, seed=seed)
            # The large end alone, which is found first.
            found = extremal_eigenvalues(matrix, iterations=steps, seed=seed)
            return _semidefinite(found, matrix.dtype)

        self._spectrum, new = _kept_spectrum(keep, ends)
        self._products = _products(steps, matrix if semidefinite else self._matrix, new)
        self._semidefinite = semidefinite
        self._bounded = damping.adaptive or damping.definite or semidefinite
        if not self._bounded:  # maybe a factorisation
            self._products = tf.constant(math.nan, tf.float64)
        self.scale = _largest(self._spectrum)
        # Reshaping needs a lower bound of the eigenvalues, and a price to lower.
        priced = len(scheduler.candidates(self._bounded)) > 1 or scheduler.quantum is not None
        self._reshaping = None
        if scheduler.reshape is not None and self._bounded and priced and not self._mixed:
            self._reshaping = Reshaping(self._matrix, self._sparsity, scheduler)

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
            *_not_reshaped(),
        )

    def _solve_as_it_is(self, kappa: tf.Tensor, shift: tf.Tensor) -> BlockStep:
        """(H + s I) x = g."""
        index, predicted, rule = self._scheduler.choose_index(
            self._size, kappa, self._sparsity, definite=self._bounded
        )
        rhs = tf.cast(self._gradient, tf.float64)
        if self._mixed:
            x, residual, used = self._run_mixed(shift, rhs, kappa, index, predicted)
        else:
            x, residual, used = self._run(self._system(shift), rhs, kappa, index, predicted)
        return BlockStep(
            tf.cast(x, self._gradient.dtype),
            kappa,
            self._sparsity,
            index + len(FIXED_ROUTES),
            used,
            rule,
            residual,
            predicted,
            self._products,
            *_not_reshaped(),
        )

    def _solve_reshaped(
        self, reshaping: Reshaping, trade: Trade, shift: tf.Tensor, smallest: tf.Tensor
    ) -> BlockStep:
        """Â x̂ = g, and how far x̂ may be from the solution of the system as it is."""
        index, predicted, rule = self._scheduler.choose_index(
            self._size, trade.condition_number, trade.sparsity, definite=True
        )
        rhs = tf.cast(self._gradient, tf.float64)
        system = reshaping.system(trade, shift)
        x, residual, used = self._run(system, rhs, trade.condition_number, index, predicted)
        gap = rhs - tf.linalg.matvec(self._matrix, x) - shift * x
        return BlockStep(
            tf.cast(x, self._gradient.dtype),
            trade.condition_number,
            trade.sparsity,
            index + len(FIXED_ROUTES),
            used,
            rule,
            residual,
            predicted,
            self._products,
            self._sparsity,
            trade.shift,
            self._scheduler.reshape.checked_error(smallest, gap, x),
        )

    def _lowest(self, shift: tf.Tensor) -> tf.Tensor:
        """σ: no eigenvalue of H + s I is below, given that Lanczos found the lower end."""
        return self._spectrum.lambda_min - self._spectrum.residual_min + shift

    def _system(self, shift: tf.Tensor) -> tf.Tensor:
        """H + s I in float64."""
        matrix = tf.cast(self._matrix, tf.float64)
        return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + shift)

    def _condition_number(self, shift: tf.Tensor) -> tf.Tensor:
        """κ(H + s I): a bound, or an estimate where there is no cheap bound."""
        bound = _bound(self._spectrum, shift)
        if self._semidefinite:
            # Rounding, which the bound takes off the shift, moves eigenvalues by far less.
            largest = self._spectrum.lambda_max + self._spectrum.residual_max + shift
            return tf.where(shift > 0, largest / shift, bound)
        if self._bounded:
            return bound

        def estimated() -> tf.Tensor:
            return condition_number(self._system(shift), method="lanczos")

        # Not shifted past its negative eigenvalues, maybe. Where κ decides, it is estimated to
        # 1 %, and where it is for the log alone, a factorisation is too much for it.
        if len(self._scheduler.possible(self._size)) > 1:
            return estimated()
        return tf.cond(self._lowest(shift) > 0, lambda: bound, estimated)

    def _run_mixed(
        self, shift: tf.Tensor, rhs: tf.Tensor, kappa: tf.Tensor, *choice: tf.Tensor
    ) -> _Answer:
        """`_run` by a factor in float32; in float64 where that does not reach the tolerance."""
        tolerance = target(None, np.float64)
        nan = tf.constant(float("nan"), tf.float64)
        x, residual = tf.cond(
            kappa <= _MIXED_CONDITION,
            lambda: mixed_cholesky(self._matrix, shift, rhs, tolerance),
            lambda: (tf.zeros_like(rhs), nan),
        )
        # Written so that a NaN residual fails.
        return tf.cond(
            residual <= tolerance,
            lambda: (x, residual, tf.constant(len(FIXED_ROUTES))),
            lambda: self._run(self._system(shift), rhs, kappa, *choice),
        )

    def _run(
        self,
        system: tf.Tensor,
        rhs: tf.Tensor,
        kappa: tf.Tensor,
        index: tf.Tensor,
        predicted: tf.Tensor,
    ) -> _Answer:
        """Solution, residual, and the index of the route that gave it."""
        scheduler, definite = self._scheduler, self._bounded
        # Another factorisation does not lower a residual that rounding explains.
        rounding = tf.minimum(_ROUNDING * EPSILON[tf.float64] * kappa, _NO_SOLUTION)
        rounding = tf.where(tf.math.is_finite(kappa), rounding, tf.zeros_like(rounding))
        sound = tf.maximum(rounding, scheduler.tolerance)

        def by(route: int) -> _Answer:
            solution = scheduler.solvers[route].solve(system, rhs)
            return solution.x, solution.residual, tf.constant(len(FIXED_ROUTES) + route)

        def last_resort() -> _Answer:
            solution = Eigen().solve(system, rhs)
            return solution.x, solution.residual, tf.constant(_LAST_RESORT)

        def tried(route: int, *others: int) -> _Answer:
            answer = by(route)
            if others:
                return tf.cond(
                    answer[1] <= sound, lambda: answer, lambda: _better(answer, tried(*others))
                )
            # Adaptive damping tries again at a larger λ, at which the system is definite.
            if self._damping.adaptive:
                return answer
            return tf.cond(tf.math.is_finite(answer[1]), lambda: answer, last_resort)

        def classical() -> _Answer:
            first = scheduler.fastest(predicted, definite)
            if isinstance(first, int):
                return tried(*scheduler.attempts(first, definite))
            orders = [
                scheduler.attempts(k, definite) for k in range(len(scheduler.candidates(definite)))
            ]
            return tf.switch_case(first, [lambda order=order: tried(*order) for order in orders])

        # A circuit is a host call: it must not be in a graph that could never choose it.
        quantum = scheduler.quantum
        if quantum is None or quantum.name not in scheduler.possible(self._size, definite):
            return classical()
        circuit = scheduler.routes.index(quantum.name)
        failed = tf.constant(float("nan"), tf.float64)
        answer = tf.cond(
            tf.equal(index, circuit),
            lambda: by(circuit),
            lambda: (tf.zeros_like(rhs), failed, tf.constant(_LAST_RESORT)),
        )
        # Written so that a NaN residual fails.
        return tf.cond(answer[1] <= scheduler.tolerance, lambda: answer, classical)


def _better(first: _Answer, second: _Answer) -> _Answer:
    """The answer with the smaller residual; the second if the first has none."""
    take = (second[1] < first[1]) | ~tf.math.is_finite(first[1])
    x, residual, used = (tf.where(take, b, a) for a, b in zip(first, second, strict=True))
    return x, residual, used


def _unscheduled(
    solution: Solution, *, condition_number: Any, sparsity: Any, rule: int, scheduler: Any
) -> BlockStep:
    route = tf.constant(FIXED_ROUTES.index(solution.solver))
    nothing = tf.fill([len(scheduler.routes)], tf.constant(float("nan"), tf.float64))
    return BlockStep(
        solution.x,
        condition_number,
        sparsity,
        route,
        route,
        tf.constant(rule),
        tf.cast(solution.residual, tf.float64),
        nothing,
        tf.constant(math.nan, tf.float64),
        *_not_reshaped(),
    )


def _kept_spectrum(keep: Keep, compute: Callable[[], Spectrum]) -> tuple[Spectrum, tf.Tensor]:
    (ends,), new = keep("spectrum", lambda: (tf.stack(compute()),))
    return Spectrum(*tf.unstack(ends, len(Spectrum._fields))), new


def _not_reshaped() -> tuple[tf.Tensor, ...]:
    """The last three of `BlockStep` for a system solved as it is."""
    return (tf.constant(math.nan, tf.float64),) * 3


def _products(steps: int, matrix: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Lanczos steps in products with a float64 matrix, none if it was spared; float64 scalar."""
    # A product takes as long as the matrix takes to be read.
    made = min(steps, int(matrix.shape[0])) * matrix.dtype.size / tf.float64.size
    return tf.where(new, tf.constant(made, tf.float64), tf.zeros([], tf.float64))


def _row_nonzeros(matrix: tf.Tensor, shifted: bool = False) -> tf.Tensor:
    """d of `matrix`, or of it with a shift on its diagonal."""
    counts = tf.math.count_nonzero(matrix, axis=1, dtype=tf.int32)
    if shifted:
        counts += tf.cast(tf.equal(tf.linalg.diag_part(matrix), 0), tf.int32)
    return tf.cast(tf.reduce_max(counts), tf.float64)


def _largest(spectrum: Any) -> tf.Tensor:
    return tf.maximum(
        tf.abs(spectrum.lambda_min - spectrum.residual_min),
        tf.abs(spectrum.lambda_max + spectrum.residual_max),
    )


def _semidefinite(spectrum: Spectrum, dtype: tf.DType) -> Spectrum:
    """The spectrum of a matrix that is positive semidefinite, but for rounding in `dtype`.

    Lanczos finds the small end of a spectrum late, and its error bound there would be added to
    every shift: known to be zero, it costs nothing.
    """
    rounding = -EPSILON[dtype] * (spectrum.lambda_max + spectrum.residual_max)
    return spectrum._replace(lambda_min=rounding, residual_min=tf.zeros_like(rounding))


def _bound(spectrum: Any, shift: tf.Tensor) -> tf.Tensor:
    """Upper bound of κ(H + s I), given that the shift made it positive definite."""
    highest = spectrum.lambda_max + spectrum.residual_max + shift
    lowest = spectrum.lambda_min - spectrum.residual_min + shift
    return highest / lowest
