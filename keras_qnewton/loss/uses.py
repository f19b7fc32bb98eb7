"""Every place where a weight enters linearly, seen while the loss is run again.

    z = f(a, W), linear in W    `Use`: a matrix product, a convolution, an added bias, a scale
    ∂L/∂W = Σ a ⊗ ∂L/∂z         by an equation of Einstein's, since f is one: z = einsum(a, W)

A weight that each element of z has one element of, as in a quotient, has a use, too: a is then the
derivative of z in it.

`Uses` is an observer of `RecordedLoss.fetch`. It follows the weights through operations that only
move their elements (`views`), into bodies of functions and loops that are run in line. Where a
weight enters otherwise, it says so (`others`).
"""

from __future__ import annotations

import copy
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss import control_flow
from keras_qnewton.loss.known_values import known_value
from keras_qnewton.loss.views import View, moved
from keras_qnewton.loss.windows import Window, patches, window

_NOT_YET = -1  # a use is of no variable before it is known of which
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

    def lettered(self) -> Equation:
        """With letters in one order: a product with Wᵀ, turned round, is then like one with W."""
        letters = dict.fromkeys(self.outputs[0] + self.weights + self.inputs + self.outputs)
        new = dict(zip(letters, string.ascii_lowercase, strict=False))
        return Equation(*("".join(new[c] for c in axes) for axes in self))


class Use(NamedTuple):
    """Where a weight, or some of its elements, enters linearly.

    Attributes:
        variable: Position of the weight among the loss's variables.
        elements: Which of its elements, flattened, by the axes of `equation.weights`, -1 for none;
            None for all of them in their order.
        equation: Of a, W and z.
        inputs: a; None if the weight is added. Of an embedding, which rows are taken.
        outputs: z.
        factor: Of W, 1 or -1.
        window: How a convolution's a is cut into patches; z, if it is a transposed one.
        transposed: Whether it is.
        inner: Lengths of the axes that z's last axis is to be split into; None as it is.
        dealt: Over how many rows each example has been dealt out, which come one after another with
            all examples in each, as dilated convolutions have it.
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
    dealt: int = 1
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
        self._views: dict[int, View] = {}
        self._graph = tf.compat.v1.get_default_graph()
        self._starts = np.cumsum([0, *(int(w.shape.num_elements()) for w in weights)])
        self.found: list[Use] = []
        self.others: set[int] = set()
        self.consumers: dict[int, int] = {}
        for weight, start, end in zip(weights, self._starts, self._starts[1:], strict=False):
            if weight.dtype == dtype:
                numbers = np.arange(start, end, dtype=np.int32).reshape(weight.shape)
                self._views[id(weight)] = View(weight, numbers)

    def inside(self) -> Uses:
        """What sees the uses of the same weights in the graph of a body, none so far."""
        other = copy.copy(self)
        other._graph = tf.compat.v1.get_default_graph()
        other._views = dict(self._views)
        other.found, other.others = [], set()
        return other

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
        followed = moved(op, inputs, outputs, self._views)
        if followed is not None:
            self._views.update((id(view.tensor), view) for view in followed)
            return
        for i, view in zip(at, views, strict=True):  # where both move, one after the other
            use = None
            if self._is_here(view.tensor, outputs[0]):
                use = _use(op, list(inputs), outputs[0], i, view)
            if use is None:
                self.others.update(self._variables(view.elements))
            else:
                self.found.extend(self._by_variable(use))

    def _is_here(self, weight: tf.Tensor, out: Any) -> bool:
        """False in a branch or loop that is run as such, and of another precision."""
        return out.graph is self._graph and out.dtype == weight.dtype

    def _variables(self, elements: np.ndarray) -> list[int]:
        """The variables that the elements are of."""
        numbers = np.unique(elements[elements >= 0])
        return [int(k) for k in np.unique(np.searchsorted(self._starts, numbers, side="right") - 1)]

    def _by_variable(self, use: Use) -> list[Use]:
        """The use, one for each of the variables that enter it together."""
        found, numbers = [], np.asarray(use.elements)
        for k in self._variables(numbers):
            start, end = self._starts[k], self._starts[k + 1]
            elements = np.where((numbers >= start) & (numbers < end), numbers - start, -1)
            every = np.array_equal(elements.ravel(), np.arange(end - start))
            found.append(use._replace(variable=k, elements=None if every else elements))
        return found


def _use(op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, view: View) -> Use | None:
    """The use of a view by an operation, or None if it is of no known kind."""
    rule = _RULES.get(op.type)
    if rule is None or out.shape.rank in (None, 0) or not tf.is_tensor(inputs[at]):
        return None
    use = rule(op, inputs, out, at, view.elements)
    if use is None or use.equation.outputs[0] in use.equation.weights:
        return None  # an axis of the weight is not one of examples
    return use._replace(positions=_has_positions(op))


def _has_positions(op: tf.Operation) -> bool:
    """True if the output has more axes than examples and channels, or is at once given them."""
    out = op.outputs[0]
    reshaped = [user.outputs[0] for user in out.consumers() if user.type == "Reshape"]
    return any(t.shape.rank != 2 for t in (out, *reshaped))


# --- rules, one a kind of operation -----------------------------------------------------------


def _matmul(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    names = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    first, second = (op.get_attr(name) for name in names)
    a = inputs[0]
    if at != 1 or first or a.shape.rank is None or not 2 <= elements.ndim <= a.shape.rank:
        return None
    rows = string.ascii_lowercase[: a.shape.rank - 1]
    outer = elements.ndim - 2  # axes of many products, which a has before that of its rows
    if list(elements.shape[:outer]) != a.shape[-elements.ndim : -2].as_list():
        return None
    products = rows[len(rows) - 1 - outer : len(rows) - 1]
    equation = Equation(rows + "y", products + ("zy" if second else "yz"), rows + "z")
    return Use(_NOT_YET, elements, equation, a, out)


def _einsum(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    text = op.get_attr("equation").decode().replace(" ", "")
    if "->" not in text or len(inputs) != 2:
        return None
    text = _without_ellipsis(text, inputs[1 - at].shape.rank, elements.ndim, at)
    if text is None:
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
    return Use(_NOT_YET, elements, Equation(a, w, z), inputs[1 - at], out)


def _without_ellipsis(text: str, rank: int | None, rank_of_weight: int, at: int) -> str | None:
    """The equation with letters for the axes of an ellipsis, none of which the weight may have."""
    if "..." not in text:
        return text
    operands = text.split("->")[0].split(",")
    count = (rank or 0) - len(operands[1 - at].replace("...", ""))
    weight = operands[at].replace("...", "")
    free = [c for c in string.ascii_letters if c not in text]
    if rank is None or count < 0 or len(weight) != rank_of_weight or count > len(free):
        return None
    letters = "".join(free[:count])
    first, second, outputs = (
        part.replace("...", "" if i == at else letters)
        for i, part in enumerate([*operands, text.split("->")[1]])
    )
    return f"{first},{second}->{outputs}"


def _sum(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    axes = string.ascii_lowercase[: out.shape.rank]
    if op.type == "BiasAdd" and op.get_attr("data_format") == b"NCHW":
        weights, elements = axes[1], elements
    else:
        weights, elements = _aligned(axes, elements)
    factor = _SUMS[op.type][at]
    equation = Equation("", weights, axes)
    added_to = inputs[1 - at]
    return Use(_NOT_YET, elements, equation, None, out, factor, added_to=added_to)


def _product(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    return _scaled_by(inputs[1 - at], out, elements)


def _scaled_by(a: tf.Tensor, out: tf.Tensor, elements: np.ndarray) -> Use | None:
    """z = a W, element by element, with a broadcast."""
    if a.shape.rank is None or a.shape.rank > out.shape.rank:
        return None
    axes = string.ascii_lowercase[: out.shape.rank]
    offset = out.shape.rank - a.shape.rank
    kept = [i for i, n in enumerate(a.shape) if n != 1 or out.shape[offset + i] == 1]
    dropped = [i for i in range(a.shape.rank) if i not in kept]
    letters = "".join(axes[offset + i] for i in kept)
    weights, elements = _aligned(axes, elements)
    a = tf.squeeze(a, dropped) if dropped else a
    return Use(_NOT_YET, elements, Equation(letters, weights, axes), a, out)


def _quotient(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    """x / W, of which a is the derivative -z / W; and W / x."""
    a = tf.math.reciprocal(inputs[1]) if at == 0 else -out / inputs[1]
    return _scaled_by(a, out, elements)


def _squared_difference(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    """(x - W)², of which a is the derivative 2 (W - x)."""
    return _scaled_by(2 * (inputs[at] - inputs[1 - at]), out, elements)


def _aligned(axes: str, elements: np.ndarray) -> tuple[str, np.ndarray]:
    """Letters of a broadcast weight's axes, without those of length 1, and its elements so."""
    letters = axes[len(axes) - elements.ndim :]
    return (
        "".join(c for c, n in zip(letters, elements.shape, strict=True) if n != 1),
        elements.reshape([n for n in elements.shape if n != 1]),
    )


def _convolution(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    cut = window(op)
    if at != 1 or cut is None or elements.ndim != len(cut.sizes) + 2:
        return None
    places = string.ascii_lowercase[: elements.ndim - 1]  # examples, and where the window is
    *_, channels, outputs = elements.shape
    if op.type.startswith(("Conv2DBackprop", "Conv3DBackprop")):
        # Linear in a and W alike: the patches are those of z, whose derivative they are cut from.
        equation = Equation(places + "z", "yz", places + "y")
        elements = elements.reshape(-1, outputs)
        return Use(
            _NOT_YET,
            elements,
            equation,
            inputs[2],
            out,
            window=cut,
            transposed=True,
            dealt=cut.dealt,
        )
    use = Use(_NOT_YET, elements, Equation("", "", ""), inputs[0], out, window=cut, dealt=cut.dealt)
    if op.type == "DepthwiseConv2dNative":
        return use._replace(
            elements=elements.reshape(-1, channels, outputs),
            equation=Equation(places + "xy", "xyz", places + "yz"),
            window=cut._replace(channels=(channels,)),
            inner=(channels, outputs),
        )
    groups = int(inputs[0].shape[-1]) // channels
    if groups == 1:
        return use._replace(
            elements=elements.reshape(-1, outputs),
            equation=Equation(places + "y", "yz", places + "z"),
        )
    inner = (groups, outputs // groups)
    return use._replace(
        elements=elements.reshape(-1, channels, *inner),
        equation=Equation(places + "wxy", "wyxz", places + "xz"),
        window=cut._replace(channels=(groups, channels)),
        inner=inner,
    )


def _gather(
    op: tf.Operation, inputs: list[Any], out: tf.Tensor, at: int, elements: np.ndarray
) -> Use | None:
    indices = inputs[1]
    axis = known_value(inputs[2]) if op.type == "GatherV2" else 0
    batched = "batch_dims" in op.node_def.attr and op.get_attr("batch_dims")
    if at != 0 or batched or axis != 0 or indices.shape.rank is None or elements.ndim != 2:
        return None
    letters = string.ascii_lowercase[: indices.shape.rank]
    equation = Equation(letters + "y", "yz", letters + "z")
    rows = int(elements.shape[0])
    return Use(_NOT_YET, elements, equation, indices, out, rows=rows)


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
    "RealDiv": _quotient,
    "SquaredDifference": _squared_difference,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "Conv2DBackpropInput": _convolution,
    "Conv3D": _convolution,
    "Conv3DBackpropInputV2": _convolution,
    "ResourceGather": _gather,
    "GatherV2": _gather,
    "Gather": _gather,
}
