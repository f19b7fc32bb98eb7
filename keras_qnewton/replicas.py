"""The replicas of a distribution strategy: one step, of the sum of their losses.

    L(w) = Σ_r L_r(w)      Keras scales the loss of each replica by 1/R           scalar

In a train step each replica traces its own loss. `taken_together` gathers them in one place of the
graph, where the loss of all is a sum: whatever a step evaluates is evaluated by each replica on its
own data, and added up (`Replicas.total`). The step itself is traced once, in loops and branches as
on one device, so that all replicas have the same numbers and take the same decision.

Devices of one process are reached from there without a collective operation. Those of other
workers are not: a sum over workers is one, which all of them run in the same order, since what
decides on loops and branches is made of sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_MIRRORED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
_STRATEGIES = "`tf.distribute.MirroredStrategy` and `tf.distribute.MultiWorkerMirroredStrategy`"
_NO_CHANGE = "No weight was changed."


@dataclasses.dataclass(frozen=True)
class Replicas:
    """The replicas that are evaluated in this graph, and their siblings in other workers.

    Attributes:
        strategy: Theirs.
        devices: One of each replica of this process.
    """

    strategy: tf.distribute.Strategy
    devices: Sequence[str]

    def each(self, function: Callable[[Any], Any], of: Sequence[Any]) -> list[Any]:
        """`function` of each of `of`, one a replica of this process, on its device."""
        found = []
        for device, one in zip(self.devices, of, strict=True):
            with tf.device(device):
                found.append(function(one))
        return found

    def total(self, by_replica: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
        """Sums over all replicas of some tensors, given as one list a replica of this process."""
        sums = [tf.add_n(list(terms)) for terms in zip(*by_replica, strict=True)]
        return self._over_workers(sums) if self.has_other_workers else sums

    @property
    def has_other_workers(self) -> bool:
        """Whether other processes have replicas, too."""
        return self.strategy.num_replicas_in_sync > len(self.devices)

    def agreed(
        self, tensors: Sequence[tf.Tensor], owners: Sequence[int] | None = None
    ) -> list[tf.Tensor]:
        """One worker's values of what all of them computed of the same numbers.

        Machines may round differently, and then decide differently.

        Args:
            tensors: The values.
            owners: Number of the worker whose value is taken of each; the first one's, if None.
        """
        if not self.has_other_workers:
            return list(tensors)
        owners = owners or [0] * len(tensors)
        # Truth values have no sums.
        given = [tf.cast(t, tf.int32) if t.dtype == tf.bool else t for t in tensors]
        own = [
            t if self.number == owner else tf.zeros_like(t)
            for t, owner in zip(given, owners, strict=True)
        ]
        summed = zip(self._over_workers(own), tensors, strict=True)
        return [tf.cast(t, of.dtype) for t, of in summed]

    @property
    def workers(self) -> int:
        """How many processes there are."""
        return self.strategy.num_replicas_in_sync if self.has_other_workers else 1

    def gathered(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Rows of all workers' tensors, one below another, with rows of zeros between them.

        Args:
            tensors: Of shapes `[n, ...]`, with the same n here and another elsewhere.
        """
        count, n = self.strategy.num_replicas_in_sync, tf.shape(tensors[0])[0]
        (sizes,) = self._over_workers([n * tf.one_hot(self.number, count, dtype=tf.int32)])
        most = tf.reduce_max(sizes)
        placed = []
        for t in tensors:
            padded = tf.pad(t, [[0, most - n], *([[0, 0]] * (t.shape.rank - 1))])
            before, after = self.number, count - 1 - self.number
            placed.append(tf.pad(padded[None], [[before, after], *([[0, 0]] * t.shape.rank)]))
        summed = zip(self._over_workers(placed), tensors, strict=True)
        return [
            tf.ensure_shape(
                tf.reshape(t, tf.concat([[count * most], tf.shape(t)[2:]], 0)),
                [None, *of.shape[1:]],
            )
            for t, of in summed
        ]

    @property
    def number(self) -> int:
        """Of this worker, from 0."""
        if not self.has_other_workers:
            return 0
        return int(self.strategy.cluster_resolver.task_id)

    def _over_workers(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One collective operation for all tensors of a dtype."""
        found: list[tf.Tensor] = [None] * len(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            places = [k for k, t in enumerate(tensors) if t.dtype == dtype]
            flat = tf.concat([tf.reshape(tensors[k], [-1]) for k in places], 0)
            summed = self.strategy.extended.reduce_to(
                tf.distribute.ReduceOp.SUM, flat, destinations=self.devices[0]
            )
            sizes = [tf.size(tensors[k]) for k in places]
            pieces = tf.split(tf.convert_to_tensor(summed), sizes, num=len(places))
            for k, piece in zip(places, pieces, strict=True):
                shape = tensors[k].shape
                found[k] = tf.ensure_shape(tf.reshape(piece, tf.shape(tensors[k])), shape)
        return found


def are_mirrored(made_in: tf.distribute.Strategy) -> bool:
    """Whether the strategy of an optimizer, or the current one, has copies of variables.

    A strategy may have them of one replica, too.
    """
    strategies = (made_in, tf.distribute.get_strategy())
    return any(_has_copies(strategy) for strategy in strategies)


def _has_copies(strategy: tf.distribute.Strategy) -> bool:
    return strategy.num_replicas_in_sync > 1 or isinstance(strategy, _MIRRORED)


def check_called_by_replicas(made_in: tf.distribute.Strategy) -> None:
    """Refuses strategies of several replicas that no step can be made with, and wrong places.

    Args:
        made_in: The strategy in whose scope the optimizer was made.

    Raises:
        ValueError: With what to do instead.
    """
    strategy = made_in if _has_copies(made_in) else tf.distribute.get_strategy()
    if not isinstance(strategy, _MIRRORED):
        raise ValueError(
            f"Of the strategies with several replicas QNewton trains with {_STRATEGIES}, in which "
            f"all replicas take a step together. Received: {type(strategy).__name__}. {_NO_CHANGE}"
        )
    if strategy is not made_in:
        raise ValueError(
            "Make the model and the optimizer in the strategy's scope, `with strategy.scope():`. "
            f"Received: an optimizer that was made outside of it. {_NO_CHANGE}"
        )
    if tf.distribute.get_replica_context() is None or tf.distribute.get_strategy() is not strategy:
        raise ValueError(
            "A step of several replicas is taken inside of `strategy.run`, by each of them. "
            "Received: a call outside of it. Write `strategy.run(train_step)`, where `train_step` "
            f"calls `optimizer.minimize(loss_fn, variables)`. {_NO_CHANGE}"
        )
    if not tf.inside_function():
        raise ValueError(
            "A step of several replicas is taken in a graph. Decorate the function that calls "
            "`strategy.run` with `@tf.function`, and do not compile with `run_eagerly=True`. "
            f"{_NO_CHANGE}"
        )


def taken_together(
    step: Callable[..., Any], loss: Any, gradients: Sequence[tf.Tensor] | None
) -> Any:
    """What `step` returns, called once for all replicas, each of which calls this.

    Args:
        step: Takes the `Replicas`, a list of their losses, and a list of their gradients, or None.
            It returns tensors.
        loss: The calling replica's, any object.
        gradients: Its gradients; None where nobody computed them.
    """

    def together(strategy: tf.distribute.Strategy, *by_replica: Any) -> Any:
        losses, *each = (strategy.experimental_local_results(values) for values in by_replica)
        here = Replicas(strategy, list(strategy.extended.worker_devices))
        if here.has_other_workers and len(here.devices) > 1:
            raise ValueError(
                "With several workers, QNewton trains one replica in each of them. Received: "
                f"{len(here.devices)} devices in this worker. Start a process for each device. "
                f"{_NO_CHANGE}"
            )
        return step(here, list(losses), list(zip(*each, strict=True)) or None)

    context = tf.distribute.get_replica_context()
    try:
        return context.merge_call(together, args=(loss, *(gradients or ())))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise ValueError(
            "A step of several replicas stands in the function that `strategy.run` is given, not "
            "in a branch, a loop or a `tf.function` inside of it. Put the `tf.function` around "
            f"`strategy.run`. {_NO_CHANGE}"
        ) from error


def variables_here(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """The calling replica's copies of mirrored variables; others as they are."""
    strategy = tf.distribute.get_strategy()
    found = []
    for variable in variables:
        copies = strategy.experimental_local_results(variable)
        found.append(next((v for v in copies if v.handle is variable.handle), variable))
    return found
