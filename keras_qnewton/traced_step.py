"""What an optimizer knows of the step that is being traced, by each replica for itself.

Replicas trace the same code in turn, and wait for one another in the midst of it.
"""

from __future__ import annotations

from collections.abc import Hashable

import tensorflow as tf


class TracedStep:
    """A step that is being traced.

    Attributes:
        pending_loss: What `scale_loss` saw last; None if it saw none.
        gradients_known: Whether gradients are known to be those of the pending loss.
        last_loss: The loss before the step, once it was traced.
    """

    def __init__(self) -> None:
        self.last_loss: tf.Tensor | None = None
        self.forget()

    def forget(self) -> None:
        """Forgets what came before the step."""
        self.pending_loss: tf.Tensor | None = None
        self.gradients_known = False

    def taken_loss(self) -> tf.Tensor:
        """The loss before the step, which is forgotten."""
        loss, self.last_loss = self.last_loss, None
        return loss


class TracedByReplica:
    """The steps that are being traced, one a replica."""

    def __init__(self) -> None:
        self._steps: dict[Hashable, TracedStep] = {}

    @property
    def now(self) -> TracedStep:
        """That of the replica that calls."""
        return self._steps.setdefault(_replica(), TracedStep())


def _replica() -> int | None:
    """The number of the replica that calls; None outside of all, and where there is one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    # It is made in the graph: not on one device, whose graph has no operation more.
    number = tf.get_static_value(context.replica_id_in_sync_group)
    return None if number is None else int(number)
