"""The step of all replicas, which each of them takes.

Each replica traces `apply`. What they make together is traced once: the sum of their losses, and
one step of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton import replicas
from keras_qnewton.accumulation import Accumulation, as_of_one_batch
from keras_qnewton.first_trace import has_variables_to_make, is_traced_anew, of_train_step
from keras_qnewton.loss import RecordedLoss, SummedLoss, as_tensors, loss_of_train_step
from keras_qnewton.replicated import check_replicated, only_if
from keras_qnewton.step import Step, none_is_empty
from keras_qnewton.traced_step import TracedStep

# Of a loss, its gradients or None, and the weights: a step, and what weights are to wait for.
FindStep = Callable[[RecordedLoss, Any, Sequence[Any]], tuple[Step, tf.Operation]]


class StepOfReplicas:
    """The step that a replica traces.

    Args:
        optimizer: Calls this in each replica.
        traced: What it knows of the step.
        accumulation: Of several batches; None if a step is of one.
        find: Finds the step of the summed loss.
    """

    def __init__(
        self,
        optimizer: Any,
        traced: TracedStep,
        accumulation: Accumulation | None,
        find: FindStep,
    ):
        self._optimizer, self._traced = optimizer, traced
        self._accumulation, self._find = accumulation, find

    def directions(self, grads: Sequence[Any], variables: Sequence[Any]) -> list[tf.Tensor] | None:
        """One tensor a weight, the same for all replicas; None of a trace that is thrown away.

        Between two steps of accumulated batches they are zeros.

        Args:
            grads: The calling replica's gradients.
            variables: The weights.
        """
        optimizer, traced = self._optimizer, self._traced
        replicas.check_called_by_replicas(optimizer._distribution_strategy)
        check_replicated(optimizer)
        here = replicas.variables_here(as_tensors(variables))
        loss = loss_of_train_step(traced.pending_loss, grads, here)
        seen = of_train_step(traced.pending_loss, grads)
        may_be_thrown_away = seen is not None and has_variables_to_make()

        def step(
            all_: replicas.Replicas, losses: Sequence[RecordedLoss], by_replica: Any
        ) -> tuple[list[tf.Tensor] | None, tf.Tensor]:
            # Asked here, once for all replicas.
            if may_be_thrown_away and is_traced_anew(losses[0].recorded):
                return None, tf.add_n([loss.value for loss in losses])
            summed = SummedLoss(all_, losses)
            with tf.control_dependencies([none_is_empty(summed)]):
                if self._accumulation is not None:
                    return self._of_several(self._accumulation, summed, variables), summed.value
                total = None if by_replica is None else all_.total(by_replica)
                found, passed = self._find(summed, total, variables)
            with tf.control_dependencies([passed]):
                return [tf.identity(x) for x in found.directions], tf.identity(found.loss)

        known = None if traced.gradients_known else [tf.convert_to_tensor(g) for g in grads]
        directions: list[tf.Tensor] | None
        directions, traced.last_loss = replicas.taken_together(step, loss, known)
        return directions

    @contextlib.contextmanager
    def taken(self, variables: Sequence[Any]) -> Iterator[None]:
        """Where Keras changes the weights; between two steps of accumulated batches nothing is."""
        if self._accumulation is None:
            yield
            return
        taken = self._accumulation.is_last(self._optimizer._iterations)
        with as_of_one_batch(self._optimizer), only_if(taken, self._optimizer, variables):
            yield

    def _of_several(
        self, accumulation: Accumulation, loss: SummedLoss, variables: Sequence[Any]
    ) -> list[tf.Tensor]:
        """The directions of the accumulated batches' step; zeros between two steps."""
        optimizer = self._optimizer

        def step(of_all: list[RecordedLoss]) -> list[tf.Tensor]:
            with as_of_one_batch(optimizer):
                summed = SummedLoss(loss.replicas, of_all)
                found, passed = self._find(summed, None, variables)
            with tf.control_dependencies([passed]):
                return [tf.identity(x) for x in found.directions]

        def none() -> list[tf.Tensor]:
            return [tf.zeros_like(w) for w in loss.at_variables()]

        return accumulation.add(loss.losses, optimizer._iterations, step, none, loss.replicas)
