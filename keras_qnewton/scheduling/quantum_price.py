"""What the price of a quantum solve depends on beside N, κ and d, measured in the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from keras_qnewton.scheduling.cost import CostModel
from keras_qnewton.scheduling.function_cost import MEASURED, FunctionCost, accepted, completed
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import QuantumSolver, Scalar


@dataclasses.dataclass(frozen=True)
class QuantumPrice:
    """A cost model and the quantum solver that it prices.

    Attributes:
        cost: Cost model of the quantum solver.
        quantum: The solver; None where there is none.
    """

    cost: CostModel
    quantum: QuantumSolver | None

    @property
    def encoding(self) -> str | None:
        """Name of the block encoding whose α decides; None where the cost model asks for none."""
        encoding: str | None = getattr(self._measurer, "encoding", None) or getattr(
            self._measurer, "encoding_name", None
        )
        return encoding

    @property
    def measures(self) -> bool:
        """Whether the cost model asks anything of a matrix."""
        asks = self._measurer is not None
        return asks and (self.encoding is not None or bool(getattr(self.cost, "readout", False)))

    def measure(
        self, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor, sparsity: tf.Tensor
    ) -> dict[str, Any]:
        """What the cost model asks of a matrix; see `CostModel.seconds` for the names.

        To be asked where `measures` says so: elsewhere a graph would grow for nothing.

        Args:
            matrix: A `[N, N]`, symmetric, N static.
            norm: The ‖A‖₂ that κ was made of, scalar float64: with a bound of it, ακ is still
                α/σ_min.
            condition_number: κ, scalar float64.
            sparsity: d, scalar float64.
        """
        known = tf.math.is_finite(condition_number) & (condition_number >= 1.0)
        kappa = tf.where(known, condition_number, tf.ones_like(condition_number))
        whoever: Any = self._measurer
        of_cost = self._measurer is self.cost
        found = dict(whoever.measured(matrix, norm, kappa, *([sparsity] if of_cost else [])))
        if of_cost:
            return found
        return accepted(self._function, found | {"encoding": self.encoding})

    def of_rows(self, measured: Mapping[str, Any], by_cost: Mapping[str, Any]) -> dict[str, Any]:
        """What the cost model is told of a system by its rows.

        Args:
            measured: "rows", "condition_number" of what is encoded, "alpha" by encoding, and the
                first run's "success".
            by_cost: What the cost model measured itself of the system's matrix.
        """
        known = {name: measured[name] for name in ("rows", "condition_number")}
        own = hasattr(self.cost, "measured")
        encoding = self.encoding if own else getattr(self.quantum, "encoding_name", None)
        if encoding in measured["alpha"]:
            known |= {"alpha": measured["alpha"][encoding], "encoding": encoding}
        # What is read is read again of residuals, which have no direction.
        return known | {"success": by_cost.get("success", measured["success"])}

    def seconds(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        gate_time: Scalar,
        measured: Mapping[str, Any] | None = None,
    ) -> tf.Tensor:
        """The price, scalar float64.

        Args:
            size: As `CostModel.seconds` has all but the last.
            condition_number: See there.
            sparsity: See there.
            gate_time: See there.
            measured: From `measure` or `of_rows`; None for the cost model's own suppositions. Of a
                solver by rows, √κ of the system is what it has for κ then.
        """
        known = dict(measured or {})
        encoded = known.pop("condition_number", None)
        told = completed(self.cost.seconds, known)
        if getattr(self.quantum, "by_rows", False):
            condition_number = tf.sqrt(float64(condition_number)) if encoded is None else encoded
        return float64(self.cost.seconds(size, condition_number, sparsity, gate_time, **told))

    def of_tolerance(self, tolerance: tf.Tensor | None) -> dict[str, Any]:
        """The relative residual that is enough, for a cost model that has an argument for it.

        Args:
            tolerance: η, scalar float64; None without a forcing term, and nothing is said.
        """
        if tolerance is None or self.quantum is None:
            return {}
        return accepted(self._function, {"tolerance": tolerance})

    def told(self, alpha: Any) -> dict[str, Any]:
        """What `measure` would find of a matrix of which α alone is known, and maybe logged.

        Args:
            alpha: α/‖A‖₂ for `encoding`, a number or a scalar tensor.
        """
        if self._measurer is None:
            return {}
        return accepted(self._function, {"alpha": alpha, "encoding": self.encoding})

    @property
    def _measurer(self) -> Any:
        """Whoever measures: the cost model, or the solver for one that has arguments for it."""
        if self.quantum is None:
            return None
        if hasattr(self.cost, "measured"):
            return self.cost
        asked = accepted(self._function, dict.fromkeys(MEASURED))
        return self.quantum if asked and hasattr(self.quantum, "measured") else None

    @property
    def _function(self) -> Callable[..., Any]:
        return self.cost.function if isinstance(self.cost, FunctionCost) else self.cost.seconds
