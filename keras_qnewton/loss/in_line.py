"""A recorded loss whose functions are written out.

A train step may compute its loss in a `tf.function` of its own, which is one operation of the graph
that is recorded. Where the loss is convex and where weights enter is read off operations, and not
off the bodies of functions. So the loss is run once in the graph being traced, at the variables'
present values and with bodies in line, and that is what is recorded.
"""

from __future__ import annotations

from keras_qnewton.loss import control_flow
from keras_qnewton.loss.recorded import RecordedLoss


def with_calls_in_line(loss: RecordedLoss) -> RecordedLoss:
    """`loss` itself if it calls no function; else the same loss, of plain operations.

    Loops and conditions stay what they are, and so does what they call.
    """
    if not any(op.type in control_flow.CALLS for op in loss.operations):
        return loss
    return RecordedLoss(loss.in_line(loss.at_variables()), loss.variables)
