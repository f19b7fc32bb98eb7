"""Which solver gets which block: the choice, its price and its reason.

    classical   the fastest of those that can take the system    known before the graph is built

    quantum   iff   N > 1   and   qubits(N) ≤ max_qubits         known before the graph is built
              and   0 < κ ≤ max_condition_number                 known when the step runs
              and   T_quantum(N, κ, d) < T_classical(N, κ, d)

`choose_index` decides with TensorFlow ops, so that a training graph chooses anew at every
step from the κ and d of that step; `choose` is the same decision for people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import registry
from keras_qnewton.arguments import as_number, check_count, check_number, refused
from keras_qnewton.scheduling.cost import CostModel
from keras_qnewton.scheduling.forcing import Forcing, forcing_policy
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.scheduling.policies import (
    Classical,
    ClassicalCost,
    Cost,
    Policies,
    checked_estimator,
    deserialized,
    reshape_policy,
    serialized,
)
from keras_qnewton.scheduling.quantum_price import QuantumPrice
from keras_qnewton.scheduling.reasons import Rule, prices, reason_of
from keras_qnewton.scheduling.reshape import Reshape
from keras_qnewton.types import Array, Decision, QuantumSolver, Scalar, Solver

# The solver that any system may be given to, tried last.
_LAST = "lu"


@keras.saving.register_keras_serializable(package="keras_qnewton")
class Scheduler(registry.Policy):
    """Sends a linear system to a classical or a quantum solver by predicted time.

    Of several classical solvers the fastest is taken that can solve the system: one with
    `definite = True` (Cholesky, conjugate gradients) only where the system is known to be
    positive definite. Where its residual fails, the others are tried, "lu" last. A solver with
    `host = True` ("lapack", "sparse_lu") keeps a graph from being exported or compiled by XLA,
    whether it is chosen or not: name it only where neither is wanted. LU does not compile either.

    Args:
        classical: Solver, or its registered name; a sequence of them; or "auto", the fastest
            that stays in the graph: ("cholesky", "lu").
        quantum: Solver with a method `qubits(size)`, or its registered name; None for
            classical only: then a single classical solver is not priced, and nothing
            calibrated.
        cost: Cost model of the quantum solver, or its registered name: "asymptotic" (the
            paper's, optimistic), "detailed", "circuit"; or any callable of (size,
            condition_number, sparsity, gate_time), to which the matrix's `alpha`, `success`,
            `layers` and `encoding` are handed where it has arguments by these names (see
            `CostModel`).
        gate_time: Seconds that a quantum gate takes.
        max_condition_number: Largest κ that may go to the quantum solver. A solver with a
            limit of its own (`QSVT.max_condition_number`) is not sent anything beyond that
            either.
        max_qubits: Width of the machine that is imagined, work qubits included: no wider circuit
            is chosen, whether simulated gate by gate or emulated. With n = log₂ N, QSVT takes 2n
            qubits for a dilation and about 3n for "frobenius" and "sparse": the default has room
            for 2,048 unknowns.
        classical_cost: Cost model of the classical solvers, or its registered name; or a
            mapping of them by route. What is left out, or None, is calibrated on this machine
            solver by solver (`SolverTime`, in float64; `SparseLUTime`) when it is first needed; a
            single solver that cannot be calibrated costs what LU does.
        tolerance: Largest relative residual ‖Ax-b‖/‖b‖ at which a quantum solution is used;
            above it the caller falls back to a classical solver. From one classical solver it
            goes on to the next above what rounding explains, too.
        reshape: Whether positive definite systems may be made sparser and better conditioned where
            that lowers the predicted time: True, the largest relative error of the step as a
            number in (0, 1), or a `Reshape`. The error is checked, and a system whose check
            fails is solved as it is.
        estimator: Registered name of a condition number estimator, "exact", "lanczos", "norm_det"
            or a third party's (see `conditioning.condition_number`): κ of H + s I, which decides
            and is logged, is then what it finds of the matrix, which it is given formed, for each
            λ that is tried. It costs a factorisation or more, and XLA compiles "exact" alone. A
            loose bound sends systems to classical solvers that a circuit could take. None takes κ
            from the ends of the spectrum that the shift is made of. Blocks that are not formed,
            saddle-free steps and reshaped systems know κ by themselves.
        forcing: Inexact Newton: True, or a `Forcing`, for a tolerance of circuits that follows the
            gradient, 0.1 at first, in the place of `tolerance` where it is larger. A solver with
            `solve_to` (`QSVT`, `Shortcut`) runs circuits that are no more exact, and cost models
            with an argument `tolerance`, those of this package, price them so. Saddle-free steps
            are solved to `tolerance`.

    Raises:
        ValueError: If an argument is not one of these. An unknown name is reported here if
            solvers are registered already, otherwise at first use.
    """

    def __init__(  # noqa: PLR0913 - one argument a setting, all with defaults
        self,
        classical: Classical = "lu",
        quantum: str | QuantumSolver | None = "qsvt",
        cost: Cost = "asymptotic",
        gate_time: float = 1e-9,
        max_condition_number: float = 1e4,
        max_qubits: int = 36,
        classical_cost: ClassicalCost = None,
        tolerance: float = 1e-6,
        reshape: bool | float | Reshape = False,
        estimator: str | None = None,
        forcing: bool | Forcing = False,
    ) -> None:
        self.gate_time = check_number("gate_time", gate_time, "a positive number of seconds")
        self.max_condition_number = check_number(
            "max_condition_number",
            max_condition_number,
            "a number, at least 1",
            least=1.0,
            ends="[]",
        )
        self.max_qubits = check_count("max_qubits", max_qubits)
        self.tolerance = check_number("tolerance", tolerance, "a positive number")
        self.reshape = reshape_policy(reshape)
        self.estimator = checked_estimator(estimator)
        self.forcing = forcing_policy(forcing)
        self._policies = Policies(classical, quantum, cost, classical_cost)

    @property
    def classical(self) -> tuple[Solver, ...]:
        """The classical solvers."""
        return self._policies.classical

    @property
    def quantum(self) -> QuantumSolver | None:
        """The quantum solver, or None."""
        return self._policies.quantum

    @property
    def cost(self) -> CostModel:
        """Cost model of the quantum solver."""
        return self._policies.cost

    @property
    def classical_cost(self) -> tuple[CostModel, ...]:
        """Cost models of the classical solvers, in their order."""
        return self._policies.classical_cost

    @property
    def carries(self) -> bool:
        """Whether the quantum solver is told how long the last step's solutions were."""
        return bool(getattr(self.quantum, "carries", False))

    @property
    def by_rows(self) -> bool:
        """Whether the quantum solver takes the Jacobian's rows in the place of a matrix."""
        return bool(getattr(self.quantum, "by_rows", False))

    @property
    def solvers(self) -> tuple[Solver, ...]:
        """The solvers to choose from, classical ones first."""
        return self.classical if self.quantum is None else (*self.classical, self.quantum)

    @property
    def routes(self) -> tuple[str, ...]:
        """Names of the solvers to choose from, classical ones first."""
        return tuple(str(solver.name) for solver in self.solvers)

    @property
    def condition_limit(self) -> float:
        """Largest κ that goes to the quantum solver: the scheduler's limit or the solver's own."""
        return min(
            self.max_condition_number, getattr(self.quantum, "max_condition_number", math.inf)
        )

    @property
    def absolute_condition_limit(self) -> float:
        """The same for the quantum solver's `solve_absolute`, κ that of (A² + λ²I)^(1/2)."""
        own = getattr(self.quantum, "max_absolute_condition_number", math.inf)
        return min(self.max_condition_number, own)

    def candidates(self, definite: bool = False) -> tuple[int, ...]:
        """Indices into `routes` of the classical solvers that may take a system.

        Args:
            definite: Whether it is known to be positive definite. If not, those that need it
                are left out, unless there is no other.
        """
        everyone = tuple(range(len(self.classical)))
        able = tuple(
            k for k in everyone if definite or not getattr(self.classical[k], "definite", False)
        )
        return able or everyone

    def possible(self, size: int, definite: bool = False) -> tuple[str, ...]:
        """The routes that a block of `size` unknowns could take at all, whatever its κ and d.

        A graph needs no code for the others: a host call that can never happen would still
        keep the graph from being exported.
        """
        classical = tuple(self.routes[k] for k in self.candidates(definite))
        rule = self._static_rule(check_count("size", size))
        if rule is None and self.quantum is not None:
            return (*classical, str(self.quantum.name))
        return classical

    def leaves_graph(self, size: int, definite: bool = False) -> bool:
        """True if a block of `size` unknowns could go to a solver that is a host call."""
        possible = self.possible(size, definite)
        return any(s.name in possible and getattr(s, "host", False) for s in self.solvers)

    def measures(self, size: int) -> bool:
        """Whether a block of `size` unknowns is measured: a circuit is possible, and priced so."""
        return self._static_rule(size) is None and self.quantum_price.measures

    @property
    def quantum_price(self) -> QuantumPrice:
        """What the quantum solver costs, and what of a matrix that depends on."""
        return QuantumPrice(self.cost, self.quantum)

    def predict(
        self,
        size: int,
        condition_number: Scalar,
        sparsity: Scalar,
        definite: bool = False,
        measured: Mapping[str, Any] | None = None,
    ) -> tf.Tensor:
        """Predicted seconds of one solve by each of `routes`, float64 `[R]`.

        Args:
            size: N.
            condition_number: κ, a float or scalar tensor. NaN or not positive: unknown, and
                so is every price that depends on it (NaN).
            sparsity: d, largest number of non-zeros in a row, a number or scalar tensor.
            definite: See `candidates`; the price of a solver that is left out is NaN.
            measured: From `QuantumPrice.measure`, or `of_rows`; None for what the cost model
                supposes.
        """
        kappa = float64(condition_number)
        # An estimate may round to just below 1. NaN passes through both.
        kappa = tf.where(kappa <= 0.0, tf.constant(math.nan, tf.float64), kappa)
        kappa = tf.where(kappa < 1.0, tf.ones_like(kappa), kappa)
        d = tf.maximum(float64(sparsity), 1.0)
        candidates = self.candidates(definite)
        unpriced = tf.constant(math.nan, tf.float64)
        prices = [
            float64(model.seconds(size, kappa, d, self.gate_time)) if k in candidates else unpriced
            for k, model in enumerate(self.classical_cost)
        ]
        if self.quantum is not None:
            price = self.quantum_price.seconds(size, kappa, d, self.gate_time, measured)
            rows = self._rows(measured)
            prices.append(price if rows is None else tf.where(rows > 0, price, unpriced))
        return tf.stack(prices)

    def choose_index(
        self,
        size: int,
        condition_number: Scalar,
        sparsity: Scalar,
        definite: bool = False,
        absolute: bool = False,
        measured: Mapping[str, Any] | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The decision as numbers, made by TensorFlow ops; see `predict` for the arguments.

        With `absolute`, for (A² + λ²I)^(1/2) x = b: the limit on κ is another, prices are those of
        a linear system with the same κ.

        Returns:
            The index into `routes` (int32), predicted seconds (float64 `[R]`, NaN if nothing
            had to be priced) and the `Rule` that decided (int32).
        """
        rule = self._static_rule(check_count("size", size))
        candidates = self.candidates(definite)
        if self.quantum is None and len(candidates) == 1:
            nothing = tf.fill([len(self.routes)], tf.constant(math.nan, tf.float64))
            alone = len(self.classical) == 1
            rule = Rule.CLASSICAL_ONLY if alone else Rule.NOT_KNOWN_DEFINITE
            return tf.constant(candidates[0]), nothing, tf.constant(int(rule))
        predicted = self.predict(size, condition_number, sparsity, definite, measured)
        fastest = self.fastest(predicted, definite)
        classical = tf.gather(candidates, fastest)
        if rule is Rule.CLASSICAL_ONLY:
            return classical, predicted, tf.constant(int(Rule.CLASSICAL_FASTER))
        if rule is not None:
            return classical, predicted, tf.constant(int(rule))
        kappa = float64(condition_number)
        decided = tf.where(
            predicted[-1] < tf.gather(predicted, classical),
            int(Rule.QUANTUM_FASTER),
            int(Rule.CLASSICAL_FASTER),
        )
        too_large = kappa > (self.absolute_condition_limit if absolute else self.condition_limit)
        decided = tf.where(too_large, int(Rule.CONDITION_TOO_LARGE), decided)
        rows = self._rows(measured)
        if rows is not None:
            decided = tf.where(rows > 0, decided, int(Rule.NO_ROWS))
        known = tf.math.is_finite(kappa) & (kappa > 0.0)
        decided = tf.where(known, decided, int(Rule.CONDITION_UNKNOWN))
        quantum = tf.constant(len(self.classical))
        index = tf.where(decided == int(Rule.QUANTUM_FASTER), quantum, classical)
        return index, predicted, decided

    def fastest(self, predicted: tf.Tensor, definite: bool = False) -> int | tf.Tensor:
        """The classical solver that is tried first, as a position among the `candidates`.

        An int if it is known while a graph is traced: if nothing had to be priced, or all
        prices are constants, as calibrated ones are. Else an int32 scalar.

        Args:
            predicted: From `choose_index`, in the same graph.
            definite: See `candidates`.
        """
        candidates = self.candidates(definite)
        if len(candidates) == 1:
            return 0
        known = tf.get_static_value(predicted, partial=True)
        prices = [None if known is None else known[k] for k in candidates]
        if not any(price is None for price in prices):
            # A price that is not known must not win; of equal ones the first does.
            return int(np.argmin(np.nan_to_num(np.array(prices, float), nan=math.inf)))
        seconds = tf.gather(predicted, candidates)
        infinite = tf.fill(tf.shape(seconds), tf.constant(math.inf, tf.float64))
        seconds = tf.where(tf.math.is_nan(seconds), infinite, seconds)
        return tf.argmin(seconds, output_type=tf.int32)

    def attempts(self, first: int, definite: bool = False) -> tuple[int, ...]:
        """Indices into `routes` in the order in which classical solvers are tried.

        Args:
            first: Position among the `candidates` of the one that begins.
            definite: See `candidates`.
        """
        candidates = list(self.candidates(definite))
        start = candidates.pop(first)
        return (start, *sorted(candidates, key=lambda k: self.routes[k] == _LAST))

    def choose(
        self, size: int, condition_number: Scalar, sparsity: Scalar, definite: bool = False
    ) -> Decision:
        """The decision with its reason; eager.

        Args:
            size: N ≥ 1.
            condition_number: κ. NaN, Inf and numbers that are not positive count as unknown,
                which goes to the classical solver.
            sparsity: d ≥ 1, largest number of non-zeros in a row.
            definite: Whether the system is known to be positive definite.

        Raises:
            ValueError: If `size` or `sparsity` is not a positive integer, or `condition_number` is
                no number.
            RuntimeError: Inside a `tf.function`.
        """
        if not tf.executing_eagerly():
            raise RuntimeError(
                "Scheduler.choose() gives Python values and has none in a graph: "
                "use Scheduler.choose_index() inside a tf.function."
            )
        size, sparsity = check_count("size", size), check_count("sparsity", sparsity)
        kappa = as_number(condition_number)
        if math.isnan(kappa) and not isinstance(condition_number, (float, np.floating)):
            raise refused("condition_number", condition_number, "a number; NaN if it is not known")
        index, predicted, rule = self.choose_index(size, kappa, sparsity, definite)
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
        self,
        rule: int,
        size: int,
        condition_number: float,
        sparsity: float,
        predicted: Mapping[str, float] | Sequence[float] | Array,
        absolute: bool = False,
    ) -> str:
        """One sentence for numbers that `choose_index` gave, maybe in a graph, maybe long ago.

        Args:
            rule: A `Rule`.
            size: N.
            condition_number: κ.
            sparsity: d.
            predicted: Seconds, `[R]` in the order of `routes` or a mapping by route.
            absolute: As `choose_index` was asked.

        Raises:
            ValueError: If `rule` is not a `Rule`.
        """
        rule = Rule(rule)
        seconds = (
            dict(predicted)
            if isinstance(predicted, Mapping)
            else dict(zip(self.routes, np.asarray(predicted).tolist(), strict=True))
        )
        known = {route: s for route, s in seconds.items() if not math.isnan(s)}
        if rule in (Rule.QUANTUM_FASTER, Rule.CLASSICAL_FASTER):
            system = f"N = {size}, κ = {condition_number:.3g}, d = {sparsity:.0f}"
            return f"{prices(known)} ({system})"
        reason = reason_of(rule, self, size, condition_number, absolute)
        names = self._policies.classical_names
        classical = {route: s for route, s in known.items() if route in names}
        return f"{reason}; {prices(classical)}" if len(classical) > 1 else reason

    def __repr__(self) -> str:
        given = {**self.get_config(), **self._policies.given}
        given["reshape"] = self.reshape or False
        given["forcing"] = self.forcing or False
        return registry.call_text(self, given)

    def get_config(self) -> dict[str, Any]:
        return {
            **self._policies.get_config(),
            "gate_time": self.gate_time,
            "max_condition_number": self.max_condition_number,
            "max_qubits": self.max_qubits,
            "tolerance": self.tolerance,
            "reshape": False if self.reshape is None else serialized(self.reshape),
            "estimator": self.estimator,
            "forcing": False if self.forcing is None else serialized(self.forcing),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scheduler:
        return cls(**{argument: deserialized(stored) for argument, stored in config.items()})

    def _rows(self, measured: Mapping[str, Any] | None) -> tf.Tensor | None:
        """r for a quantum solver by rows, float64 scalar; None where nothing is said of them."""
        rows = (measured or {}).get("rows")
        return float64(rows) if self.by_rows and rows is not None else None

    def _static_rule(self, size: int) -> Rule | None:
        """The rule that decides for the classical solver whatever κ and d are, if one does."""
        if self.quantum is None:
            return Rule.CLASSICAL_ONLY
        if size == 1:
            return Rule.ONE_UNKNOWN
        if self.quantum.qubits(size) > self.max_qubits:
            return Rule.TOO_MANY_QUBITS
        return None
