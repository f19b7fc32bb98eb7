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
        context = tf.distribute.get_replica_context()
        number = None if context is None else context.replica_id_in_sync_group
        known = tf.get_static_value(number) if tf.is_tensor(number) else number
        return self._steps.setdefault(None if known is None else int(known), TracedStep())
