"""The trace of a train step that TensorFlow throws away, recognised before a step is traced in it.

`tf.function` traces anew where variables were made in its first trace. Keras makes those of metrics
there, and those of the losses of several outputs: with `metrics=["accuracy"]` every train step is
traced twice, and only the second graph is ever run. A Newton step takes seconds to trace.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_qnewton.running_fit import model_of_train_step

_WAS_RUN = (
    "The first trace of a train step was run, in which QNewton had left its step out, since "
    "variables were made in it. Build the model's metrics before `fit`, for example by "
    "`model.evaluate` on one batch."
)


def is_thrown_away(loss: tf.Tensor | None) -> bool:
    """Whether the graph that is being traced will be traced anew, and this one never run.

    It is where variables of metrics are made in this very trace. Of those that will be made after
    the step nothing is known for sure: one of our own is made, which has TensorFlow trace anew in
    any case. Where a function was traced before, that is an error, and the graph is one to be run.
    If a graph of which this was said were run all the same, it would fail before a weight changes.

    Args:
        loss: The loss of the train step; None where it is not known.
    """
    if tf.executing_eagerly() or tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return False
    if loss is None or not tf.is_symbolic_tensor(loss):
        return False
    # In a branch or a loop of its own, no variable can be made.
    if loss.graph is not tf.compat.v1.get_default_graph():
        return False
    model = model_of_train_step()
    if model is None or not any(_is_being_made(metric) for metric in model.metrics):
        return False
    try:
        tf.Variable(0, trainable=False, name="traced_anew")
    except ValueError:
        return False
    tf.debugging.Assert(tf.constant(False), [_WAS_RUN])
    return True


def _is_being_made(metric: keras.Metric) -> bool:
    """Whether variables of the metric are made in this trace: before the step, or after it."""
    if not metric.variables:
        return not getattr(metric, "built", True)
    with tf.init_scope():
        if not tf.executing_eagerly():
            return False
        return not all(bool(v.value.is_initialized()) for v in metric.variables)
