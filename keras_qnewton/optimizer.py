"""`QNewton`: the Keras contract around one Newton step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import decision_log
from keras_qnewton.conditioning import Pruning, Spectrum
from keras_qnewton.curvature import Blocks
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.curvature.memory import available_memory, check_memory
from keras_qnewton.loss import RecordedLoss, as_tensors, called
from keras_qnewton.registry import resolve
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.step import Memory, Step, newton_step

# Rows of the log kept in the optimizer's state; `NewtonLog` keeps all.
_LOG_CAPACITY = 1024
_NAN = keras.initializers.Constant(float("nan"))

_NO_LOSS = (
    "QNewton found no recorded loss to differentiate: {why}. It needs the loss as a function of "
    "the weights, not the gradients alone. Two ways out: (1) `model.compile(optimizer=QNewton())` "
    "and `model.fit(...)` without `run_eagerly=True`; a custom `train_step` passes its loss "
    "through the optimizer, `loss = self.optimizer.scale_loss(loss)`, inside its gradient tape. "
    "(2) `optimizer.minimize(loss_fn, variables)` in a loop of your own, eager or in a "
    "`tf.function`. No weight was changed."
)


@keras.saving.register_keras_serializable(package="keras_qnewton")
class QNewton(keras.optimizers.Optimizer):
    """Newton's method for Keras models, each Hessian block solved by a scheduled solver.

    Every step differentiates the batch's loss twice, solves a damped Newton system for each
    Hessian block, and takes the step only if this batch's loss does not rise (the same batch
    and dropout masks at the old and the new weights).

    Args:
        learning_rate: Factor of the Newton step; 1.0 is Newton's own. A number, a schedule, or
            a callable.
        curvature: "hessian" (exact), "gauss_newton" (positive semidefinite; for squared error
            and softmax or sigmoid cross-entropy), "fisher" (empirical, for the same losses),
            "auto" (Gauss-Newton where the loss is recognised as one of these, else exact), or an
            object.
        blocks: How weights are grouped into Hessian blocks: "auto" or "full" (one block),
            "layer", "variable", or a `Blocks` object. Blocks over its `max_size`, 2,048 weights,
            are not formed: see `Blocks`.
        damping: "adaptive", "constant" (the paper's), or an `Adaptive` or `Constant` object.
        sparsity: Prunes each block, symmetrically, to this many non-zeros a row (an int) or
            this fraction of N (a float in (0, 1]); or a `Pruning` object. None keeps all.
        scheduler: A `Scheduler` that sends each linear system to a classical or a quantum
            solver. None solves classically, and the train step has no host call in it.
        update_every: Steps between two evaluations of the Hessian blocks; the gradient, λ and
            ρ are new in every step. Formed blocks are kept in the optimizer's state, N² numbers
            each, if this is above 1 or `damping` averages them; if above 1, so is their
            factorisation, in float64: a saddle-free step's serves every λ, others serve while λ
            stays.
        seed: Of the Lanczos start vectors, an int; None is 0.
        name: Name of the optimizer.
        **kwargs: Keras's own `weight_decay`, `clipnorm`, `clipvalue`, `global_clipnorm`,
            `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, `loss_scale_factor`. Clipping
            bounds the Newton step. The step is judged as clipped and constrained. Weight
            decay is decoupled and applied apart from the judged step.

    Attributes:
        decisions: What happened, a list of `Decision`, one a step and block, oldest first; the
            last 1,024.

    Raises:
        ValueError: If an argument is not one of these; in training, if the loss cannot be
            recorded, or is not finite (`tf.errors.InvalidArgumentError`; under XLA, which
            leaves checks out, the step is refused): before any weight is changed.

    References:
        arXiv:2405.00252 (Q-Newton); arXiv:1406.2572 (saddle-free Newton).
    """

    def __init__(  # noqa: PLR0913 - one argument a setting, all with defaults
        self,
        learning_rate: Any = 1.0,
        curvature: Any = "auto",
        blocks: Any = "auto",
        damping: Any = "adaptive",
        sparsity: Any = None,
        scheduler: Scheduler | None = None,
        update_every: int = 1,
        seed: int | None = None,
        name: str = "qnewton",
        **kwargs: Any,
    ):
        if isinstance(learning_rate, int) and not isinstance(learning_rate, bool):
            learning_rate = float(learning_rate)
        if kwargs.get("gradient_accumulation_steps"):
            raise ValueError(
                "Argument `gradient_accumulation_steps` is not supported: it would average Newton "
                "steps, not gradients. Use a larger batch. Received: "
                f"gradient_accumulation_steps={kwargs['gradient_accumulation_steps']}"
            )
        update_every = _checked_integer("update_every", update_every, least=1)
        seed = None if seed is None else _checked_integer("seed", seed, least=0)
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise ValueError(
                "Argument `scheduler` must be a `Scheduler` object or None. "
                f"Received: scheduler={scheduler!r}"
            )
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.curvature = resolve("curvature", curvature, "curvature", needs=("at",))
        blocks = Blocks(blocks) if isinstance(blocks, str) else blocks
        self.blocks = resolve("blocks", blocks, "blocks", needs=("split",))
        self.damping = resolve("damping", damping, "damping", needs=("shift", "update"))
        self.scheduler = (
            Scheduler(classical="cholesky", quantum=None) if scheduler is None else scheduler
        )
        self.sparsity, self._pruning = _checked_pruning(sparsity)
        self.update_every = update_every
        self.seed = seed
        self._has_default_scheduler = scheduler is None
        self._pending_loss: Any = None
        self._block_names: list[str] = []

    # --- the Keras contract -------------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the optimizer's state; once, before the first step."""
        if self.built:
            return
        super().build(variables)
        parts = self.blocks.split(variables)
        averages = self.damping.adaptive and self.damping.memory > 1
        keeps = averages or self.update_every > 1
        keeps_factors = self.update_every > 1
        dtypes = {tf.as_dtype(v.dtype) for v in variables}
        dtype = "float64" if tf.float64 in dtypes else "float32"  # the curvature's
        matrices = keeps * tf.as_dtype(dtype).size // 4
        check_memory(parts, matrices + 2 * keeps_factors, available_memory())
        self._block_names = [part.name for part in parts]
        # State is saved by position: new variables go to the end.
        self._damping_value = self.add_variable((), dtype="float64", name="damping")
        self._log = self.add_variable(
            (_LOG_CAPACITY, decision_log.width(self.scheduler)), dtype="float64", name="log"
        )
        self._log_count = self.add_variable((), dtype="int64", name="log_count")
        self._kept = {
            part.name: self.add_variable((part.size, part.size), dtype=dtype, name="hessian")
            for part in parts
            if keeps and part.dense
        }
        self._batches_averaged = self.add_variable((), dtype="float64", name="batches_averaged")
        self._last_loss = self.add_variable((), initializer=_NAN, dtype="float64", name="last_loss")
        self._last_weights = [
            self.add_variable_from_reference(v, name="last_weights") for v in variables if averages
        ]
        self._derived: dict[tuple[str, str], list[Any]] = {}
        for part in parts if keeps_factors else ():
            if part.dense:
                ends = self.add_variable((len(Spectrum._fields),), dtype="float64", name="spectrum")
                self._derived[part.name, "spectrum"] = [ends]
                # Which system it is of, see `directions.kept_factor`, and a `Packed`.
                self._derived[part.name, "factor"] = [
                    self.add_variable(shape, dtype="float64", name="factor")
                    for shape in ((2,), (part.size,), (part.size, part.size))
                ]

    def scale_loss(self, loss: Any) -> Any:
        """Keeps the loss of a train step, so that `apply` can differentiate it twice."""
        self._pending_loss = loss
        return super().scale_loss(loss)

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """One Newton step from the gradients of the loss that `scale_loss` saw last.

        Raises:
            ValueError: If there is no such loss in the graph being traced.
        """
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._pending_loss = None

    @tf.autograph.experimental.do_not_convert
    def minimize(self, loss_fn: Callable[[], Any], variables: Sequence[Any]) -> tf.Tensor:
        """One Newton step of the user's own loss.

        Args:
            loss_fn: Takes no argument, returns a scalar; reads the variables. Called once.
                Eagerly it is traced anew at each call, since it may read Python values that
                have changed, and TensorFlow keeps a few megabytes of each trace: in a loop,
                call `minimize` inside a `tf.function`.
            variables: `keras.Variable`s or `tf.Variable`s, the same at every call.

        Returns:
            The loss before the step, a scalar tensor.

        Raises:
            ValueError: If an argument is not of these kinds, or the loss cannot be recorded.
        """
        tensors = as_tensors(variables)
        variables = list(variables) if isinstance(variables, Sequence) else [variables]
        with tf.init_scope():
            self.build(variables)

        def step() -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(tensors)
                loss = called(loss_fn)
                scaled = self.scale_loss(loss)
            gradients = tape.gradient(scaled, tensors)
            if all(g is None for g in gradients):
                raise ValueError(
                    "The loss does not depend on any of `variables`. Received: variables="
                    f"{[v.name for v in tensors]}"
                )
            self.apply(gradients, variables)
            return loss

        return step() if tf.inside_function() else tf.function(step, autograph=False)()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Subtracts lr times the direction x; Keras calls it with x in the gradient's place."""
        self.assign_sub(variable, tf.cast(learning_rate, gradient.dtype) * gradient)

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        # Keras's own hook for what happens between `apply` and `update_step`: gradients are
        # filtered and unscaled here, and not yet clipped. Overriding `apply` alone was tried:
        # it would have to undo the loss scale that Keras divides by.
        loss = self._recorded(as_tensors(trainable_variables))
        directions = self._newton_directions(loss, grads, trainable_variables)
        super()._backend_apply_gradients(directions, trainable_variables)

    # --- the Newton step ----------------------------------------------------------------

    def _recorded(self, variables: Sequence[tf.Variable]) -> RecordedLoss:
        loss = self._pending_loss
        if loss is None:
            raise ValueError(
                _NO_LOSS.format(
                    why="`scale_loss` was not called (a custom train step, or a wrapper such as "
                    "`LossScaleOptimizer` under the mixed_float16 policy; mixed_bfloat16 works)"
                )
            )
        if not tf.is_tensor(loss) or not tf.is_symbolic_tensor(loss):
            raise ValueError(_NO_LOSS.format(why="the train step ran eagerly (`run_eagerly=True`)"))
        if loss.graph is not tf.compat.v1.get_default_graph():
            raise ValueError(
                _NO_LOSS.format(why="the loss was computed in another graph than the step")
            )
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                "QNewton does not train on several replicas yet: each would solve for its own "
                "Hessian. Received: a distribution strategy with "
                f"{tf.distribute.get_strategy().num_replicas_in_sync} replicas in sync"
            )
        return RecordedLoss(loss, variables)

    def _newton_directions(
        self, loss: RecordedLoss, grads: Sequence[Any], variables: Sequence[Any]
    ) -> list[tf.Tensor]:
        parts = self.blocks.split(variables)
        weights = loss.at_variables()
        step = newton_step(
            loss,
            weights,
            [tf.convert_to_tensor(g) for g in grads],
            parts,
            curvature=self.curvature,
            damping=self.damping,
            scheduler=self.scheduler,
            pruning=self._pruning,
            last=self._memory(variables, loss.value.dtype),
            seed=self.seed or 0,
            to_step=lambda directions: self._to_step(directions, weights, variables),
            proportional=self._takes_directions_as_they_are(variables),
            keep=lambda k, compute, count: self._kept_block(parts[k], compute, count),
            keep_derived=lambda k, *given: self._kept_derived(parts[k], *given),
            keeps=self.update_every > 1,
        )
        self._record(step, parts)
        self._remember(step.memory, variables)
        return step.directions

    def _memory(self, variables: Sequence[Any], dtype: tf.DType) -> Memory:
        """What the last step left in the optimizer's state."""
        return Memory(
            damping=tf.convert_to_tensor(self._damping_value),
            count=tf.convert_to_tensor(self._batches_averaged),
            loss=tf.cast(tf.convert_to_tensor(self._last_loss), dtype),
            weights=[tf.convert_to_tensor(v) for v in self._last_of(variables)],
        )

    def _remember(self, memory: Memory, variables: Sequence[Any]) -> None:
        self.assign(self._damping_value, memory.damping)
        self.assign(self._batches_averaged, memory.count)
        self.assign(self._last_loss, tf.cast(memory.loss, tf.float64))
        last = self._last_of(variables)
        for kept, weight in zip(last, memory.weights if last else (), strict=True):
            self.assign(kept, weight)

    def _last_of(self, variables: Sequence[Any]) -> list[Any]:
        """The state that holds the variables' last values; empty if none is kept."""
        if not self._last_weights:
            return []
        return [self._last_weights[self._get_variable_index(v)] for v in variables]

    def _to_step(
        self, directions: list[tf.Tensor], weights: Sequence[tf.Tensor], variables: Sequence[Any]
    ) -> list[tf.Tensor]:
        """The very change of the weights that Keras will make of the directions."""
        out = []
        for x, w, v in zip(self._clip_gradients(directions), weights, variables, strict=True):
            step = -tf.cast(self.learning_rate, x.dtype) * x
            constraint = getattr(v, "constraint", None)
            out.append(step if constraint is None else constraint(w + step) - w)
        return out

    def _takes_directions_as_they_are(self, variables: Sequence[Any]) -> bool:
        """Whether a step is the learning rate times the directions: no clipping, no constraint."""
        clips = (self.clipnorm, self.global_clipnorm, self.clipvalue)
        constraints = (getattr(v, "constraint", None) for v in variables)
        return all(c is None for c in (*clips, *constraints))

    def _kept_block(
        self, part: Any, compute: Callable[[], Formed], count: tf.Tensor
    ) -> tuple[Formed, tf.Tensor | bool]:
        """The block, formed now or lately, averaged over `count` batches; and whether it is the
        last step's.
        """
        kept = self._kept.get(part.name)
        # Weights frozen since the state was built make another block under the same name.
        if kept is None or kept.shape[0] != part.size:
            return compute(), False

        old = tf.convert_to_tensor(kept)
        missing = tf.reduce_all(tf.equal(tf.linalg.diag_part(old), 0))
        fresh = (count <= 2) | missing  # what is kept is older
        evaluations = tf.math.ceil(count / self.update_every)

        def averaged(new: tf.Tensor) -> tf.Tensor:
            new = tf.cast(new, kept.dtype)
            matrix = tf.cond(
                fresh, lambda: new, lambda: old + tf.cast(1 / evaluations, new.dtype) * (new - old)
            )
            # What is not finite ends this step, and must not be there in the next.
            sound = tf.math.is_finite(tf.reduce_sum(matrix))
            kept.assign(tf.cond(sound, lambda: matrix, lambda: old))
            return matrix

        if self.update_every == 1:
            matrix, how = compute()
            averages = count > 1
            matrix = tf.cond(
                averages, lambda: tf.cast(averaged(matrix), matrix.dtype), lambda: matrix
            )
            return Formed(matrix, how), False
        due = tf.equal(tf.convert_to_tensor(self._iterations) % self.update_every, 0) | missing

        def formed() -> tuple[tf.Tensor, tf.Tensor]:
            matrix, how = compute()
            return averaged(matrix), how

        return Formed(*tf.cond(due, formed, lambda: (old, tf.constant(Formation.KEPT)))), ~due

    def _kept_derived(
        self,
        part: Any,
        same: tf.Tensor,
        what: str,
        compute: Callable[[], Sequence[tf.Tensor]],
        still: Callable[..., tf.Tensor] | None = None,
    ) -> tuple[Sequence[tf.Tensor], tf.Tensor]:
        """What is computed of a block's matrix, that of the last step if the matrix is the `same`;
        and whether it is new (`directions.Keep`).
        """
        kept = self._derived[part.name, what]
        old = [tf.convert_to_tensor(variable) for variable in kept]

        def computed() -> list[tf.Tensor]:
            values = list(compute())
            for variable, value in zip(kept, values, strict=True):
                variable.assign(value)
            return values

        # Zeros are those before the first, or of a matrix of zeros.
        new = ~same | tf.reduce_all(tf.equal(old[0], 0))
        if still is not None:
            new |= ~still(*old)
        return tf.cond(new, computed, lambda: old), new

    def _record(self, step: Step, parts: Sequence[Any]) -> None:
        for part in parts:  # variables without a gradient may have changed the partition
            if part.name not in self._block_names:
                self._block_names.append(part.name)
        numbers = [self._block_names.index(part.name) for part in parts]
        new = decision_log.rows(step, parts, numbers, tf.convert_to_tensor(self._iterations))
        count = tf.convert_to_tensor(self._log_count)
        decision_log.append(self._log.value, count, new)
        self.assign(self._log_count, count + len(parts))

    # --- what happened ------------------------------------------------------------------

    @property
    def decisions(self) -> decision_log.Decisions:
        """The log so far: one `Decision` a step and block, oldest first, the last 1,024."""
        return self.decisions_since(0)

    def decisions_since(self, number: int) -> decision_log.Decisions:
        """The decisions from the given one on, counted from 0 over the whole training."""
        if not self.built:
            return decision_log.Decisions()
        return decision_log.decode(
            self._log.numpy(), self.decision_count, number, self.scheduler, self._block_names
        )

    @property
    def decision_count(self) -> int:
        """How many decisions were made in the whole training."""
        return int(self._log_count.numpy()) if self.built else 0

    # --- serialisation ------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        config = super().get_config()
        config.update(
            curvature=serialize(self.curvature),
            blocks=serialize(self.blocks),
            damping=serialize(self.damping),
            sparsity=(serialize(self.sparsity) if callable(self.sparsity) else self.sparsity),
            scheduler=None if self._has_default_scheduler else serialize(self.scheduler),
            update_every=self.update_every,
            seed=self.seed,
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QNewton:
        config = dict(config)
        for key in ("curvature", "blocks", "damping", "sparsity", "scheduler"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return super().from_config(config, custom_objects=custom_objects)


def _checked_pruning(sparsity: Any) -> tuple[Any, Any]:
    """`sparsity` with plain numbers for NumPy's, and the policy that it stands for."""
    if sparsity is None or callable(sparsity):
        return sparsity, sparsity
    pruning = Pruning(sparsity)
    return pruning.sparsity, pruning


def _checked_integer(argument: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(
            f"Argument `{argument}` must be an integer of at least {least}. "
            f"Received: {argument}={value!r}"
        )
    return int(value)
