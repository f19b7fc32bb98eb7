"""A recorded loss at the data of other batches.

    L(w; data)    data: what a train step is given, inputs, targets, sample weights, masks

What is made of the data on its way to the loss is made anew, targets in one-hot form, say, which
`RecordedLoss` leaves as it is. Of random numbers the seed is kept, and as many are drawn as the
other data ask for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from keras_qnewton.loss.recorded import RecordedLoss, weight_handles
from keras_qnewton.loss.replayable import ARGUMENTS
from keras_qnewton.loss.running_again import run_again
from keras_qnewton.loss.unscaled import UnscaledLoss

# Elements of a constant that is made again, at most.
_FEW = 256
_HANDLES = (tf.resource, tf.variant)


def data_of(loss: RecordedLoss) -> list[tf.Tensor]:
    """The tensors that the graph of `loss` is given and `loss` depends on, in a fixed order."""
    seen: set[str] = set()
    found: list[tf.Tensor] = []
    pending = [loss.recorded]
    while pending:
        tensor = pending.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if tensor.op.type not in ARGUMENTS:
            pending.extend(tensor.op.inputs)
        elif tensor.dtype not in _HANDLES:
            found.append(tensor)
    return sorted(found, key=lambda tensor: tensor.name)


def at_data(loss: RecordedLoss, *batches: Mapping[str, tf.Tensor]) -> RecordedLoss:
    """The mean over `batches` of `loss` at their data, recorded in the graph that is being traced.

    Args:
        loss: Of a graph that is visible from there.
        batches: By name of each of `data_of(loss)`, what to take in its place.

    Raises:
        LossNotReplayableError: If an operation between data and loss cannot be run again.
    """
    if isinstance(loss, UnscaledLoss):
        return UnscaledLoss(at_data(loss.scaled, *batches), loss.scale)
    value, *others = [_evaluated(loss, batch) for batch in batches]
    mean = tf.add_n([value, *others]) / len(batches) if others else value
    return RecordedLoss(mean, loss.variables)


def _evaluated(loss: RecordedLoss, data: Mapping[str, tf.Tensor]) -> tf.Tensor:
    handles = weight_handles(loss.recorded.graph, loss.variables)
    weights = [tf.convert_to_tensor(variable) for variable in loss.variables]
    env: dict[str, Any] = {name: weights[k] for name, k in handles.items()}
    env.update(data)
    run_again(_operations_behind(loss, env), env, set(handles), {loss.recorded.name})
    return tf.ensure_shape(env.get(loss.recorded.name, loss.recorded), [])


def _operations_behind(loss: RecordedLoss, sources: Collection[str]) -> list[tf.Operation]:
    """Operations behind the loss that depend on `sources`, or on small constants alone.

    What is captured in a branch of a graph has no known value there, which shapes and axes need.
    """
    needed: set[str] = set()
    pending = [loss.recorded]
    while pending:
        op = pending.pop().op
        if op.name not in needed:
            needed.add(op.name)
            pending.extend(t for t in op.inputs if t.name not in sources)
    made = set(sources)
    constants: set[str] = set()
    found = []
    for op in loss.recorded.graph.get_operations():
        if op.name not in needed or any(t.name in made for t in op.outputs):
            continue
        of_constants = all(t.name in constants for t in op.inputs) and (
            bool(op.inputs) or (op.type == "Const" and _is_small(op.outputs[0]))
        )
        if of_constants and not op.op_def.is_stateful:
            constants.update(t.name for t in op.outputs)
        elif not any(t.name in made for t in op.inputs):
            continue
        found.append(op)
        made.update(t.name for t in op.outputs)
    return found


def _is_small(tensor: tf.Tensor) -> bool:
    return tensor.shape.num_elements() <= _FEW
