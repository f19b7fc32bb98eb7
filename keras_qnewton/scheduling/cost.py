"""The interface of cost models, and the terms that all quantum ones share.

Cost models are written in TensorFlow ops on float64, so that a choice made inside a training
graph, where κ and d are tensors, is the one that the same numbers give eagerly.
"""

from __future__ import annotations

import abc
import copy
from typing import Any, Protocol, TypeVar, runtime_checkable

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_count, check_number, check_switch
from keras_qnewton.registry import Policy
from keras_qnewton.scheduling.numbers import float64 as float64
from keras_qnewton.scheduling.numbers import log2 as log2
from keras_qnewton.scheduling.numbers import qubits
from keras_qnewton.scheduling.reading import repetitions, success_of_noise
from keras_qnewton.scheduling.solver_time import SolverTime
from keras_qnewton.types import Scalar

_Cost = TypeVar("_Cost", bound="QuantumCost")


@runtime_checkable
class CostModel(Protocol):
    """Predicts how long one solve of an `[N, N]` symmetric system takes."""

    def seconds(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        gate_time: Scalar,
    ) -> tf.Tensor:
        """Predicted seconds, scalar float64.

        A model of a quantum solver may have more arguments, by these names and each with a default:
        the scheduler measures the matrix for those that there are (`handover`).

            alpha       α/‖A‖₂ of the block encoding, a scalar tensor
            success     p of a run that refines, a scalar tensor
            layers      of gates in a call of the encoding, a scalar tensor
            encoding    the encoding's name, a string
            rows        r of the Jacobian's rows U, for a solver that encodes them, a scalar tensor
            tolerance   relative residual that a forcing term leaves, a scalar tensor; only with one

        Args:
            size: N, an int or a scalar tensor.
            condition_number: κ₂, a float or a scalar tensor; a model may ignore it. For a solver
                that encodes rows U it is √κ, that of U above √λI.
            sparsity: d, the largest number of non-zeros in a row; int or scalar tensor.
            gate_time: Seconds a quantum gate takes; classical models ignore it.
        """
        ...


class QuantumCost(Policy, abc.ABC):
    """Base of the quantum cost models, with the switches for the work around the solve.

        seconds = gate_time · (G + P · S) · max(1, R / parallel) + C

        G   layers of gates of one state |x⟩, by `depth`
        S   layers of one preparation of |b⟩, `preparation_depth`; 0 without `preparation`
        P   preparations for one state |x⟩, by `preparations`
        R   runs until all amplitudes are read to ε: `reading.repetitions` with `readout`, else 1
        C   classical seconds before the first gate, with `setup`; else 0

    Published counts are of matrices that are encoded at α = ‖A‖₂. For another α, ακ is put for κ.

    Args:
        epsilon: ε, accuracy of the solution, in (0, 1).
        readout: Whether to charge for reading all N amplitudes.
        preparation: Whether to charge for preparing |b⟩.
        parallel: How many circuits run, and query the matrix, at the same time. The queries of
            one circuit wait for each other; only those of different shots can be made in
            parallel, so that this matters with `readout` alone.
        setup: Whether to charge for α, κ and the encoding's angles: True for an eigendecomposition
            as calibrated on this machine, which is what solvers here make of them; or a classical
            cost model. Each solve is charged, though shifts of one matrix share it.

    Attributes:
        encoding: Name of the block encoding whose α the scheduler measures for the model; None
            for a model that has no α of its own.

    Raises:
        ValueError: If `epsilon` is not between 0 and 1, `parallel` not a positive integer, or
            `setup` neither a flag nor a cost model.
    """

    _epsilon: float | tf.Tensor

    def __init__(
        self,
        epsilon: float = 1e-4,
        readout: bool = False,
        preparation: bool = False,
        parallel: int = 1,
        setup: bool | CostModel = False,
    ) -> None:
        self._epsilon = check_epsilon(epsilon)
        self._set_switches(readout, preparation, parallel, setup)

    def _set_switches(
        self, readout: bool, preparation: bool, parallel: int, setup: bool | CostModel
    ) -> None:
        priced = hasattr(setup, "seconds") and not isinstance(setup, type)
        if not isinstance(setup, bool) and not priced:
            raise ValueError(
                "Argument `setup` must be True, False or a classical cost model. "
                f"Received: setup={setup!r}"
            )
        self.setup = setup
        self.readout = check_switch("readout", readout)
        self.preparation = check_switch("preparation", preparation)
        self.parallel = check_count("parallel", parallel)

    @property
    def encoding(self) -> str | None:
        """See the class."""
        return None

    @property
    def epsilon(self) -> float | tf.Tensor:
        """ε; a tensor of a model that is asked for a tolerance in a graph.

        So `depth` and `preparations` take TensorFlow's functions of it, not Python's.
        """
        return self._epsilon

    def to(self: _Cost, tolerance: Scalar) -> _Cost:
        """This model for solutions that need be no more accurate than that.

        A run at ε is charged for a relative residual ε. Where A⁻¹ enlarges its error, another run
        follows, as in refinement, which is not charged.

        Args:
            tolerance: η, a number or a scalar tensor; ε is at least that, and 1/2 at most.
        """
        other = copy.copy(self)
        other._epsilon = tf.maximum(float64(self.epsilon), tf.minimum(float64(tolerance), 0.5))
        return other

    @abc.abstractmethod
    def depth(self, size: Scalar, condition_number: Scalar, sparsity: Scalar) -> tf.Tensor:
        """G, scalar float64; arguments as in `CostModel.seconds`, with ακ for κ."""

    @abc.abstractmethod
    def preparations(self, condition_number: Scalar) -> tf.Tensor:
        """P, scalar float64; ακ for κ."""

    def state_layers(
        self, size: Scalar, condition_number: Scalar, sparsity: Scalar, resolved: Scalar
    ) -> tf.Tensor:
        """G + P S, scalar float64.

        A model some of whose terms depend on the matrix alone, and not on its encoding, overrides
        it.

        Args:
            size: N.
            condition_number: κ.
            sparsity: d.
            resolved: ακ.
        """
        del condition_number
        depth = self.depth(size, resolved, sparsity)
        return self._layers(size, depth, self.preparations(resolved))

    def seconds(
        self,
        size: Scalar,
        condition_number: Scalar,
        sparsity: Scalar,
        gate_time: Scalar,
        alpha: Scalar | None = None,
        success: Scalar | None = None,
        tolerance: Scalar | None = None,
    ) -> tf.Tensor:
        """Predicted seconds of one solve, scalar float64; see `CostModel.seconds`.

        Args:
            size: N.
            condition_number: κ.
            sparsity: d.
            gate_time: Seconds of a layer of gates.
            alpha: α/‖A‖₂; None for 1.
            success: p of a run that is read; None for `reading.success_of_noise`.
            tolerance: Relative residual that is enough; None for ε.
        """
        if tolerance is not None:
            given = size, condition_number, sparsity, gate_time, alpha, success
            # What is more accurate serves, too, and a bound may be lower there.
            return tf.minimum(self.to(tolerance).seconds(*given), self.seconds(*given))
        resolved = condition_number
        if alpha is not None:
            resolved = float64(condition_number) * tf.maximum(float64(alpha), 1.0)
        once = float64(gate_time) * self.state_layers(size, condition_number, sparsity, resolved)
        if self.readout:
            once *= self._readings(size, condition_number, success)
        return once + self._setup_seconds(size)

    def measured(
        self, matrix: tf.Tensor, norm: tf.Tensor, condition_number: tf.Tensor, sparsity: tf.Tensor
    ) -> dict[str, Any]:
        """What `seconds` can be told of a matrix: its further arguments, by name.

        Args:
            matrix: A `[N, N]`, symmetric.
            norm: ‖A‖₂ that κ is made of, scalar float64.
            condition_number: κ, scalar float64.
            sparsity: d, scalar float64.
        """
        del sparsity
        if not self.readout:
            return {}
        size = int(matrix.shape[0])
        scaled = tf.math.divide_no_nan(tf.cast(matrix, tf.float64), norm)
        norms = tf.reduce_sum(tf.square(scaled)) / size
        return {"success": success_of_noise(condition_number, norms)}

    def _setup_seconds(self, size: Scalar) -> tf.Tensor:
        """C."""
        if self.setup is False:
            return tf.zeros([], tf.float64)
        model: CostModel = SolverTime("eigen") if self.setup is True else self.setup
        # Classical prices depend on N alone.
        return float64(model.seconds(size, 1.0, size, 1.0))

    def _layers(self, size: Scalar, depth: tf.Tensor, preparations: tf.Tensor) -> tf.Tensor:
        """G + P S."""
        if not self.preparation:
            return depth
        return depth + preparations * preparation_depth(size)

    def _readings(
        self,
        size: Scalar,
        condition_number: Scalar,
        success: Scalar | None,
        shots: int | None = None,
        max_runs: int | None = None,
    ) -> tf.Tensor:
        """max(1, R / parallel)."""
        if success is None:
            success = success_of_noise(condition_number)
        needed = repetitions(size, self.reading_epsilon, success, shots, max_runs)
        return tf.maximum(needed / self.parallel, 1.0)

    @property
    def reading_epsilon(self) -> float | tf.Tensor:
        """ε to which the solution is read."""
        return self.epsilon

    def get_config(self) -> dict[str, Any]:
        return {
            "epsilon": self.epsilon,
            "readout": self.readout,
            "preparation": self.preparation,
            "parallel": self.parallel,
            "setup": self._stored_setup(),
        }

    def _stored_setup(self) -> Any:
        return (
            self.setup
            if isinstance(self.setup, bool)
            else keras.saving.serialize_keras_object(self.setup)
        )

    @classmethod
    def from_config(cls: type[_Cost], config: dict[str, Any]) -> _Cost:
        config = dict(config)
        if isinstance(config.get("setup"), dict):
            config["setup"] = keras.saving.deserialize_keras_object(config["setup"])
        return cls(**config)


def preparation_depth(size: Scalar) -> tf.Tensor:
    """2^(n+1) - n - 2 layers of gates, scalar float64: |b⟩ from N numbers.

    The tree of multiplexed rotations that our circuits begin with (Möttönen et al. 2004,
    arXiv:quant-ph/0407010), each rotation and CNOT a layer. A state without structure takes of
    the order of N layers without ancillas.
    """
    n = qubits(size)
    return tf.pow(tf.constant(2.0, tf.float64), n + 1) - n - 2


def check_epsilon(epsilon: float) -> float:
    """`epsilon` as a float in (0, 1).

    Raises:
        ValueError: If it is not.
    """
    return check_number("epsilon", epsilon, "an accuracy between 0 and 1", most=1.0, ends="()")
