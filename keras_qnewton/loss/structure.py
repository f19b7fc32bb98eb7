"""The linear layers of a recorded loss.

Curvature has structure where a weight enters through a matrix product,

    z_l = a_l W_l + b_l         a_l [B, in], W_l [in, out], z_l [B, out],

once for each example (`DenseLayer`) or at P positions of it, as in a convolution or a dense
layer over a sequence (`Tap`). Both are read off the recorded operations here. Each is a hypothesis
about examples not interacting, which whoever builds on it has to verify by number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from keras_qnewton.loss.recorded import RecordedLoss

# Keyword arguments of `tf.image.extract_patches`.
Window = Mapping[str, list[int] | str]


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


@dataclasses.dataclass(frozen=True)
class Tap:
    """Where a weight enters linearly, at any number of positions an example.

    Attributes:
        variable: Position of the weight among the loss's variables.
        kind: "product" (z = a W), "convolution" (z = patches(a) W) or "bias" (z = a + b).
        inputs: Name of the tensor a; its last axis is W's first but the spatial ones.
        outputs: Name of the tensor z; its last axis is W's last.
        positions: True if an example is seen to take several rows of z.
        window: A convolution's: keyword arguments of `tf.image.extract_patches`.
        bias: Position of a bias that is added to the product, if that is taken with it: as the
            last row of W, of an input that is 1.
        product: A bias's: the weight to whose product it is added, if nothing else sees that.
    """

    variable: int
    kind: str
    inputs: str
    outputs: str
    positions: bool
    window: Window | None = None
    bias: int | None = None
    product: int | None = None


def with_biases(found: Sequence[Tap]) -> list[Tap]:
    """`found`, where a bias that comes right after its product is taken with it."""
    out: list[Tap] = []
    for tap in found:
        before = out[-1] if out else None
        if before is None or tap.product is None or tap.product != before.variable:
            out.append(tap)
        else:
            out[-1] = dataclasses.replace(before, outputs=tap.outputs, bias=tap.variable)
    return out


def taps(loss: RecordedLoss) -> dict[int, Tap]:
    """The one place where each weight enters, by the weight's position; others are left out."""
    found: list[Tap] = []
    products: dict[str, Tap] = {}  # by the name of z
    consumers = consumers_by_tensor(loss.operations)
    for op in loss.operations:
        if op.type == "MatMul":
            if op.get_attr("transpose_a") or op.get_attr("transpose_b"):
                continue
            kind, window = "product", None
        elif op.type == "Conv2D":
            kind, window = "convolution", _window(op)
            if window is None:
                continue
        elif op.type in ("BiasAdd", "AddV2", "Add"):
            kind, window = "bias", None
        else:
            continue
        for inputs, weight in (op.inputs, reversed(op.inputs)):
            variable = _weight_at(loss, weight)
            out = op.outputs[0]
            if variable is not None and (kind != "bias" or _is_bias(inputs, weight, out)):
                positions = _has_positions(out, consumers)
                tap = Tap(variable, kind, inputs.name, out.name, positions, window)
                if kind == "bias" and len(consumers[inputs.name]) == 1:
                    product = products.get(inputs.name)
                    if product is not None and product.positions == positions:
                        tap = dataclasses.replace(tap, product=product.variable)
                elif kind != "bias":
                    products[out.name] = tap
                found.append(tap)
                break
            if kind != "bias":
                break
    used = [tap.variable for tap in found]
    return {tap.variable: tap for tap in found if used.count(tap.variable) == 1}


def _has_positions(out: tf.Tensor, consumers: dict[str, list[tf.Operation]]) -> bool:
    """True if `out` has more axes than examples and channels, or is at once given them."""
    users = consumers.get(out.name, [])
    reshaped = [op.outputs[0] for op in users if op.type == "Reshape"]
    return any(t.shape.rank != 2 for t in (out, *reshaped))


def _weight_at(loss: RecordedLoss, tensor: tf.Tensor) -> int | None:
    """Which variable `tensor` holds, maybe with axes of length 1 added or removed."""
    source = tensor
    while source.op.type in ("ExpandDims", "Reshape", "Squeeze", "Identity"):
        source = source.op.inputs[0]
    variable = loss.weight_read_by(source)
    if variable is None or loss.variables[variable].dtype != tensor.dtype:
        return None
    shape = loss.variables[variable].shape
    axes_match = _proper_axes(tensor.shape) == _proper_axes(shape)
    return variable if axes_match and shape.rank and tensor.shape[-1] == shape[-1] else None


def _proper_axes(shape: tf.TensorShape) -> list[int | None]:
    return [n for n in shape if n != 1]


def _is_bias(inputs: tf.Tensor, bias: tf.Tensor, out: tf.Tensor) -> bool:
    """True if the last axes of a, b and z are those of z = a + b, b a row for each of a's."""
    if inputs.shape.rank is None or inputs.shape.rank < 2 or bias.shape.rank == 0:
        return False
    last = (bias.shape[-1], inputs.shape[-1], out.shape[-1])
    return out.shape.rank == inputs.shape.rank and last == (bias.shape.num_elements(),) * 3


def _window(op: tf.Operation) -> Window | None:
    """How `tf.image.extract_patches` cuts what this Conv2D sees, or None where it cannot."""
    filters, channels = op.inputs[1].shape, op.inputs[0].shape[-1]
    padding = op.get_attr("padding").decode()
    grouped = channels != filters[2]
    # A dilated convolution whose examples have been dealt out over more rows.
    source = op.inputs[0].op
    if source.type == "ExpandDims":
        source = source.inputs[0].op
    dealt = source.type == "SpaceToBatchND"
    known = op.get_attr("data_format") == b"NHWC" and padding in ("SAME", "VALID")
    if grouped or dealt or not known:
        return None
    return {
        "sizes": [1, int(filters[0]), int(filters[1]), 1],
        "strides": list(op.get_attr("strides")),
        "rates": list(op.get_attr("dilations")),
        "padding": padding,
    }
