"""A `Scheduler`'s solvers and cost models: resolved, checked and stored.

A name is resolved when it is first needed: solvers register themselves when they are imported,
maybe after the scheduler was made.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_qnewton import registry
from keras_qnewton.arguments import check_number
from keras_qnewton.scheduling.circuit import CircuitQLSA
from keras_qnewton.scheduling.cost import CostModel
from keras_qnewton.scheduling.function_cost import CostFunction, FunctionCost
from keras_qnewton.scheduling.lu_time import LUTime
from keras_qnewton.scheduling.reshape import Reshape
from keras_qnewton.scheduling.solver_time import SolverTime
from keras_qnewton.types import QuantumSolver, Solver

# Solvers of classical="auto": none is a host call, so that the graph exports.
_AUTO = ("cholesky", "lu")
# Attributes that an object must have to be given for each argument.
_NEEDED = {
    "classical": ("name", "solve"),
    "quantum": ("name", "host", "solve", "qubits"),
    "cost": ("seconds",),
    "classical_cost": ("seconds",),
}

Classical = str | Solver | Sequence[str | Solver]
Cost = str | CostModel | CostFunction
ClassicalCost = Cost | Mapping[str, Cost] | None


class Policies:
    """A scheduler's solvers and cost models; see `Scheduler` for the arguments and errors."""

    def __init__(
        self,
        classical: Classical,
        quantum: str | QuantumSolver | None,
        cost: Cost,
        classical_cost: ClassicalCost,
    ) -> None:
        self._given: dict[str, Any] = {
            "classical": list(classical) if isinstance(classical, (list, tuple)) else classical,
            "quantum": quantum,
            "cost": cost,
            "classical_cost": (
                dict(classical_cost) if isinstance(classical_cost, Mapping) else classical_cost
            ),
        }
        if registry.names("solver"):
            for argument in self._given:
                getattr(self, argument)  # wrong ones are reported here

    @functools.cached_property
    def classical(self) -> tuple[Solver, ...]:
        """The classical solvers."""
        given = self._given["classical"]
        named = isinstance(given, str) and given == "auto"
        items = _AUTO if named else given if isinstance(given, list) else (given,)
        solvers: tuple[Solver, ...] = tuple(self._solver("classical", item) for item in items)
        names = [str(solver.name) for solver in solvers]
        if not solvers or len(set(names)) < len(names):
            raise ValueError(
                "Argument `classical` must name at least one solver, and none twice. "
                f"Received: classical={given!r}"
            )
        return solvers

    @functools.cached_property
    def quantum(self) -> QuantumSolver | None:
        """The quantum solver, or None."""
        if self._given["quantum"] is None:
            return None
        solver: QuantumSolver = self._solver("quantum", self._given["quantum"])
        if solver.name in self.classical_names:
            raise ValueError(
                "Argument `quantum` must be another solver than `classical`. "
                f"Received: both of name {solver.name!r}"
            )
        return solver

    @functools.cached_property
    def cost(self) -> CostModel:
        """Cost model of the quantum solver."""
        model = self._cost("cost", self._given["cost"])
        if isinstance(model, CircuitQLSA) and self.quantum is not None:
            return model.of(self.quantum)
        return model

    @functools.cached_property
    def classical_cost(self) -> tuple[CostModel, ...]:
        """Cost models of the classical solvers, in their order."""
        given, names = self._given["classical_cost"], self.classical_names
        by_route = given if isinstance(given, dict) else dict.fromkeys(names, given)
        unknown = [route for route in by_route if route not in names]
        if unknown:
            raise ValueError(
                f"Argument `classical_cost` must price only the classical routes {names}. "
                f"Received: classical_cost with {unknown}"
            )
        return tuple(
            self._calibrated(solver)
            if by_route.get(solver.name) is None
            else self._cost("classical_cost", by_route[solver.name])
            for solver in self.classical
        )

    @property
    def classical_names(self) -> tuple[str, ...]:
        """The classical routes."""
        return tuple(str(solver.name) for solver in self.classical)

    @property
    def given(self) -> dict[str, Any]:
        """The arguments as they were given."""
        return dict(self._given)

    def get_config(self) -> dict[str, Any]:
        """The arguments as they were given, as plain types."""
        return {argument: serialized(value) for argument, value in self._given.items()}

    def _solver(self, argument: str, given: str | Solver) -> Any:
        solver = _checked(argument, registry.resolve("solver", given, argument))
        if argument == "classical" and getattr(solver, "by_rows", False):
            raise ValueError(
                "Argument `classical` must be a solver of matrices. "
                f"Received: classical={given!r}, which takes the Jacobian's rows"
            )
        if argument == "quantum" and getattr(solver, "by_rows", False):
            for needed in ("solve_rows", "success"):
                if not hasattr(solver, needed):
                    raise ValueError(
                        f"Argument `quantum` must have `{needed}` where `by_rows` is True; see "
                        f"`keras_qnewton.types.RowSolver`. Received: quantum={given!r}"
                    )
        return solver

    def _cost(self, argument: str, given: Cost) -> CostModel:
        value = registry.resolve("cost", given, argument)
        if callable(value) and not isinstance(value, type) and not hasattr(value, "seconds"):
            value = FunctionCost(value)
        model: CostModel = _checked(argument, value)
        if argument == "cost" and getattr(model, "classical", False):
            raise ValueError(
                "Argument `cost` must price a quantum solver: a classical solver's time says "
                f"nothing of a circuit's. Received: cost={given!r}. Pass it as `classical_cost`"
            )
        return model

    def _calibrated(self, solver: Solver) -> CostModel:
        name = str(solver.name)
        if hasattr(solver, "cost"):
            model: CostModel = registry.resolve("cost", solver.cost, "classical_cost")
            return model
        if getattr(solver, "direct", False) and name in registry.names("solver"):
            return SolverTime(name)
        if len(self.classical) > 1:
            raise ValueError(
                f"Argument `classical_cost` must have a cost model for {name!r}: its time does not "
                f"depend on N alone, or it is not registered. Received: classical_cost="
                f"{self._given['classical_cost']!r}"
            )
        return LUTime()


def _checked(argument: str, value: Any) -> Any:
    needed = _NEEDED[argument]
    if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
        function = ", a function" if argument in ("cost", "classical_cost") else ""
        raise ValueError(
            f"Argument `{argument}` must be a registered name{function} or an object with "
            f"{', '.join(f'`{name}`' for name in needed)}. Received: {argument}={value!r}"
        )
    return value


def reshape_policy(given: Any) -> Reshape | None:
    """The policy that the argument `reshape` asks for, or None if nothing is to be reshaped."""
    if isinstance(given, Reshape):
        return given
    if isinstance(given, bool):
        return Reshape() if given else None
    wanted = "True, False, a relative error between 0 and 1, or a `Reshape`"
    return Reshape(bound=check_number("reshape", given, wanted, most=1.0, ends="()"))


def checked_estimator(given: str | None) -> str | None:
    """The argument `estimator`: a name of a condition number estimator, or None.

    Raises:
        ValueError: If it is neither.
    """
    known = registry.names("condition_number")
    # None are known before `conditioning` was imported: a name is then looked up at first use.
    if given is None or (isinstance(given, str) and (given in known or not known)):
        return given
    raise ValueError(
        f"Argument `estimator` must be one of {', '.join(map(repr, known))}, or None. "
        f"Received: estimator={given!r}"
    )


def serialized(given: Any) -> Any:
    """A policy, its name, or a list or mapping of them, as plain types."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, list):
        return [serialized(item) for item in given]
    if isinstance(given, dict):
        return {route: serialized(item) for route, item in given.items()}
    return keras.saving.serialize_keras_object(given)


def deserialized(stored: Any) -> Any:
    """The inverse of `serialized`; anything that is plain by itself as it is."""
    if isinstance(stored, list):
        return [deserialized(item) for item in stored]
    if isinstance(stored, Mapping):
        if "class_name" in stored:
            return keras.saving.deserialize_keras_object(stored)
        return {route: deserialized(item) for route, item in stored.items()}
    return stored
