"""The trace of a train step that TensorFlow throws away, recognised before a step is traced in it.

`tf.function` traces anew where variables were made in its first trace. Keras makes those of metrics
there, and those of the losses of several outputs: with `metrics=["accuracy"]` every train step is
traced twice, and only the second graph is ever run. A Newton step takes seconds to trace.
"""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.running_fit import model_of_train_step

_WAS_RUN = (
    "The first trace of a train step was run, in which QNewton had left its step out, since "
    "variables were made in it. Build the model's metrics before `fit`, for example by "
    "`model.evaluate` on one batch."
)


def is_thrown_away(loss: tf.Tensor | None) -> bool:
    """Whether the graph that is being traced will be traced anew, and this one never run.

    Where a model has more metrics than its loss, a variable is made. In a first trace that is
    allowed, and brings the second one about. In any other it is an error, and the graph is the one
    that will be run. If TensorFlow did run a graph of which this was said, it would fail before a
    weight changes.

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
    if model is None or len(model.metrics) < 2:
        return False
    try:
        tf.Variable(0, trainable=False, name="traced_anew")
    except ValueError:
        return False
    tf.debugging.Assert(tf.constant(False), [_WAS_RUN])
    return True
