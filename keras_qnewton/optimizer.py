"""`QNewton`: the Keras contract around one Newton step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from keras_qnewton import _tf_private, replicas
from keras_qnewton.accumulation import accumulation_of, as_of_one_batch
from keras_qnewton.arguments import check_count, refused
from keras_qnewton.conditioning import Damping, Pruning
from keras_qnewton.curvature import Blocks, Curvature
from keras_qnewton.decision_log import DecisionLog, Decisions
from keras_qnewton.first_trace import is_thrown_away
from keras_qnewton.freed_memory import keep_freed_memory
from keras_qnewton.hyperparameters import (
    check_name,
    checked,
    checked_rate,
    name_or_number,
    settings_text,
    warn_of_rate,
)
from keras_qnewton.keras_update import KerasUpdate
from keras_qnewton.loss import (
    RecordedLoss,
    are_the_tapes,
    as_tensors,
    check_real,
    has_constant_data,
    loss_of_train_step,
    with_gradients,
)
from keras_qnewton.no_gradient import NoGradient
from keras_qnewton.policies import Policies
from keras_qnewton.progress import tracing_told
from keras_qnewton.quasi_newton import QuasiNewton
from keras_qnewton.refusals import Refusals
from keras_qnewton.replicated import one_copy
from keras_qnewton.running_fit import callbacks_of_fit
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.settings import Settings
from keras_qnewton.state import load_earlier
from keras_qnewton.step import (
    Batch,
    Step,
    check_arguments,
    check_method,
    hold_earlier_assignments,
    learned_policy,
    new_state,
    next_step,
    remember,
)
from keras_qnewton.step_of_replicas import StepOfReplicas
from keras_qnewton.traced_step import TracedByReplica

_SETTINGS = ("curvature", "blocks", "damping", "sparsity", "scheduler", "update_every", "seed")


@keras.saving.register_keras_serializable(package="keras_qnewton")
class QNewton(keras.optimizers.Optimizer):
    """Newton's method for Keras models, each Hessian block solved by a scheduled solver.

    Every step differentiates the batch's loss twice, solves a damped Newton system for each
    Hessian block, and takes the step only if this batch's loss does not rise (the same batch
    and dropout masks at the old and the new weights).

    Args:
        learning_rate: Factor of the Newton step; 1.0 is Newton's own. A number, a schedule, or
            a callable.
        curvature: Which matrix stands for the loss's curvature; a name, or an object.
            "hessian" is exact. "gauss_newton" is for sums of terms that are convex in tensors of
            the network, such as squared errors and cross-entropies. It is positive semidefinite
            if the loss has no other parts. Absolute errors, hinges and quantiles have the
            curvature of parabolas above them. "fisher" is the empirical Fisher matrix.
            "quasi_newton", or a `QuasiNewton`, learns an inverse Hessian from gradients, with a
            line search: no linear system is formed, solved or scheduled. "auto" takes
            Gauss-Newton where terms are recognised as convex, else the exact Hessian. Where a
            block has more weights than a matrix is formed of, and the data stay and have many
            rows, "auto" learns.
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
        name: Name of the optimizer; None for "qnewton", the next one "qnewton_1".
        **kwargs: Keras's own `weight_decay`, `clipnorm`, `clipvalue`, `global_clipnorm`,
            `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps`. Clipping bounds the Newton step. The step is judged as
            clipped and constrained. Weight decay is decoupled and applied apart from the judged
            step. With accumulation one step is of all the accumulated batches.

    Attributes:
        decisions: What happened, a list of `Decision`, one a step and block, oldest first; the
            last 1,024.

    Raises:
        ValueError: If an argument is not one of these; in training, if the loss cannot be
            recorded, or is not finite, or the gradients handed over are not its own
            (`tf.errors.InvalidArgumentError`; under XLA, which leaves checks out, the step is
            refused): before any weight is changed.

    References:
        arXiv:2405.00252 (Q-Newton); arXiv:1406.2572 (saddle-free Newton).
    """

    def __init__(  # noqa: PLR0913 - one argument a setting, all with defaults
        self,
        learning_rate: float | LearningRateSchedule | Callable[[], float] = 1.0,
        curvature: str | Curvature | QuasiNewton = "auto",
        blocks: str | Blocks = "auto",
        damping: str | Damping = "adaptive",
        sparsity: int | float | Pruning | None = None,
        scheduler: Scheduler | None = None,
        update_every: int = 1,
        seed: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        learning_rate, kwargs = checked_rate(learning_rate), checked(kwargs)
        check_name(name)
        update_every = check_count("update_every", update_every)
        seed = None if seed is None else check_count("seed", seed, least=0)
        policies = Policies.of(curvature, blocks, damping, sparsity, scheduler)
        super().__init__(learning_rate=learning_rate, name=name_or_number(name), **kwargs)
        self.curvature, self.blocks = policies.curvature, policies.blocks
        self.damping, self.scheduler = policies.damping, policies.scheduler
        self.sparsity, self._pruning = policies.sparsity, policies.pruning
        self.update_every = update_every
        self.seed = seed
        self.has_default_scheduler = scheduler is None
        check_arguments(self)
        if getattr(self.damping, "adaptive", False):  # a fixed damping needs short steps
            warn_of_rate(learning_rate, stacklevel=2)
        self._traced = TracedByReplica()
        self._warns = False  # of refused steps, once the step that is traced has run
        self._data_stay = False  # in all steps, for sure
        self._accumulation = accumulation_of(self)

    # --- the Keras contract -------------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the optimizer's state; once, before the first step.

        Raises:
            ValueError: If one is no variable or is not real, or the arguments do not suit them.
        """
        if self.built:
            return
        self._check_variables(variables)
        keep_freed_memory()
        # A train step that creates variables while it is traced is traced twice.
        with _tf_private.outside_of_functions():
            self._build(variables)

    def _check_variables(self, variables: Sequence[Any]) -> None:
        if not (isinstance(variables, (list, tuple)) and not variables):  # Keras allows for none
            as_tensors(variables)
        check_real(variables)
        check_method(self.blocks.split(variables), variables, self._settings)

    def _build(self, variables: Sequence[Any]) -> None:
        parts = self.blocks.split(variables)
        with as_of_one_batch(self):  # Keras would make a sum of gradients, which nobody reads
            super().build(variables)
        # A step of several replicas is made in one place, and so is what it leaves to the next.
        several = replicas.are_mirrored(self._distribution_strategy)
        with one_copy(self) if several else contextlib.nullcontext():
            # State is saved by position: new variables go to the end.
            damping = self.add_variable((), dtype="float64", name="damping")
            names = [part.name for part in parts]
            self._log = DecisionLog(self, self.scheduler, names)
            self._refusals, self._no_gradient = Refusals(self._log), NoGradient(self._log)
            foreseen = self._log.foreseen
            self._state = new_state(self, damping, parts, variables, self._settings, foreseen)

    @property
    def iterations(self) -> Any:
        """Steps so far; of each, all accumulated batches are one."""
        count = self._iterations
        return count if self._accumulation is None else self._accumulation.steps(count)

    def scale_loss(self, loss: Any) -> Any:
        """Keeps the loss of a train step, so that `apply` can differentiate it twice."""
        self._traced.now.pending_loss = loss
        return super().scale_loss(loss)

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """One Newton step from the gradients of the loss that `scale_loss` saw last.

        If it saw none, the loss is found in the graph being traced, by the gradients.

        Raises:
            ValueError: If `grads` is no list, or there is no such loss, or several that the
                gradients may be those of.
            tf.errors.InvalidArgumentError: At run time, if the gradients are not those of the loss.
        """
        if not isinstance(grads, Collection) or isinstance(grads, (str, bytes)):
            raise refused("grads", grads, "a list of gradients")
        try:
            with tracing_told():
                super().apply(grads, trainable_variables)
        finally:
            self._traced.now.forget()

    @tf.autograph.experimental.do_not_convert
    def minimize(self, loss_fn: Callable[[], Any], variables: Sequence[Any]) -> tf.Tensor:
        """One Newton step of the user's own loss.

        Args:
            loss_fn: Takes no argument, returns a scalar; reads the variables. Called once.
                Eagerly it is traced anew at each call, since it may read Python values that
                have changed: in a loop, call `minimize` inside a `tf.function`.
            variables: `keras.Variable`s or `tf.Variable`s, the same at every call.

        Returns:
            The loss before the step, a scalar tensor.

        Raises:
            ValueError: If an argument is not of these kinds, or the loss cannot be recorded.
        """
        tensors = as_tensors(variables)
        if replicas.are_mirrored(self._distribution_strategy):
            replicas.check_called_by_replicas(self._distribution_strategy)
            tensors = replicas.variables_here(tensors)
        variables = list(variables) if isinstance(variables, Sequence) else [variables]
        # A state is made for what is known of the data.
        if not self.built:
            self._check_variables(variables)

        def step() -> tf.Tensor:
            loss, gradients = with_gradients(loss_fn, tensors, self.scale_loss)
            if not self.built:
                self._data_stay = has_constant_data(RecordedLoss(loss, tensors))
            self._traced.now.gradients_known = True
            self.apply(gradients, variables)
            return self._traced.now.taken_loss()

        if tf.inside_function():
            return step()
        self._warns = True
        try:
            before = tf.function(step, autograph=False)()
        finally:
            self._warns = False
        self._warn(stacklevel=3)  # the decorator is a frame, too
        return before

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Keras calls it when `fit` ends: warns if training stood still, see `refusals`."""
        super().finalize_variable_values(var_list)
        if self.built:
            self._warn(stacklevel=2)

    def _warn(self, stacklevel: int) -> None:
        self._refusals.warn(stacklevel + 1, self._rate_before)
        self._no_gradient.warn(stacklevel + 1)

    def _rate_before(self, steps: int) -> float:
        """The learning rate of so many steps ago, as far as a schedule tells."""
        given = self._learning_rate
        if isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
            return float(given(max(int(self.iterations) - steps, 0)))
        return float(self.learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Subtracts lr times the direction x; Keras calls it with x in the gradient's place."""
        # No change stays none at a rate that is not finite: XLA leaves its check out.
        step = tf.math.multiply_no_nan(tf.cast(learning_rate, gradient.dtype), gradient)
        self.assign_sub(variable, step)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # A step is that of all replicas already. TensorFlow's sum over one is a custom gradient,
        # whose registry would keep the graph of the step for the life of the process.
        return grads_and_vars

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        # Keras's own hook for what happens between `apply` and `update_step`: gradients are
        # filtered and unscaled here, and not yet clipped. Overriding `apply` alone was tried:
        # it would have to undo the loss scale that Keras divides by.
        tensors = as_tensors(trainable_variables)
        traced = self._traced.now
        if replicas.are_mirrored(self._distribution_strategy):
            made = StepOfReplicas(self, traced, self._accumulation, self._found_step)
            directions = made.directions(grads, trainable_variables)
            if directions is not None:
                with made.taken(trainable_variables):
                    super()._backend_apply_gradients(directions, trainable_variables)
            return
        if is_thrown_away(traced.pending_loss, grads):
            if traced.pending_loss is not None:
                traced.last_loss = tf.reduce_sum(traced.pending_loss)
            return
        loss = loss_of_train_step(traced.pending_loss, grads, tensors)
        if self._accumulation is None:
            given = [tf.convert_to_tensor(g) for g in grads]
            # What is known to be the loss's own, a step computes itself, where it needs it.
            known = traced.gradients_known or are_the_tapes(given, loss)
            in_any_case = not traced.gradients_known  # for `fit` to report
            self._newton_step(loss, None if known else given, trainable_variables, in_any_case)
            return

        def step(of_all: list[RecordedLoss]) -> tuple[()]:
            self._newton_step(of_all[0], None, trainable_variables)
            return ()

        self._accumulation.add([loss], self._iterations, step)
        traced.last_loss = loss.value

    @property
    def _settings(self) -> Settings:
        return Settings(
            curvature=self.curvature,
            damping=self.damping,
            scheduler=self.scheduler,
            pruning=self._pruning,
            update_every=self.update_every,
            seed=self.seed or 0,
            learned=learned_policy(self, self._data_stay),
        )

    # --- the Newton step ----------------------------------------------------------------

    def _newton_step(
        self,
        loss: RecordedLoss,
        grads: Sequence[tf.Tensor] | None,
        variables: Sequence[Any],
        is_evaluated: bool = False,
    ) -> None:
        step, passed = self._found_step(loss, grads, variables, is_evaluated)
        with tf.control_dependencies([passed]), as_of_one_batch(self):
            self._traced.now.last_loss = step.loss
            super()._backend_apply_gradients(step.directions, variables)

    def _found_step(
        self,
        loss: RecordedLoss,
        grads: Sequence[tf.Tensor] | None,
        variables: Sequence[Any],
        is_evaluated: bool = False,
    ) -> tuple[Step, tf.Operation]:
        """The step, all but taken: state and log are assigned.

        Weights are to wait for the operation that is returned with it.
        """
        weights = loss.at_variables()
        batch = Batch(
            loss=loss,
            weights=weights,
            names=[getattr(v, "path", v.name) for v in variables],
            gradients=grads,
            parts=self.blocks.split(variables),
            update=KerasUpdate(self, weights, variables),
            is_evaluated=is_evaluated,
        )
        state = self._state.of_weights([self._get_variable_index(v) for v in variables])
        step = next_step(batch, self._settings, state)
        # Nothing is assigned before all that may refuse the step has passed.
        passed = tf.group(step.loss, step.trial.accepted, *step.directions)
        hold_earlier_assignments(passed)
        with tf.control_dependencies([passed]):
            # So that the counter waits, too: it is assigned after this reading.
            iteration = tf.convert_to_tensor(self.iterations)
            sized = [(n, w.shape.num_elements()) for n, w in zip(batch.names, weights, strict=True)]
            marks = self._no_gradient.marks(step, batch.parts, sized)
            self._log.append(step, batch.parts, iteration, marks)
            remember(state, step)
            # `fit` warns when it ends.
            warns = self._warns or callbacks_of_fit() is not None
            if not (warns or _tf_private.compiled_by_xla()):
                self._no_gradient.print_in_graph(marks)
                if step.attempts is not None:
                    self._refusals.print_in_graph(step.trial.accepted, len(batch.parts))
        return step, passed

    # --- what happened ------------------------------------------------------------------

    @property
    def decisions(self) -> Decisions:
        """The log so far: one `Decision` a step and block, oldest first, the last 1,024."""
        return self.decisions_since(0)

    def decisions_since(self, number: int) -> Decisions:
        """The decisions from the given one on, counted from 0 over the whole training.

        Raises:
            ValueError: If `number` is no count.
        """
        number = check_count("number", number, least=0)
        return self._log.since(number) if self.built else Decisions()

    @property
    def _batches_averaged(self) -> keras.Variable | None:
        """m, the number of batches that a Newton step averages; None of learned steps alone."""
        return getattr(getattr(self._state, "newton", self._state), "count", None)

    @property
    def decision_count(self) -> int:
        """How many decisions were made in the whole training."""
        return len(self._log) if self.built else 0

    # --- serialisation ------------------------------------------------------------------

    def load_own_variables(self, store: Any) -> None:
        """Sets the state from a saved file, of an earlier version, too."""
        if not (self.built and load_earlier(self._state, self.variables, store)):
            super().load_own_variables(store)

    def __repr__(self) -> str:
        hidden = {"scheduler"} if self.has_default_scheduler else set()
        return settings_text(self, [name for name in _SETTINGS if name not in hidden])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in _SETTINGS:
            value = getattr(self, name)
            known = value is None or isinstance(value, (int, float))
            config[name] = value if known else keras.saving.serialize_keras_object(value)
        return {**config, "scheduler": None} if self.has_default_scheduler else config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QNewton:
        policies = {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            for name, value in config.items()
            if name in _SETTINGS and isinstance(value, dict)
        }
        return super().from_config({**config, **policies}, custom_objects=custom_objects)


def qnewton_in(optimizer: object) -> QNewton | None:
    """The `QNewton` that this is, or that Keras's `LossScaleOptimizer` wraps; else None."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer if isinstance(optimizer, QNewton) else None
