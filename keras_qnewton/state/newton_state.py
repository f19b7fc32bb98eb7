"""The optimizer's variables that one Newton step leaves to the next.

    Memory      damping λ, whether it is of rescaled weights, number m of batches that are
                averaged, loss L(w) and weights w of the last step, with a forcing term its ‖g‖
                and η, and for a circuit that wants them its solutions' lengths; read before a
                step, assigned after it
    KeptBlock   a block H_k `[N, N]`, averaged over m batches, the ends of its spectrum, and one
                factorisation; each assigned in the branch of the graph that computes it

Saved files and checkpoints hold the variables by their position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_qnewton.conditioning import Spectrum
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.memory import available_memory, check_memory
from keras_qnewton.settings import Settings
from keras_qnewton.state.kept_block import KeptBlock

_NAN = keras.initializers.Constant(float("nan"))


class Foreseen(NamedTuple):
    """What the last step knew of the next.

    Attributes:
        loss: L(w + d), float64 scalar; NaN before the first step.
        full: N, how many examples a full batch has, float64 scalar; 0 if it is not known.
    """

    loss: tf.Tensor
    full: tf.Tensor


class Memory(NamedTuple):
    """The step before, as a step knows it.

    Attributes:
        damping: λ as it left it, float64 scalar; not positive before the first step.
        count: m, the number of batches that a step averages, float64 scalar.
        loss: Its batch's loss before it, scalar; NaN before the first step.
        weights: The weights before it, one tensor a weight; empty if data that change are not
            looked for.
        rescaled: Whether λ is of rescaled weights from here on, boolean scalar.
        forced: ‖g‖ and η of the last step that was taken, float64 `[2]`, zeros before it; None
            where circuits are solved to a fixed tolerance.
        lengths: `BlockStep.lengths` by block, float64 `[3]` each; empty where no solver is told.
    """

    damping: tf.Tensor
    count: tf.Tensor
    loss: tf.Tensor
    weights: Sequence[tf.Tensor]
    rescaled: tf.Tensor
    forced: tf.Tensor | None = None
    lengths: Mapping[str, tf.Tensor] = {}


@dataclasses.dataclass(frozen=True)
class NewtonState:
    """The optimizer's variables that a Newton step reads and leaves.

    Attributes:
        damping: λ, float64 scalar; -λ where it is of rescaled weights. A variable of its own would
            make files of earlier versions those of another optimizer.
        count: m, float64 scalar.
        loss: L(w) before the last step, float64 scalar.
        foreseen: Reads it off the log.
        weights: w before the last step, one variable a weight; empty if none are kept.
        blocks: The kept blocks, by name of their part.
        forced: ‖g‖ and η, float64 `[2]`; None if the scheduler forces nothing.
        lengths: `BlockStep.lengths`, float64 `[3]`, by name of the block; empty if no solver is
            told.
    """

    damping: keras.Variable
    count: keras.Variable
    loss: keras.Variable
    foreseen: Callable[[], Foreseen]
    weights: Sequence[keras.Variable]
    blocks: Mapping[str, KeptBlock]
    forced: keras.Variable | None = None
    lengths: Mapping[str, keras.Variable] = dataclasses.field(default_factory=dict)

    @classmethod
    def create(
        cls,
        optimizer: keras.optimizers.Optimizer,
        damping: keras.Variable,
        parts: Sequence[Part],
        weights: Sequence[keras.Variable | tf.Variable],
        settings: Settings,
        foreseen: Callable[[], Foreseen],
    ) -> NewtonState:
        """New variables of `optimizer`; zeros, and NaN for the loss.

        State is saved by position: new variables go to the end.

        Args:
            optimizer: Adds them.
            damping: λ, its first.
            parts: The blocks.
            weights: All that may be trained.
            settings: Which blocks are kept depends on them.
            foreseen: See the attribute.
        """
        dtype = _curvature_dtype(weights)
        dense = [part for part in parts if part.dense]
        blocks: dict[str, dict[str, list[keras.Variable]]] = {part.name: {} for part in dense}

        def kept(shape: tuple[int, ...], name: str, dtype: str = "float64") -> keras.Variable:
            return optimizer.add_variable(shape, dtype=dtype, name=name)

        for part in dense if settings.keeps_blocks else ():
            blocks[part.name]["hessian"] = [kept((part.size, part.size), "hessian", dtype.name)]
        count = kept((), "batches_averaged")
        loss = optimizer.add_variable((), initializer=_NAN, dtype="float64", name="last_loss")
        last = [
            optimizer.add_variable_from_reference(w, name="last_weights")
            for w in weights
            if settings.averages
        ]
        for part in dense if settings.keeps_factors else ():
            blocks[part.name]["spectrum"] = [kept((len(Spectrum._fields),), "spectrum")]
            blocks[part.name]["factor"] = [
                kept(shape, "factor") for shape in ((2,), (part.size,), (part.size, part.size))
            ]
        forced = kept((2,), "forced") if settings.scheduler.forcing is not None else None
        carrying = dense if settings.scheduler.carries else []
        lengths = {part.name: kept((3,), "lengths") for part in carrying}
        return cls(
            damping=damping,
            count=count,
            loss=loss,
            foreseen=foreseen,
            weights=last,
            blocks={
                name: KeptBlock(variables, settings.update_every, lambda: optimizer.iterations)
                for name, variables in blocks.items()
            },
            forced=forced,
            lengths=lengths,
        )

    def of_weights(self, positions: Sequence[int]) -> NewtonState:
        """The state of those weights alone, in that order: a step may leave some out."""
        chosen = [self.weights[k] for k in positions] if self.weights else []
        return dataclasses.replace(self, weights=chosen)

    def block(self, part: Part) -> KeptBlock:
        """The kept values of `part`; none if another block had its name when they were made.

        Weights that were frozen since leave a smaller block of the same name.
        """
        kept = self.blocks.get(part.name, KeptBlock())
        sizes = [int(variable.shape[0]) for variable in kept.variables.get("hessian", ())]
        return kept if sizes == [part.size] else KeptBlock()

    def memory(self, dtype: tf.DType) -> Memory:
        """The last step's values, the loss in the present loss's `dtype`."""
        damping = tf.convert_to_tensor(self.damping)
        return Memory(
            damping=tf.abs(damping),
            count=tf.convert_to_tensor(self.count),
            loss=tf.cast(tf.convert_to_tensor(self.loss), dtype),
            weights=[tf.convert_to_tensor(v) for v in self.weights],
            rescaled=damping < 0,
            forced=None if self.forced is None else tf.convert_to_tensor(self.forced),
            lengths={name: tf.convert_to_tensor(v) for name, v in self.lengths.items()},
        )

    def remember(self, memory: Memory) -> None:
        """Assigns the values for the next step."""
        self.damping.assign(tf.where(memory.rescaled, -memory.damping, memory.damping))
        self.count.assign(memory.count)
        self.loss.assign(tf.cast(memory.loss, tf.float64))
        for kept, weight in zip(self.weights, memory.weights if self.weights else (), strict=True):
            kept.assign(weight)
        if self.forced is not None and memory.forced is not None:
            self.forced.assign(memory.forced)
        for name, lengths in memory.lengths.items():
            self.lengths[name].assign(lengths)


def check_state(
    parts: Sequence[Part], weights: Sequence[keras.Variable | tf.Variable], settings: Settings
) -> None:
    """Refuses blocks that would not fit into memory, before anything is made.

    Raises:
        ValueError: With the number of weights that would fit, and the setting to change.
    """
    # In units of four bytes for each of N² numbers; factors are in double precision.
    matrices = settings.keeps_blocks * _curvature_dtype(weights).size // 4
    factors = 2 * settings.keeps_factors
    check_memory(parts, matrices + factors, available_memory())


def _curvature_dtype(weights: Sequence[keras.Variable | tf.Variable]) -> tf.DType:
    dtypes = {tf.as_dtype(w.dtype) for w in weights}
    return tf.float64 if tf.float64 in dtypes else tf.float32
