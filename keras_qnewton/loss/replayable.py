"""Which operations can be run again at other weights."""

from __future__ import annotations

import tensorflow as tf

from keras_qnewton.loss import control_flow
from keras_qnewton.loss.raw import LossNotReplayableError

# Their results depend on the shape of their input, never on its values: what is downstream
# of them only (a dropout mask's shape, a batch size) must stay the tensor it was, or masks
# would be drawn again.
VALUE_INDEPENDENT = {
    "Shape",
    "ShapeN",
    "Size",
    "Rank",
    "ZerosLike",
    "OnesLike",
    "VariableShape",
}
# Their first input, looked at: a loss that is not finite is not taken anyway.
IDENTITIES = {"CheckNumerics", "CheckNumericsV2", "DebugIdentityV2", "Print"}
# What a graph is given from outside of it.
ARGUMENTS = {"Placeholder", "PlaceholderWithDefault", "IteratorGetNext", "IteratorGetNextSync"}
READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"}


def check_replayable(op: tf.Operation) -> None:
    """Refuses an operation with a state.

    Raises:
        LossNotReplayableError: If it has one, and is none of: control flow, a variable's read, a
            check or a print of what it passes on.
    """
    if op.type in control_flow.TYPES or op.type in READS or op.type in IDENTITIES:
        return
    if op.op_def.is_stateful:
        raise LossNotReplayableError(
            f"The loss depends on the weights through {op.type!r} ({op.name!r}), which has a "
            "state or leaves the graph, so that it cannot be evaluated again at other weights. "
            "Use TensorFlow's stateless operations there (for random numbers, "
            "`tf.random.stateless_*` with a Keras `SeedGenerator`)."
        )
