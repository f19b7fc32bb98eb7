"""The cost model of the circuit itself: its depth, layer by layer."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import keras
import tensorflow as tf

from keras_qnewton import registry
from keras_qnewton.arguments import check_number
from keras_qnewton.registry import register
from keras_qnewton.scheduling.cost import CostModel, QuantumCost
from keras_qnewton.scheduling.function_cost import accepted
from keras_qnewton.scheduling.numbers import float64
from keras_qnewton.types import RowSolver, Scalar, Solver, SolverToTolerance


class CircuitSolver(Protocol):
    """A quantum solver that knows the depth of its circuit."""

    @property
    def epsilon(self) -> float:
        """ε, accuracy of one run's solution."""
        ...

    def circuit_depth(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        alpha: Scalar | None = None,
        layers: Scalar | None = None,
    ) -> Scalar:
        """Layers of gates on one and two qubits without |b⟩'s preparation.

        It may have arguments `tolerance`, the relative residual that is enough, and `rows`, r of
        the rows that are encoded.
        """
        ...


@register("cost", "circuit")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class CircuitQLSA(QuantumCost):
    """seconds = gate_time · depth of the circuit that the quantum solver would run.

    The depth is the solver's to say (`QSVT.circuit_depth`): degree × the layers of one call of its
    block encoding, and the projector phases between. In training, α and the layers of a sparse
    encoding are those of the matrix at hand (`QSVT.measured`). Without them, α is the largest that
    N and d allow. The accuracy is the solver's, too: for QSVT that of its polynomial, and
    refinement to more digits runs the circuit again.

    With `readout`, the runs are those of the solver's own refinement by its own `Shots`, failures
    included: the shots of a run times as many runs as its tolerance takes. A number of shots that
    cannot reach it has no price (Inf). A solver that reads a simulator's amplitudes is priced at
    ten successes an amplitude, see `reading`.

    Args:
        solver: Quantum solver with `circuit_depth` and `epsilon`, or its registered name; None
            for that of the scheduler which has this cost model, or else "qsvt".
        readout: See `QuantumCost`.
        preparation: See `QuantumCost`: one preparation a run, which the circuit begins with.
        parallel: See `QuantumCost`.
        setup: See `QuantumCost`.
        success_probability: p of one run, in (0, 1]; a state takes 1/p runs. QSVT's depends on b
            (a solution's details["success_probability"]; 0.01 to 0.3 is common), so that
            the default charges a single run, and with `readout` 1 stands for
            `reading.success_of_noise`. A solver whose p does not depend on b says so
            (`Shortcut.success_probability`), and 1 stands for that.

    Raises:
        ValueError: If an argument is not as described.
    """

    # η of a model that `to` returned.
    _tolerance: tf.Tensor | None = None

    def __init__(
        self,
        solver: str | CircuitSolver | None = None,
        readout: bool = False,
        preparation: bool = True,
        parallel: int = 1,
        success_probability: float = 1.0,
        setup: bool | CostModel = False,
    ) -> None:
        self.success_probability = check_number(
            "success_probability", success_probability, "above 0 and at most 1", most=1.0
        )
        self._given = solver
        self._solver: CircuitSolver | None = None
        if solver is not None and not isinstance(solver, str):
            self._solver = _checked(solver)
        self._set_switches(readout, preparation, parallel, setup)

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
        return CircuitQLSA(**{**self.get_config(), "solver": _checked(solver), "setup": self.setup})

    @property
    def epsilon(self) -> float:
        """ε, the solver's."""
        return float(self.solver.epsilon)

    @property
    def reading_epsilon(self) -> float | tf.Tensor:
        """The residual at which the solver's refinement stops; ε of a solver without one."""
        tolerance = float(getattr(self.solver, "tolerance", 0.0))
        own = tolerance if 0 < tolerance < 1 else self.epsilon
        return own if self._tolerance is None else tf.maximum(self._tolerance, float64(own))

    def to(self, tolerance: Scalar) -> CircuitQLSA:
        """See `QuantumCost.to`; of a solver that cannot be asked for a tolerance, this model."""
        if not isinstance(self.solver, SolverToTolerance | RowSolver):
            return self
        other = copy.copy(self)
        other._tolerance = tf.minimum(float64(tolerance), 0.5)
        return other

    @property
    def encoding(self) -> str | None:
        """Name of the solver's block encoding; None if it does not say."""
        name: str | None = getattr(self.solver, "encoding_name", None)
        return name

    def depth(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        alpha: Scalar | None = None,
        layers: Scalar | None = None,
        rows: Scalar | None = None,
    ) -> tf.Tensor:
        """Layers of gates of one run without |b⟩'s preparation, scalar float64."""
        known = {"alpha": alpha, "layers": layers, "tolerance": self._tolerance, "rows": rows}
        given = {name: value for name, value in known.items() if value is not None}
        depth = self.solver.circuit_depth
        return float64(
            depth(size, condition_number, sparsity, **accepted(depth, given, positional=3))
        )

    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """1, scalar float64: each run begins with one."""
        del condition_number
        return tf.ones([], tf.float64)

    def seconds(  # noqa: PLR0913 - what a system is measured for, by name
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        gate_time: Scalar,
        alpha: Scalar | None = None,
        success: Scalar | None = None,
        tolerance: Scalar | None = None,
        layers: Scalar | None = None,
        rows: Scalar | None = None,
    ) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; see `QuantumCost.seconds`.

        Args:
            size: N.
            condition_number: κ.
            sparsity: d.
            gate_time: Seconds of a layer of gates.
            alpha: α/‖A‖₂; None for the largest that N and d allow.
            success: p of a run; None for `success_probability`.
            tolerance: Relative residual that is enough; None for the solver's own settings.
            layers: Of one call of the encoding; None for the solver's formula.
            rows: r that are encoded in the place of a matrix; None for as many as unknowns.
        """
        if tolerance is not None:
            given = size, condition_number, sparsity, gate_time, alpha, success
            return self.to(tolerance).seconds(*given, layers=layers, rows=rows)
        depth = self.depth(size, condition_number, sparsity, alpha, layers, rows)
        run = self._layers(size, depth, self.preparations(condition_number))
        once = float64(gate_time) * run
        solver = self.solver
        if success is None:
            known = getattr(solver, "success_probability", 1.0)
            known = self.success_probability if self.success_probability < 1 else known
            success = known if known < 1 else None
        setup = self._setup_seconds(size)
        if not self.readout:
            return once / float64(1.0 if success is None else success) + setup
        shots = getattr(getattr(solver, "readout", None), "shots", None)
        max_runs = None if shots is None else 1 + getattr(solver, "max_refinements", 0)
        read = solver.amplitudes(size) if hasattr(solver, "amplitudes") else size
        return once * self._readings(read, condition_number, success, shots, max_runs) + setup

    def measured(
        self, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor, sparsity: tf.Tensor
    ) -> dict[str, Any]:
        """See `QuantumCost.measured`: α and the layers of a call, too, where the solver knows."""
        found = super().measured(matrix, norm, condition_number, sparsity)
        if hasattr(self.solver, "success_probability"):
            found.pop("success", None)
        if hasattr(self.solver, "measured"):
            found |= self.solver.measured(matrix, norm, condition_number)
        return found

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
            "setup": self._stored_setup(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CircuitQLSA:
        config = dict(config)
        if isinstance(config.get("solver"), dict):
            config["solver"] = keras.saving.deserialize_keras_object(config["solver"])
        return super().from_config(config)


def _checked(solver: Any) -> CircuitSolver:
    if not all(hasattr(solver, name) for name in ("circuit_depth", "epsilon")):
        raise ValueError(
            "Argument `solver` must be a quantum solver with `circuit_depth` and `epsilon`. "
            f"Received: solver={solver!r}"
        )
    checked: CircuitSolver = solver
    return checked
