"""Every place where a weight enters linearly, seen while the loss is run again.

    z = f(a, W), linear in W    `Use`: a matrix product, a convolution, an added bias, a scale
    ∂L/∂W = Σ a ⊗ ∂L/∂z         by an equation of Einstein's, since f is one: z = einsum(a, W)

`Uses` is an observer of `RecordedLoss.fetch`. It follows the weights through operations that only
move their elements (transposes, slices), into bodies of functions and loops that are run in line.
Where a weight enters otherwise, it says so (`others`).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss import control_flow
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.raw import raw_op
from keras_qnewton.loss.windows import Window, patches, window

# Move elements of their input, by other inputs that must be known.
_MOVES = {
    "Identity", "EnsureShape", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Slice",
    "StridedSlice", "Split", "SplitV", "Unpack",
}  # fmt: skip
_SUMS = {"AddV2": (1, 1), "Add": (1, 1), "BiasAdd": (1, 1), "Sub": (1, -1)}


class Equation(NamedTuple):
    """Axes of a, W and z by letters, as `tf.einsum` takes them; z's first is that of examples."""

    inputs: str
    weights: str
    outputs: str

    @property
    def by_example(self) -> bool:
        """True if a's first axis is that of examples, too."""
        return self.inputs[:1] == self.outputs[0]


class Use(NamedTuple):
    """Where a weight, or some of its elements, enters linearly.

    Attributes:
        variable: Position of the weight among the loss's variables.
        elements: Which of its elements, flattened, by the axes of `equation.weights`; None for
            all of them in their order.
        equation: Of a, W and z.
        inputs: a; None if the weight is added. Of an embedding, which rows are taken.
        outputs: z.
        factor: Of W, 1 or -1.
        window: How a convolution's a is cut into patches; z, if it is a transposed one.
        transposed: Whether it is.
        inner: Lengths of the axes that z's last axis is to be split into; None as it is.
        rows: Of an embedding, how many there are to take from.
        positions: True if an example is seen to take several rows of z.
        added_to: What the weight is added to.
    """

    variable: int
    elements: np.ndarray | None
    equation: Equation
    inputs: tf.Tensor | None
    outputs: tf.Tensor
    factor: int = 1
    window: Window | None = None
    transposed: bool = False
    inner: tuple[int, ...] | None = None
    rows: int | None = None
    positions: bool = False
    added_to: tf.Tensor | None = None

    def inputs_by_position(self) -> tf.Tensor | None:
        """a with the axes of `equation.inputs`; made anew at each call, where it may be large."""
        if self.rows is not None:
            return tf.one_hot(self.inputs, self.rows, dtype=self.outputs.dtype)
        if self.window is None or self.transposed:
            return self.inputs
        return patches(self.inputs, self.window)


class _View(NamedTuple):
    """A tensor that holds elements of a weight."""

    tensor: tf.Tensor
    variable: int
    elements: np.ndarray
    size: int  # of the whole weight


class Uses:
    """Collects the uses of weights; an observer of `RecordedLoss.fetch`.

    Args:
        weights: One tensor a variable, the very ones that the loss is run at.
        dtype: Precision of derivatives; a weight of another has no uses.

    Attributes:
        found: The uses, in the order in which they run.
        others: Positions of the variables that enter otherwise, too.
        consumers: By the id of a tensor, how many operations took it.
    """

    def __init__(self, weights: Sequence[tf.Tensor], dtype: tf.DType):
        self._views: dict[int, _View] = {}
        self._graph = tf.compat.v1.get_default_graph()
        self._dtype = dtype
        self.found: list[Use] = []
        self.others: set[int] = set()
        self.consumers: dict[int, int] = {}
        for k, weight in enumerate(weights):
            indices = np.arange(weight.shape.num_elements(), dtype=np.int32)
            self._views[id(weight)] = _View(weight, k, indices.reshape(weight.shape), indices.size)

    def of(self, variable: int) -> list[Use] | None:
        """All uses of a weight; None if it enters otherwise, too, or not at all."""
        found = [use for use in self.found if use.variable == variable]
        return None if variable in self.others or not found else found

    def is_sole(self, tensor: tf.Tensor) -> bool:
        """Whether a single operation took the tensor."""
        return self.consumers.get(id(tensor)) == 1

    def __call__(self, op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        if op.type in control_flow.TYPES:
            return  # its body is shown, too
        for x in inputs:
            self.consumers[id(x)] = self.consumers.get(id(x), 0) + 1
        at = [i for i, x in enumerate(inputs) if id(x) in self._views]
        if not at or op.type in ("ReadVariableOp", "VariableShape", "Shape"):
            return
        views = [self._views[id(inputs[i])] for i in at]
        if len(at) == 1 and op.type in _MOVES and self._move(op, inputs, outputs, at[0]):
            return
        use = None
        if len(at) == 1 and self._is_here(views[0].tensor, outputs[0]):
            use = _use(op, list(inputs), outputs[0], at[0], views[0])
        if use is None:
            self.others.update(view.variable for view in views)
        else:
            self.found.append(use)

    def _is_here(self, weight: tf.Tensor, out: Any) -> bool:
        """False in a branch or loop that is run as such, and of another precision."""
        return out.graph is self._graph and out.dtype == weight.dtype == self._dtype

    def _move(
        self, op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any], at: int
    ) -> bool:
        """Follows a view through an operation that moves its elements; False if it cannot."""
        view = self._views[id(inputs[at])]
        if op.type in ("Identity", "EnsureShape"):
            self._views[id(outputs[0])] = view._replace(tensor=outputs[0])
            return True
        known = [known_value(x) for i, x in enumerate(inputs) if i != at]
        if any(value is None for value in known):
            return False
        with tf.init_scope():
            arguments = [tf.constant(value) for value in known]
            arguments.insert(at, tf.constant(view.elements))
            moved = [np.asarray(t) for t in raw_op(op)(arguments)]
        for tensor, elements in zip(outputs, moved, strict=True):
            self._views[id(tensor)] = view._replace(tensor=tensor, elements=elements)
        return True


def _use(op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View) -> Use | None:
    """The use of a weight by an operation, or None if it is of no known kind."""
    rule = _RULES.get(op.type)
    if rule is None or out.shape.rank in (None, 0) or not tf.is_tensor(inputs[at]):
        return None
    use = rule(op, inputs, out, at, view)
    if use is None or use.equation.outputs[0] in use.equation.weights:
        return None  # an axis of the weight is not one of examples
    every = use.elements is None or np.array_equal(use.elements.ravel(), np.arange(view.size))
    elements = None if every else use.elements
    return use._replace(elements=elements, positions=_has_positions(op))


def _has_positions(op: tf.Operation) -> bool:
    """True if the output has more axes than examples and channels, or is at once given them."""
    out = op.outputs[0]
    reshaped = [user.outputs[0] for user in out.consumers() if user.type == "Reshape"]
    return any(t.shape.rank != 2 for t in (out, *reshaped))


# --- rules, one a kind of operation -----------------------------------------------------------


def _matmul(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View
) -> Use | None:
    names = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    first, second = (op.get_attr(name) for name in names)
    a = inputs[0]
    if at != 1 or first or view.elements.ndim != 2 or a.shape.rank is None:
        return None
    rows = string.ascii_lowercase[: a.shape.rank - 1]
    equation = Equation(rows + "y", "zy" if second else "yz", rows + "z")
    return Use(view.variable, view.elements, equation, a, out)


def _einsum(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View
) -> Use | None:
    text = op.get_attr("equation").decode().replace(" ", "")
    if "." in text or "->" not in text or len(inputs) != 2:
        return None
    terms, outputs = text.split("->")
    letters = {
        c: string.ascii_lowercase[i] for i, c in enumerate(dict.fromkeys(terms.replace(",", "")))
    }
    operands = terms.split(",")
    a, w, z = ("".join(letters[c] for c in t) for t in (operands[1 - at], operands[at], outputs))
    distinct = all(len(set(t)) == len(t) for t in (a, w, z))
    if not distinct or not z or z[0] != a[:1]:
        return None
    return Use(view.variable, view.elements, Equation(a, w, z), inputs[1 - at], out)


def _sum(op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View) -> Use | None:
    axes = string.ascii_lowercase[: out.shape.rank]
    if op.type == "BiasAdd" and op.get_attr("data_format") == b"NCHW":
        weights, elements = axes[1], view.elements
    else:
        weights, elements = _aligned(axes, view.elements)
    factor = _SUMS[op.type][at]
    equation = Equation("", weights, axes)
    added_to = inputs[1 - at]
    return Use(view.variable, elements, equation, None, out, factor, added_to=added_to)


def _product(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View
) -> Use | None:
    a = inputs[1 - at]
    if a.shape.rank is None or a.shape.rank > out.shape.rank:
        return None
    axes = string.ascii_lowercase[: out.shape.rank]
    offset = out.shape.rank - a.shape.rank
    kept = [i for i, n in enumerate(a.shape) if n != 1 or out.shape[offset + i] == 1]
    dropped = [i for i in range(a.shape.rank) if i not in kept]
    letters = "".join(axes[offset + i] for i in kept)
    weights, elements = _aligned(axes, view.elements)
    a = tf.squeeze(a, dropped) if dropped else a
    return Use(view.variable, elements, Equation(letters, weights, axes), a, out)


def _aligned(axes: str, elements: np.ndarray) -> tuple[str, np.ndarray]:
    """Letters of a broadcast weight's axes, without those of length 1, and its elements so."""
    letters = axes[len(axes) - elements.ndim :]
    return (
        "".join(c for c, n in zip(letters, elements.shape, strict=True) if n != 1),
        elements.reshape([n for n in elements.shape if n != 1]),
    )


def _convolution(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View
) -> Use | None:
    cut = window(op)
    if at != 1 or cut is None or view.elements.ndim != 4:
        return None
    *_, channels, outputs = view.elements.shape
    if op.type == "Conv2DBackpropInput":
        # Linear in a and W alike: the patches are those of z, whose derivative they are cut from.
        elements = view.elements.reshape(-1, outputs)
        equation = Equation("abcz", "yz", "abcy")
        return Use(view.variable, elements, equation, inputs[2], out, window=cut, transposed=True)
    elements = view.elements.reshape(-1, outputs)
    if op.type == "Conv2D":
        equation = Equation("abcy", "yz", "abcz")
        return Use(view.variable, elements, equation, inputs[0], out, window=cut)
    elements = view.elements.reshape(-1, channels, outputs)
    equation = Equation("abcxy", "xyz", "abcyz")
    cut = cut._replace(channels=channels)
    inner = (channels, outputs)
    return Use(view.variable, elements, equation, inputs[0], out, window=cut, inner=inner)


def _gather(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: _View
) -> Use | None:
    indices = inputs[1]
    axis = known_value(inputs[2]) if op.type == "GatherV2" else 0
    batched = "batch_dims" in op.node_def.attr and op.get_attr("batch_dims")
    if at != 0 or batched or axis != 0 or indices.shape.rank is None or view.elements.ndim != 2:
        return None
    letters = string.ascii_lowercase[: indices.shape.rank]
    equation = Equation(letters + "y", "yz", letters + "z")
    rows = int(view.elements.shape[0])
    return Use(view.variable, view.elements, equation, indices, out, rows=rows)


_RULES: dict[str, Callable[..., Use | None]] = {
    "MatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMul": _matmul,
    "Einsum": _einsum,
    "AddV2": _sum,
    "Add": _sum,
    "Sub": _sum,
    "BiasAdd": _sum,
    "Mul": _product,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "Conv2DBackpropInput": _convolution,
    "ResourceGather": _gather,
    "GatherV2": _gather,
    "Gather": _gather,
}
