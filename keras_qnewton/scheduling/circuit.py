"""The cost model of the circuit itself: its depth, layer by layer."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import tensorflow as tf

from keras_qnewton import registry
from keras_qnewton.registry import register
from keras_qnewton.scheduling.cost import QuantumCost, float64
from keras_qnewton.types import Scalar, Solver


class CircuitSolver(Protocol):
    """A quantum solver that knows the depth of its circuit."""

    @property
    def epsilon(self) -> float:
        """ε, accuracy of one run's solution."""
        ...

    def circuit_depth(self, size: Scalar, condition_number: Scalar, sparsity: Scalar) -> Scalar:
        """Layers of gates on one and two qubits without |b⟩'s preparation."""
        ...


@register("cost", "circuit")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class CircuitQLSA(QuantumCost):
    """seconds = gate_time · depth of the circuit that the quantum solver would run.

    The depth is the solver's to say (`QSVT.circuit_depth`): degree × the layers of one call of its
    block encoding, and the projector phases between. The accuracy is the solver's, too: for QSVT
    that of its polynomial, and refinement to more digits runs the circuit again.

    Args:
        solver: Quantum solver with `circuit_depth` and `epsilon`, or its registered name; None
            for that of the scheduler which has this cost model, or else "qsvt".
        readout: See `QuantumCost`.
        preparation: See `QuantumCost`: one preparation a run, which the circuit begins with.
        parallel: See `QuantumCost`.
        success_probability: p of one run, in (0, 1]; a state takes 1/p runs. It depends on b
            (a solution's details["success_probability"]; 0.01 to 0.3 is common), so that
            the default charges a single run.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self,
        solver: str | CircuitSolver | None = None,
        readout: bool = False,
        preparation: bool = True,
        parallel: int = 1,
        success_probability: float = 1.0,
    ) -> None:
        if not 0 < success_probability <= 1:
            raise ValueError(
                "Argument `success_probability` must be above 0 and at most 1. "
                f"Received: success_probability={success_probability!r}"
            )
        self.success_probability = float(success_probability)
        self._given = solver
        self._solver: CircuitSolver | None = None
        if solver is not None and not isinstance(solver, str):
            self._solver = _checked(solver)
        self._set_switches(readout, preparation, parallel)

    @property
    def solver(self) -> CircuitSolver:
        """The solver whose circuit is priced."""
        if self._solver is None:
            self._solver = _checked(registry.resolve("solver", self._given or "qsvt", "solver"))
        return self._solver

    def of(self, solver: Solver) -> CircuitQLSA:
        """This model for a scheduler's quantum solver, unless it has one of its own."""
        if self._given is not None:
            return self
        return CircuitQLSA(**{**self.get_config(), "solver": _checked(solver)})

    @property
    def epsilon(self) -> float:
        """ε, the solver's."""
        return float(self.solver.epsilon)

    def depth(self, size: Scalar, condition_number: Scalar, sparsity: Scalar) -> tf.Tensor:
        """Layers of gates on one and two qubits without |b⟩'s preparation, scalar float64."""
        layers = self.solver.circuit_depth(size, condition_number, sparsity)
        return float64(layers) / self.success_probability

    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """1/p, scalar float64."""
        del condition_number
        return tf.constant(1 / self.success_probability, tf.float64)

    def get_config(self) -> dict[str, Any]:
        solver = self._given
        if solver is not None and not isinstance(solver, str):
            solver = keras.saving.serialize_keras_object(solver)
        return {
            "solver": solver,
            "readout": self.readout,
            "preparation": self.preparation,
            "parallel": self.parallel,
            "success_probability": self.success_probability,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CircuitQLSA:
        config = dict(config)
        if isinstance(config.get("solver"), dict):
            config["solver"] = keras.saving.deserialize_keras_object(config["solver"])
        return cls(**config)


def _checked(solver: Any) -> CircuitSolver:
    if not all(hasattr(solver, name) for name in ("circuit_depth", "epsilon")):
        raise ValueError(
            "Argument `solver` must be a quantum solver with `circuit_depth` and `epsilon`. "
            f"Received: solver={solver!r}"
        )
    checked: CircuitSolver = solver
    return checked
