"""A block's system by the Jacobian's rows U, for a circuit that encodes them.

    E = D + s                                D at least zero, from penalties on the weights   [N]
    e = min E,   V = U √(e/E),   g' = √(e/E) g                                     [r, N], [N]
    (VᵀV + e I) x' = g'                      x = √(e/E) x' solves (UᵀU + E) x = g
    ‖V‖_F² = Σ_j (e/E_j) (H_jj - D_j)        H = UᵀU + D, which is formed for its other solvers

So one system is solved with penalties and without. The price needs no row: r is known, norms of V
are H's, and how long x' is, on which the success probability depends, takes a few products with H.
Only a system that is sent to the circuit has its rows made.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning.lanczos import largest_eigenvalue
from keras_qnewton.conditioning.quadrature import relative_length
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.low_rank import MAX_RANK, RowFactors
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.spectrum import LARGE_END_STEPS
from keras_qnewton.norms import norm
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.scheduling.function_cost import accepted
from keras_qnewton.settings import Settings
from keras_qnewton.solvers import on_host
from keras_qnewton.solvers.checks import relative_norm
from keras_qnewton.types import RowSolver, RowSystem, Solution

# ‖Uᵀc - g‖/‖g‖ up to which c is one of g, for a solver that does not say how exact a run is.
_CLOSE = 1e-4


def max_rows(part: Part, settings: Settings) -> int:
    """Rows of U up to which a circuit is handed them; 0 where it is not."""
    scheduler = settings.scheduler
    if not (scheduler.by_rows and part.dense) or settings.pruning is not None:
        return 0
    if not settings.damping.positive or scheduler.quantum is None:
        return 0
    if scheduler.quantum.name not in scheduler.possible(part.size, definite=True):
        return 0
    limit = MAX_RANK
    while limit > part.size and _qubits(scheduler, part.size, limit) > scheduler.max_qubits:
        limit //= 2
    return limit


def _qubits(scheduler: Scheduler, size: int, rows: int) -> int:
    """Of a solver that has no argument for r, those of as large a matrix."""
    solver: Any = scheduler.quantum
    given = accepted(solver.qubits, {"rows": rows}, positional=1)
    return int(solver.qubits(size, **given) if given else solver.qubits(max(size, rows)))


def no_rows() -> dict[str, Any]:
    """`DampedRows.measured` of a block without rows."""
    return {"rows": tf.zeros([], tf.float64)}


@dataclasses.dataclass(frozen=True)
class DampedRows:
    """(UᵀU + D + s I) x = g of a block that is positive semidefinite.

    Attributes:
        problem: The block's; it has rows.
        solver: That takes them.
        matrix: H `[N, N]`, float64.
        highest: ‖H‖₂, or a bound of it, float64 scalar.
        shift: s, positive, float64 scalar.
        rhs: g `[N]`, float64.
        seed: Of Lanczos' start.
    """

    problem: BlockProblem
    solver: RowSolver
    matrix: tf.Tensor
    highest: tf.Tensor
    shift: tf.Tensor
    rhs: tf.Tensor
    seed: int

    @property
    def _rows(self) -> RowFactors:
        if self.problem.jacobian is None:
            raise ValueError(f"Block {self.problem.part.name!r} has no rows.")
        return self.problem.jacobian

    @functools.cached_property
    def _added(self) -> tf.Tensor:
        """E, float64 `[N]`, or a scalar where there is no D."""
        diagonal = self._rows.diagonal
        return self.shift if diagonal is None else diagonal + self.shift

    @functools.cached_property
    def _damping(self) -> tf.Tensor:
        """e, float64 scalar."""
        return tf.reduce_min(self._added)

    @functools.cached_property
    def _scaling(self) -> tf.Tensor:
        """√(e/E), float64 `[N]`, or a scalar."""
        return tf.sqrt(self._damping / self._added)

    def measured(self) -> dict[str, Any]:
        """What `QuantumPrice.of_rows` takes, float64 scalars; zero rows where none hold."""
        rows, e, gram = self._rows, self._damping, self._gram()
        squared, frobenius = self._largest(gram), tf.linalg.trace(gram)
        count = tf.cast(rows.number, tf.float64)
        # Rows of zeros have no circuit.
        usable = rows.holds & (squared > 0)
        return {
            "rows": tf.where(usable, count, tf.zeros_like(count)),
            "condition_number": tf.sqrt(1.0 + squared / e),
            "alpha": {
                "dilation": tf.ones_like(e),
                "frobenius": tf.sqrt(tf.maximum(tf.math.divide_no_nan(frobenius, squared), 1.0)),
            },
            "success": self._success(gram, squared, frobenius),
        }

    def _gram(self) -> tf.Tensor:
        """VᵀV `[N, N]`."""
        diagonal = self._rows.diagonal
        if diagonal is None:
            return self.matrix
        less = tf.linalg.diag_part(self.matrix) - diagonal
        return tf.linalg.set_diag(self.matrix, less) * self._scaling * self._scaling[:, None]

    def _largest(self, gram: tf.Tensor) -> tf.Tensor:
        """‖V‖₂²."""
        if self._rows.diagonal is None:
            return self.highest
        return largest_eigenvalue(gram, LARGE_END_STEPS, self.seed).lambda_max

    def _success(self, gram: tf.Tensor, squared: tf.Tensor, frobenius: tf.Tensor) -> tf.Tensor:
        """p of the first run, float64 scalar."""
        encoding = getattr(self.solver, "encoding_name", "dilation")
        alpha = tf.sqrt(frobenius if encoding == "frobenius" else squared)
        e, g = self._damping, self._scaling * self.rhs
        length, residuals = relative_length(gram, g, e), norm(self._coefficients)
        p = self.solver.success(length, e, tf.sqrt(e) / alpha, norm(g), residuals)
        return tf.cast(p, tf.float64)

    @functools.cached_property
    def _coefficients(self) -> tf.Tensor:
        """c `[r]`, float64; zeros where there is none with Uᵀc = g, or no rows hold."""
        rows = self._rows
        zeros = tf.zeros(tf.reshape(rows.number, [1]), tf.float64)
        make = rows.coefficients
        if make is None:
            return zeros

        def checked() -> tf.Tensor:
            c = make()
            # Penalties, and terms without curvature, have a gradient beside.
            off = relative_norm(rows.make().lift(c) - self.rhs, self.rhs)
            return tf.where(off <= getattr(self.solver, "epsilon", _CLOSE), c, zeros)

        return _tf_private.cond(rows.holds, checked, lambda: zeros)

    def within(self, tolerance: tf.Tensor | float) -> tf.Tensor | float:
        """The relative residual of x' with which x has one of `tolerance`."""
        if self._rows.diagonal is None:
            return tolerance
        share = tf.math.divide_no_nan(norm(self.rhs), norm(self._scaling * self.rhs))
        return tolerance * tf.reduce_min(self._scaling) * share

    def solve(self, tolerance: tf.Tensor | float) -> Solution:
        """x by the solver, a host call, and its residual; to be called where the rows hold.

        Args:
            tolerance: Relative residual that is enough.
        """
        factors, scaling = self._rows.make(), self._scaling
        rows, g = factors.matrix() * scaling, scaling * self.rhs
        known = self._rows.coefficients is not None
        c = self._coefficients if known else tf.zeros(tf.shape(rows)[:1], tf.float64)
        system = RowSystem(rows, g, self._damping, c)
        x = scaling * on_host.solve_rows(self.solver, system, self.within(tolerance))
        gap = factors.product(x) + self._added * x - self.rhs
        return Solution(
            x, relative_norm(gap, self.rhs), str(getattr(self.solver, "name", self.solver))
        )
