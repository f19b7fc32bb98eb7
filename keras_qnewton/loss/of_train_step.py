"""The loss of a train step that is being traced: what `scale_loss` saw, or what is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.found import losses_of
from keras_qnewton.loss.in_line import with_calls_in_line
from keras_qnewton.loss.recorded import RecordedLoss, in_graph_of
from keras_qnewton.loss.unscaled import before_a_branch, unscaled

_NO_LOSS = (
    "QNewton found no recorded loss to differentiate: {why}. It needs the loss as a function of "
    "the weights, not the gradients alone. Two ways out: (1) `model.compile(optimizer=QNewton())` "
    "and `model.fit(...)` without `run_eagerly=True`; a custom `train_step` passes its loss "
    "through the optimizer, `loss = self.optimizer.scale_loss(loss)`, inside its gradient tape. "
    "(2) `optimizer.minimize(loss_fn, variables)` in a loop of your own, eager or in a "
    "`tf.function`. No weight was changed."
)
_NOT_FOUND = (
    "`scale_loss` was not called (a custom train step, or a wrapper around the optimizer), and "
)


def loss_of_train_step(
    seen: Any, grads: Sequence[Any], variables: Sequence[tf.Variable]
) -> RecordedLoss:
    """The recorded loss whose gradients an optimizer is given.

    Args:
        seen: The tensor that `scale_loss` saw last; None if it saw none, and the loss is found in
            the graph by its gradients.
        grads: The gradients, one a variable.
        variables: What is trained.

    Raises:
        ValueError: If there is no such loss in the graph that is being traced, or several that the
            gradients may be those of.
    """
    loss, scale = seen, None
    if loss is None:
        branch = before_a_branch(grads)
        if branch is not None:
            grads, scale = branch.gradients, branch.scale
        found = losses_of(grads, variables)
        if len(found) != 1:
            raise ValueError(_NO_LOSS.format(why=_NOT_FOUND + _listed(found)))
        (loss,) = found
    if not tf.is_tensor(loss) or not tf.is_symbolic_tensor(loss):
        raise ValueError(_NO_LOSS.format(why="the train step ran eagerly (`run_eagerly=True`)"))
    if not _tf_private.is_visible(loss.graph):
        raise ValueError(
            _NO_LOSS.format(why="the loss was computed in another graph than the step")
        )
    with in_graph_of(loss):
        if loss.shape.rank not in (0, None):
            # A tape's gradient of several numbers is that of their sum.
            loss = tf.reduce_sum(loss)
        recorded = with_calls_in_line(RecordedLoss(loss, variables))
    return recorded if scale is None else unscaled(recorded, scale)


def _listed(found: Sequence[tf.Tensor]) -> str:
    """What was found where one loss should be."""
    if not found:
        return "no scalar of the graph leads to these gradients"
    names = ", ".join(repr(tensor.name) for tensor in found)
    return f"the gradients may be those of several scalars of the graph, {names}"
