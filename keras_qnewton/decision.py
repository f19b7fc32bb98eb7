"""`Decision`: what happened to one block in one step, and how it is read from a file.

A leaf without TensorFlow: a page about a log needs nothing of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

# What a decision has before its step is taken.
_REQUIRED = frozenset({"route", "reason", "predicted", "size", "condition_number", "sparsity"})
# Fields by the kind of their values; the others are numbers.
_TEXTS = frozenset({"route", "reason", "block", "solved_by", "formed_by", "encoding"})
_FLAGS = frozenset({"accepted", "fallback"})
_COUNTS = frozenset({"size", "sparsity", "step", "sparsity_before", "evaluations", "attempts"})
# Numbers that are NaN, not None, where they are not known.
_NAN_IF_UNKNOWN = frozenset({"condition_number", "damping", "trust_ratio", "loss", "loss_after"})
# Larger counts do not fit into an array's 64 bits.
_LARGEST_COUNT = 2**63


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
        damping: λ used for this step; without a unit where it is of rescaled weights, see
            `Adaptive`.
        trust_ratio: ρ, actual over predicted reduction of this batch's loss; NaN where the
            reduction is below the loss's rounding.
        loss: This batch's loss before the step.
        loss_after: This batch's loss at the candidate weights, same batch and masks.
        accepted: Whether the step was taken.
        length: Step length, as a multiple of the blocks' solutions. It is below 1 where several
            blocks together would go beyond the damped model's minimum. It is 2, 4 or 8 times as
            large where ρ was so high that longer steps were tried and had a lower loss.
        residual: ``||A x - b|| / ||b||`` of the solution that was used.
        fallback: Whether `route` failed its check and `solved_by` took over.
        solved_by: Solver whose solution was used.
        formed_by: How the block's matrix came about. "layers: …" and "rows: …" were assembled from
            these. "rows by single backward passes: …", "columns by single forward passes: …" and
            "products with unit vectors: …" have the reason why it was not. Others are "kept: …"
            and "not formed".
        conditioning_seconds: Predicted seconds of estimating κ at this step, by products with
            the matrix. It is 0 where what κ is made of was kept with the Hessian (`update_every`),
            so that the mean over steps is the amortised price. None where it is not known, as
            for a block that is not formed, or an estimate by factorisation.
        sparsity_before: d before the system was reshaped; None where it was solved as it is.
        added_shift: ε that reshaping added to the diagonal; None where it did not.
        error_bound: Upper bound of ‖x̂ - x‖/‖x‖, of reshaping; above the scheduler's bound if its
            check failed and the system was solved as it is. None where nothing was tried.
        step_seconds: Wall seconds of the whole training step, as `NewtonLog` measured them.
        evaluations: Evaluations of the loss and its gradient by a quasi-Newton step's line search;
            None of other steps.
        attempts: At how many dampings λ the step was tried, the one that was taken included; None
            of quasi-Newton steps, and in logs that do not say.
        alpha: α/‖A‖₂ of a block encoding of the system's matrix A, the normalisation that
            multiplies κ: what the price of a circuit was made of. None where the cost model does
            not depend on it, or no circuit was possible.
        encoding: Name of that block encoding.
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
    attempts: int | None = None
    alpha: float | None = None
    encoding: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """The decision of which `to_dict` made `values`; numbers that were not finite are NaN.

        Raises:
            ValueError: If a field is missing or unknown, or its value of another kind.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or not _REQUIRED <= set(values) <= known:
            given = set(values) if isinstance(values, Mapping) else set()
            raise ValueError(
                "Argument `values` must have the fields of a `Decision`. Received: missing "
                f"{sorted(_REQUIRED - given)}, unknown {sorted(given - known)}"
            )
        return cls(**{name: _checked(name, value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain types only: what `json.dumps(..., allow_nan=False)` accepts.

        JSON has no NaN or Inf; such numbers become None.
        """
        out = dataclasses.asdict(self)
        out["predicted"] = {route: _finite(seconds) for route, seconds in self.predicted.items()}
        return {
            key: _finite(value) if isinstance(value, float) else value for key, value in out.items()
        }


def is_known(number: float | None) -> TypeGuard[float]:
    """True if a number of a `Decision` is there, and finite."""
    return number is not None and math.isfinite(number)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _checked(name: str, value: Any) -> Any:
    """A field's value as a `Decision` has it.

    Raises:
        ValueError: If it is of another kind.
    """
    if name == "predicted":
        if not isinstance(value, Mapping):
            raise _wrong(name, "seconds by route", value)
        return {
            _text(name, route): math.nan if seconds is None else _number(name, seconds)
            for route, seconds in value.items()
        }
    if value is None:
        if name in _REQUIRED and name not in _NAN_IF_UNKNOWN:
            raise _wrong(name, "given", value)
        return math.nan if name in _NAN_IF_UNKNOWN else None
    if name in _TEXTS:
        return _text(name, value)
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise _wrong(name, "true or false", value)
        return value
    if name in _COUNTS:
        number = _number(name, value)
        if not number.is_integer() or not 0 <= number < _LARGEST_COUNT:
            raise _wrong(name, "a whole number, 0 or more", value)
        return int(value)
    return _number(name, value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "text", value)
    if not value.isascii():
        # JSON can say halves of characters, which no file can hold.
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _wrong(name, "text", value) from error
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, "a number", value)
    try:
        return float(value)
    except OverflowError as error:
        raise _wrong(name, "a number of double precision", value) from error


def _wrong(name: str, expected: str, value: Any) -> ValueError:
    # Python refuses to write numbers of some thousand digits.
    huge = isinstance(value, int) and abs(value) >= _LARGEST_COUNT
    shown = "a number of more than 18 digits" if huge else f"{value!a:.100}"
    return ValueError(f"field `{name}` must be {expected}. Received: {name}={shown}")
