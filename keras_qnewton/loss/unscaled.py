"""A loss that was recorded times a scale, as half precision wants it differentiated.

    S L(w)     what was recorded
    √S L(w)    what is differentiated, so that no derivative vanishes, and no second one overflows
    L(w)       its value, and its gradient, divided in the weights' precision

Keras's `LossScaleOptimizer` applies gradients in a branch of the graph, divided by S there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.recorded import RecordedLoss, in_graph_of


class UnscaledLoss(RecordedLoss):
    """L of a recorded c L.

    Args:
        scaled: The recorded c L.
        scale: c, a positive scalar.

    Attributes:
        scaled: As given; what curvature is made of.
        scale: As given.
    """

    def __init__(self, scaled: RecordedLoss, scale: tf.Tensor):
        super().__init__(scaled.recorded, scaled.variables)
        scaled.factor = scale
        self.scaled, self.scale = scaled, scale
        self.value = self._divided(self.value)

    def value_at(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """L at `weights`; see `RecordedLoss.value_at`."""
        return self._divided(super().value_at(weights))

    def value_and_gradients(
        self, weights: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """L and its gradient; see `RecordedLoss.value_and_gradients`."""
        value, gradients = self.scaled.value_and_gradients(weights)
        return self._divided(value), [None if g is None else self._divided(g) for g in gradients]

    def _divided(self, tensor: tf.Tensor) -> tf.Tensor:
        return tensor / tf.cast(self.scale, tensor.dtype)


def unscaled(recorded: RecordedLoss, scale: tf.Tensor) -> UnscaledLoss:
    """L of a recorded S L, where S is `scale`: made of √S L, if the graph has S for a factor."""
    op = recorded.recorded.op
    made = {t.name for other in recorded.operations for t in other.outputs}
    factors = [t for t in op.inputs if t.name not in made]
    if op.type != "Mul" or len(factors) != 1:
        return UnscaledLoss(recorded, scale)
    with in_graph_of(op):
        root = tf.sqrt(factors[0])
        milder = RecordedLoss(recorded.recorded / root, recorded.variables)
    return UnscaledLoss(milder, scale / tf.cast(root, scale.dtype))


class Unscaling(NamedTuple):
    """Gradients before a branch of the graph divided them.

    Attributes:
        gradients: Tensors of the graph around the branch.
        scale: S, a scalar of the branch; None if they were handed over as they are.
    """

    gradients: list[tf.Tensor]
    scale: tf.Tensor | None


def before_a_branch(gradients: Sequence[Any]) -> Unscaling | None:
    """What a branch of the graph was given for gradients; None if these are not of a branch."""
    flat = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    graph = tf.compat.v1.get_default_graph()
    if not flat or not all(tf.is_symbolic_tensor(g) and g.graph is graph for g in flat):
        return None
    divided = [g for g in flat if g.op.type == "RealDiv"]
    scales = {_read_from(g.op.inputs[1]) for g in divided}
    if divided and (len(divided) < len(flat) or len(scales) > 1):
        return None
    outer = [_tf_private.captured_from(g.op.inputs[0] if divided else g) for g in flat]
    if any(tensor is None or not tf.is_symbolic_tensor(tensor) for tensor in outer):
        return None
    return Unscaling(outer, divided[0].op.inputs[1] if divided else None)


def _read_from(tensor: tf.Tensor) -> str:
    """The name of the variable's handle that a scalar was read from, or its own."""
    while tensor.op.type in ("Identity", "Cast"):
        tensor = tensor.op.inputs[0]
    return tensor.op.inputs[0].name if tensor.op.type == "ReadVariableOp" else tensor.name
