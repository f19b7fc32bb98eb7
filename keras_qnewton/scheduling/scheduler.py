"""Which solver gets which block: the choice, its price and its reason.

    quantum   iff   N > 1   and   qubits(N) ≤ max_qubits         known before the graph is built
              and   0 < κ ≤ max_condition_number                 known when the step runs
              and   T_quantum(N, κ, d) < T_classical(N, κ, d)

`choose_index` decides with TensorFlow ops, so that a training graph chooses anew at every
step from the κ and d of that step; `choose` is the same decision for people.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import registry
from keras_qnewton.scheduling.cost import CostModel, float64
from keras_qnewton.types import Decision, Solver


class Rule(enum.IntEnum):
    """What decided. A graph records the number; `Scheduler.explain` makes the sentence."""

    CLASSICAL_ONLY = 0
    ONE_UNKNOWN = 1
    TOO_MANY_QUBITS = 2
    CONDITION_UNKNOWN = 3
    CONDITION_TOO_LARGE = 4
    QUANTUM_FASTER = 5
    CLASSICAL_FASTER = 6


_KINDS = {"classical": "solver", "quantum": "solver", "cost": "cost", "classical_cost": "cost"}


@keras.saving.register_keras_serializable(package="keras_qnewton")
class Scheduler(registry.Policy):
    """Sends a linear system to a classical or a quantum solver by predicted time.

    Args:
        classical: Solver, or its registered name.
        quantum: Solver with a method `qubits(size)`, or its registered name; None for
            classical only: then nothing is priced, and nothing calibrated.
        cost: Cost model of the quantum solver, or its registered name: "asymptotic" (the
            paper's, optimistic), "detailed".
        gate_time: Seconds that a quantum gate takes.
        max_condition_number: Largest κ that may go to the quantum solver. A solver with a
            limit of its own (`QSVT.max_condition_number`) is not sent anything beyond that
            either.
        max_qubits: Width of the machine that is imagined: no wider circuit is chosen, whether
            simulated gate by gate or emulated; QSVT takes log₂ N + 2 qubits.
        classical_cost: Cost model of the classical solver, or its registered name.
        tolerance: Largest relative residual ‖Ax-b‖/‖b‖ at which a quantum solution is used;
            above it the caller falls back to the classical solver.

    Raises:
        ValueError: If an argument is not one of these. An unknown name is reported here if
            solvers are registered already, otherwise at first use.
    """

    def __init__(
        self,
        classical: str | Solver = "lu",
        quantum: str | Solver | None = "qsvt",
        cost: str | CostModel = "asymptotic",
        gate_time: float = 1e-9,
        max_condition_number: float = 1e4,
        max_qubits: int = 12,
        classical_cost: str | CostModel = "lu_time",
        tolerance: float = 1e-6,
    ) -> None:
        self.gate_time = _number("gate_time", gate_time, "a positive number of seconds")
        self.max_condition_number = _number(
            "max_condition_number", max_condition_number, "a number, at least 1", least=1.0
        )
        self.max_qubits = _count("max_qubits", max_qubits)
        self.tolerance = _number("tolerance", tolerance, "a positive number")
        self._given: dict[str, Any] = {
            "classical": classical,
            "quantum": quantum,
            "cost": cost,
            "classical_cost": classical_cost,
        }
        self._policies: dict[str, Any] = {}
        for argument, kind in _KINDS.items():
            # Solvers register themselves when they are imported, maybe after this.
            if registry.names(kind) or not isinstance(self._given[argument], str):
                self._policy(argument)

    @property
    def classical(self) -> Any:
        """The classical solver."""
        return self._policy("classical")

    @property
    def quantum(self) -> Any:
        """The quantum solver, or None."""
        return self._policy("quantum")

    @property
    def cost(self) -> CostModel:
        """Cost model of the quantum solver."""
        return self._policy("cost")

    @property
    def classical_cost(self) -> CostModel:
        """Cost model of the classical solver."""
        return self._policy("classical_cost")

    @property
    def routes(self) -> tuple[str, ...]:
        """Names of the solvers to choose from, the classical one first."""
        quantum = () if self.quantum is None else (str(self.quantum.name),)
        return (str(self.classical.name), *quantum)

    @property
    def condition_limit(self) -> float:
        """Largest κ that goes to the quantum solver: the scheduler's limit or the solver's own."""
        return min(
            self.max_condition_number, getattr(self.quantum, "max_condition_number", math.inf)
        )

    def possible(self, size: int) -> tuple[str, ...]:
        """The routes that a block of `size` unknowns could take at all, whatever its κ and d.

        A graph needs no code for the others: a host call that can never happen would still
        keep the graph from being exported.
        """
        return self.routes if self._static_rule(_count("size", size)) is None else self.routes[:1]

    def predict(self, size: int, condition_number: Any, sparsity: Any) -> tf.Tensor:
        """Predicted seconds of one solve by each of `routes`, float64 `[R]`.

        Args:
            size: N.
            condition_number: κ, a float or scalar tensor. NaN or not positive: unknown, and
                so is every price that depends on it (NaN).
            sparsity: d, largest number of non-zeros in a row, a number or scalar tensor.
        """
        kappa = float64(condition_number)
        # An estimate may round to just below 1. NaN passes through both.
        kappa = tf.where(kappa <= 0.0, tf.constant(math.nan, tf.float64), kappa)
        kappa = tf.where(kappa < 1.0, tf.ones_like(kappa), kappa)
        d = tf.maximum(float64(sparsity), 1.0)
        models = (self.classical_cost, self.cost)[: len(self.routes)]
        return tf.stack([float64(m.seconds(size, kappa, d, self.gate_time)) for m in models])

    def choose_index(
        self, size: int, condition_number: Any, sparsity: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The decision as numbers, made by TensorFlow ops; see `predict` for the arguments.

        Returns:
            The index into `routes` (int32), predicted seconds (float64 `[R]`, NaN if nothing
            had to be priced) and the `Rule` that decided (int32).
        """
        rule = self._static_rule(_count("size", size))
        if rule is Rule.CLASSICAL_ONLY:
            nothing = tf.constant([math.nan], tf.float64)
            return tf.constant(0), nothing, tf.constant(int(rule))
        predicted = self.predict(size, condition_number, sparsity)
        if rule is not None:
            return tf.constant(0), predicted, tf.constant(int(rule))
        kappa = float64(condition_number)
        decided = tf.where(
            predicted[1] < predicted[0], int(Rule.QUANTUM_FASTER), int(Rule.CLASSICAL_FASTER)
        )
        too_large = kappa > self.condition_limit
        decided = tf.where(too_large, int(Rule.CONDITION_TOO_LARGE), decided)
        known = tf.math.is_finite(kappa) & (kappa > 0.0)
        decided = tf.where(known, decided, int(Rule.CONDITION_UNKNOWN))
        return tf.cast(decided == int(Rule.QUANTUM_FASTER), tf.int32), predicted, decided

    def choose(self, size: int, condition_number: Any, sparsity: Any) -> Decision:
        """The decision with its reason; eager.

        Args:
            size: N ≥ 1.
            condition_number: κ. NaN, Inf and numbers that are not positive count as unknown,
                which goes to the classical solver.
            sparsity: d ≥ 1, largest number of non-zeros in a row.

        Raises:
            ValueError: If `size` or `sparsity` is not a positive integer.
            RuntimeError: Inside a `tf.function`.
        """
        if not tf.executing_eagerly():
            raise RuntimeError(
                "Scheduler.choose() gives Python values and has none in a graph: "
                "use Scheduler.choose_index() inside a tf.function."
            )
        size, sparsity = _count("size", size), _count("sparsity", sparsity)
        kappa = float(condition_number)
        index, predicted, rule = self.choose_index(size, kappa, sparsity)
        by_route = {
            route: seconds
            for route, seconds in zip(self.routes, predicted.numpy().tolist(), strict=True)
            if not math.isnan(seconds)
        }
        return Decision(
            route=self.routes[int(index)],
            reason=self.explain(int(rule), size, kappa, sparsity, by_route),
            predicted=by_route,
            size=size,
            condition_number=kappa,
            sparsity=sparsity,
        )

    def explain(
        self, rule: int, size: int, condition_number: float, sparsity: float, predicted: Any
    ) -> str:
        """One sentence for numbers that `choose_index` gave, maybe in a graph, maybe long ago.

        Args:
            rule: A `Rule`.
            size: N.
            condition_number: κ.
            sparsity: d.
            predicted: Seconds, `[R]` in the order of `routes` or a mapping by route.

        Raises:
            ValueError: If `rule` is not a `Rule`.
        """
        rule = Rule(rule)
        if rule is Rule.CLASSICAL_ONLY:
            return f"{self.routes[0]} is the only solver: quantum=None"
        if rule is Rule.ONE_UNKNOWN:
            return "N = 1 is a single division"
        if rule is Rule.TOO_MANY_QUBITS:
            return (
                f"{self.routes[1]} needs {self.quantum.qubits(size)} qubits for N = {size}, "
                f"more than max_qubits = {self.max_qubits}"
            )
        if rule is Rule.CONDITION_UNKNOWN:
            return f"κ = {condition_number:.3g} is not a usable condition number"
        if rule is Rule.CONDITION_TOO_LARGE:
            whose = "" if self.condition_limit == self.max_condition_number else "the solver's own "
            return (
                f"κ = {condition_number:.3g} is above "
                f"{whose}max_condition_number = {self.condition_limit:.3g}"
            )
        seconds = (
            [predicted.get(route, math.nan) for route in self.routes]
            if isinstance(predicted, Mapping)
            else np.asarray(predicted).tolist()
        )
        first, second = (1, 0) if rule is Rule.QUANTUM_FASTER else (0, 1)
        return (
            f"{self.routes[first]}: {seconds[first]:.3g} s predicted, "
            f"{self.routes[second]}: {seconds[second]:.3g} s "
            f"(N = {size}, κ = {condition_number:.3g}, d = {sparsity:.0f})"
        )

    def get_config(self) -> dict[str, Any]:
        policies = {
            argument: value
            if value is None or isinstance(value, str)
            else keras.saving.serialize_keras_object(value)
            for argument, value in self._given.items()
        }
        return {
            **policies,
            "gate_time": self.gate_time,
            "max_condition_number": self.max_condition_number,
            "max_qubits": self.max_qubits,
            "tolerance": self.tolerance,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scheduler:
        arguments = dict(config)
        for name in _KINDS:
            if isinstance(arguments.get(name), Mapping):
                arguments[name] = keras.saving.deserialize_keras_object(arguments[name])
        return cls(**arguments)

    def _static_rule(self, size: int) -> Rule | None:
        """The rule that decides for the classical solver whatever κ and d are, if one does."""
        if self.quantum is None:
            return Rule.CLASSICAL_ONLY
        if size == 1:
            return Rule.ONE_UNKNOWN
        if self.quantum.qubits(size) > self.max_qubits:
            return Rule.TOO_MANY_QUBITS
        return None

    def _policy(self, argument: str) -> Any:
        if argument not in self._policies:
            value = registry.resolve(_KINDS[argument], self._given[argument], argument)
            self._check(argument, value)
            self._policies[argument] = value
        return self._policies[argument]

    def _check(self, argument: str, value: Any) -> None:
        needed = {
            "classical": ("name", "solve"),
            "quantum": ("name", "solve", "qubits"),
            "cost": ("seconds",),
            "classical_cost": ("seconds",),
        }[argument]
        if argument == "quantum" and value is None:
            return
        if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
            raise ValueError(
                f"Argument `{argument}` must be a registered name or an object with "
                f"{', '.join(f'`{name}`' for name in needed)}. Received: {argument}={value!r}"
            )
        if argument == "quantum" and value.name == self.classical.name:
            raise ValueError(
                "Argument `quantum` must be another solver than `classical`. "
                f"Received: both of name {value.name!r}"
            )


def _number(argument: str, value: Any, meaning: str, least: float = 0.0) -> float:
    """`value` as a finite float, positive and at least `least`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (0 < number < math.inf and number >= least) or isinstance(value, bool):
        raise ValueError(f"Argument `{argument}` must be {meaning}. Received: {argument}={value!r}")
    return number


def _count(argument: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(
            f"Argument `{argument}` must be a positive integer. Received: {argument}={value!r}"
        )
    return number
