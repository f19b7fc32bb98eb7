"""The few types that every stage of the Newton step shares.

A leaf: it imports nothing of this package, so that loss, curvature, conditioning,
scheduling and solvers can all speak the same language without importing each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
import tensorflow as tf

# A number, or a tensor of one where it is known when a graph runs.
Scalar: TypeAlias = int | float | tf.Tensor
Array: TypeAlias = tf.Tensor | np.ndarray


class LinearSystem(NamedTuple):
    """A symmetric linear system ``matrix @ x = rhs``.

    Attributes:
        matrix: Tensor or array `[N, N]`, symmetric, real floating point.
        rhs: Tensor or array `[N]`, same dtype as `matrix`.
    """

    matrix: Array
    rhs: Array


@dataclasses.dataclass(frozen=True)
class Solution:
    """The solution of a linear system, and how good it is.

    Attributes:
        x: Tensor or array `[N]`, dtype of the right-hand side.
        residual: Scalar float64, ``||A x - b|| / ||b||``, evaluated in float64
            (0 when ``b`` is zero; NaN or Inf when the solve failed).
        solver: Name of the solver, as the scheduler's routes name it.
        details: What else the solver knows (for example a circuit's degree, qubits,
            success probability). Empty for solutions computed inside a graph.
    """

    x: Array
    residual: Scalar
    solver: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def summary(self, gate_time: float = 1e-9) -> str:
        """A plain text table of what the solver knows, circuits projected at `gate_time` seconds.

        Costs that were not needed for solving (depth, gates, T gates) are counted now.
        """
        rows: dict[str, Any] = {"solver": self.solver, "residual": self.residual}
        for name, value in self.details.items():
            if hasattr(value, "report"):
                rows.update(value.report(gate_time))
            elif value is not None:
                rows[name.replace("_", " ")] = value
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in rows.items())


@dataclasses.dataclass(frozen=True)
class Decision:
    """Why one Hessian block, at one step, went to one solver, and what came of it.

    The first group is what `Scheduler.choose` knows; the second is filled in by the
    optimizer once the step has been taken (`None` until then).

    Attributes:
        route: Solver that was chosen: "lu", "eigen", "cg", "qsvt", ...
        reason: One sentence with the numbers that decided.
        predicted: Predicted seconds by route.
        size: N, the block's number of weights.
        condition_number: κ of the system that was solved (an estimate or a bound).
        sparsity: d, the largest number of non-zeros in a row of the system.
        step: Optimizer iteration, from 0.
        block: Name of the block (the weights it covers).
        damping: λ used for this step.
        trust_ratio: ρ, actual over predicted reduction of this batch's loss; NaN where the
            reduction is below the loss's rounding.
        loss: This batch's loss before the step.
        loss_after: This batch's loss at the candidate weights, same batch and masks.
        accepted: Whether the step was taken.
        length: Step length, as a multiple of the blocks' solutions: below 1 where together they
            would go beyond the damped model's minimum, which one block alone cannot; times 2,
            4, 8 where ρ was so high that longer steps were tried and had a lower loss.
        residual: ``||A x - b|| / ||b||`` of the solution that was used.
        fallback: Whether `route` failed its check and `solved_by` took over.
        solved_by: Solver whose solution was used.
        formed_by: How the block's matrix came about: "layers: …" or "rows: …" where it was
            assembled from them; "rows by single backward passes: …", "columns by single forward
            passes: …" or "products with unit vectors: …" with the reason why not; "kept: …", "not
            formed".
        conditioning_seconds: Predicted seconds of estimating κ at this step: its products with
            the matrix; 0 where κ's ingredients were kept with the Hessian (`update_every`), so
            that the mean over steps is the amortised price. None where it is not known: a
            block that is not formed, or an estimate by factorisation.
        sparsity_before: d before the system was reshaped; None where it was solved as it is.
        added_shift: ε that reshaping added to the diagonal; None where it did not.
        error_bound: Upper bound of ‖x̂ - x‖/‖x‖, of reshaping; above the scheduler's bound if its
            check failed and the system was solved as it is. None where nothing was tried.
        step_seconds: Wall seconds of the whole training step, as `NewtonLog` measured them.
        evaluations: Evaluations of the loss and its gradient by a quasi-Newton step's line search;
            None of other steps.
    """

    route: str
    reason: str
    predicted: Mapping[str, float]
    size: int
    condition_number: float
    sparsity: int
    step: int | None = None
    block: str | None = None
    damping: float | None = None
    trust_ratio: float | None = None
    loss: float | None = None
    loss_after: float | None = None
    accepted: bool | None = None
    length: float | None = None
    residual: float | None = None
    fallback: bool | None = None
    solved_by: str | None = None
    formed_by: str | None = None
    conditioning_seconds: float | None = dataclasses.field(default=None, compare=False)
    sparsity_before: int | None = None
    added_shift: float | None = None
    error_bound: float | None = None
    step_seconds: float | None = dataclasses.field(default=None, compare=False)
    evaluations: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """The decision of which `to_dict` made `values`; numbers that were not finite are NaN.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        required = {"route", "reason", "predicted", "size", "condition_number", "sparsity"}
        if not required <= set(values) <= known:
            raise ValueError(
                "Argument `values` must have the fields of a `Decision`. Received: missing "
                f"{sorted(required - set(values))}, unknown {sorted(set(values) - known)}"
            )
        out = dict(values)
        for name in ("condition_number", "damping", "trust_ratio", "loss", "loss_after"):
            if name in out and out[name] is None:
                out[name] = math.nan
        out["predicted"] = {
            route: math.nan if seconds is None else float(seconds)
            for route, seconds in out["predicted"].items()
        }
        return cls(**out)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only: what `json.dumps(..., allow_nan=False)` accepts.

        JSON has no NaN or Inf; such numbers become None.
        """
        out = dataclasses.asdict(self)
        out["predicted"] = {route: _finite(seconds) for route, seconds in self.predicted.items()}
        return {
            key: _finite(value) if isinstance(value, float) else value for key, value in out.items()
        }


def _shown(value: Any) -> str:
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, str | bool) or not hasattr(value, "__float__"):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.4g}"


def is_known(number: float | None) -> TypeGuard[float]:
    """True if a number of a `Decision` is there, and finite."""
    return number is not None and math.isfinite(number)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


@runtime_checkable
class Solver(Protocol):
    """One way of solving a symmetric linear system; see `keras_qnewton.solvers`.

    Attributes:
        name: Route name, unique in the registry.
        host: True when the solver leaves the TensorFlow graph (a host call): such a
            solver cannot be exported or compiled by XLA.
    """

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> bool: ...

    def solve(self, matrix: Array, rhs: Array) -> Solution:
        """Solves ``matrix @ x = rhs``; `matrix` `[N, N]` symmetric, `rhs` `[N]`."""
        ...


class QuantumSolver(Solver, Protocol):
    """A solver whose systems a quantum computer could be given."""

    def qubits(self, size: int) -> int:
        """Width of the circuit for N = `size`."""
        ...


class AbsoluteSolver(Protocol):
    """A solver of saddle-free systems, too."""

    @property
    def name(self) -> str: ...

    def solve_absolute(self, matrix: Array, rhs: Array, damping: Scalar) -> Solution:
        """``(A² + λ²I)^(-1/2) b``; λ is `damping`, in units of A."""
        ...
