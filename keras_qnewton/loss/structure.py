"""The dense layers of a recorded loss.

Curvature has structure where a weight enters through a matrix product, once for each example:

    z_l = a_l W_l + b_l         a_l [B, in], W_l [in, out], z_l [B, out]

That is read off the recorded operations here. It is a hypothesis about examples not interacting,
which whoever builds on it has to verify by number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from keras_qnewton.loss.recorded import RecordedLoss


@dataclasses.dataclass(frozen=True)
class DenseLayer:
    """A matrix product with a weight, and the bias added to it.

    Attributes:
        kernel: Position of W among the loss's variables; W is `[inputs, outputs]`.
        bias: Position of b, or None.
        activations: Name of the tensor a, `[B, inputs]`.
        preactivations: Name of the tensor z, `[B, outputs]`.
        inputs: Number of columns of a.
        outputs: Number of columns of z.
    """

    kernel: int
    bias: int | None
    activations: str
    preactivations: str
    inputs: int
    outputs: int

    @property
    def variables(self) -> tuple[int, ...]:
        """Positions of the layer's variables."""
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)


def dense_layers(loss: RecordedLoss) -> list[DenseLayer]:
    """The dense layers of the loss, in the order in which they run.

    A kernel or bias that enters more than one product is shared between layers, and none of
    them is returned. Other uses (a regulariser) are no hindrance: they are a direct
    dependence on the weights, beside the one through z.
    """
    found = []
    consumers = consumers_by_tensor(loss.operations)
    for op in loss.operations:
        if op.type != "MatMul" or op.get_attr("transpose_a") or op.get_attr("transpose_b"):
            continue
        activations, weights = op.inputs
        kernel = loss.weight_read_by(weights)
        # A cast between the variable and the product (mixed precision) rounds the derivatives.
        if kernel is None or loss.variables[kernel].dtype != op.outputs[0].dtype:
            continue
        bias, preactivations = _bias(loss, op.outputs[0], consumers)
        inputs, outputs = loss.variables[kernel].shape
        found.append(
            DenseLayer(
                kernel, bias, activations.name, preactivations.name, int(inputs), int(outputs)
            )
        )
    used = [k for layer in found for k in layer.variables]
    return [layer for layer in found if all(used.count(k) == 1 for k in layer.variables)]


def _bias(
    loss: RecordedLoss, product: tf.Tensor, consumers: dict[str, list[tf.Operation]]
) -> tuple[int | None, tf.Tensor]:
    users = consumers.get(product.name, [])
    if len(users) == 1 and users[0].type in ("BiasAdd", "AddV2", "Add"):
        (other,) = [t for t in users[0].inputs if t is not product] or [product]
        bias = loss.weight_read_by(other)
        if bias is not None and loss.variables[bias].shape == product.shape[-1:]:
            return bias, users[0].outputs[0]
    return None, product


def consumers_by_tensor(operations: Sequence[tf.Operation]) -> dict[str, list[tf.Operation]]:
    """The operations that take each tensor, by its name."""
    out: dict[str, list[tf.Operation]] = {}
    for op in operations:
        for tensor in op.inputs:
            out.setdefault(tensor.name, []).append(op)
    return out
