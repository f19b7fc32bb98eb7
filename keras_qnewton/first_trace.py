"""The trace of a train step that TensorFlow throws away, recognised before a step is traced in it.

`tf.function` traces anew where variables were made in its first trace. Keras makes those of metrics
there, those of the losses of several outputs, and those of `LossScaleOptimizer`: with
`metrics=["accuracy"]` every train step is traced twice, and only the second graph is ever run. A
Newton step takes seconds to trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss import before_a_branch, in_graph_of
from keras_qnewton.running_fit import model_of_train_step

_WAS_RUN = (
    "The first trace of a train step was run, in which QNewton had left its step out, since "
    "variables were made in it. Build the model's metrics before `fit`, for example by "
    "`model.evaluate` on one batch."
)


def is_thrown_away(loss: tf.Tensor | None, gradients: Sequence[Any]) -> bool:
    """Whether the graph that is being traced will be traced anew, and this one never run.

    Args:
        loss: Of the train step; None where it is not known.
        gradients: What the optimizer is given.
    """
    tensor = of_train_step(loss, gradients)
    return tensor is not None and has_variables_to_make() and is_traced_anew(tensor)


def of_train_step(loss: tf.Tensor | None, gradients: Sequence[Any]) -> tf.Tensor | None:
    """A tensor of the graph of the train step, around the branch that `LossScaleOptimizer` makes.

    None where the step runs eagerly. See `is_thrown_away` for the arguments.
    """
    if loss is None and gradients:
        branch = before_a_branch(gradients)
        first = gradients[0] if branch is None else branch.gradients[0]
        loss = first.values if isinstance(first, tf.IndexedSlices) else first
    if loss is None or tf.executing_eagerly() or not tf.is_tensor(loss):
        return None
    symbolic = tf.is_symbolic_tensor(loss) and _tf_private.is_visible(loss.graph)
    return loss if symbolic else None


def has_variables_to_make() -> bool:
    """Whether Keras makes variables of its own in this very trace of a train step.

    Those of metrics, or of an optimizer that wraps this one.
    """
    model = model_of_train_step()
    if model is None:
        return False
    if any(_is_being_made(metric) for metric in model.metrics):
        return True
    wrapper = getattr(model, "optimizer", None)
    return wrapper is not None and not _all_are_made(wrapper.variables)


def is_traced_anew(tensor: tf.Tensor) -> bool:
    """Whether the tensor's graph will be traced anew, which is made sure.

    Of variables that will be made after the step nothing is known: one of our own is made, which
    has TensorFlow trace anew in any case. Where a function was traced before, that is an error, and
    the graph is one to be run. If a graph of which this was said were run all the same, it would
    fail before a weight changes.

    Args:
        tensor: Of the function's own graph, around a branch in which the optimizer is called.
    """
    with in_graph_of(tensor):
        try:
            tf.Variable(0, trainable=False, name="traced_anew")
        except ValueError:  # also in a loop or a branch, where no variable can be made
            return False
        tf.debugging.Assert(tf.constant(False), [_WAS_RUN])
    return True


def _is_being_made(metric: keras.Metric) -> bool:
    """Whether variables of the metric are made in this trace: before the step, or after it."""
    if not metric.variables:
        return not getattr(metric, "built", True)
    return not _all_are_made(metric.variables)


def _all_are_made(variables: Sequence[keras.Variable]) -> bool:
    """Whether the variables have values; True where that cannot be told."""
    with tf.init_scope():
        if not tf.executing_eagerly():
            return True
        return all(bool(v.value.is_initialized()) for v in variables)
