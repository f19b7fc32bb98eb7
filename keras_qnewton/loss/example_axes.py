"""Where a tensor has its examples, from operation to operation: a row of `_RULES` each.

u [B, ...]    an operation's input, whose axis of examples is known
f(u)          keeps examples apart, if it works element by element, reduces other axes, ...

Each rule says where the result has its examples, or nothing where they may have met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.loss.known_values import known_value


class Rows(NamedTuple):
    """Where a tensor has its examples.

    Attributes:
        axis: That of examples.
        each: Entries of that axis an example, side by side.
    """

    axis: int
    each: int


# Of tensors that depend on weights, but on no use of one; and of those that are not understood.
OF_WEIGHTS, MIXED = "of weights", "mixed"
State = Rows | str
# From an operation, its inputs, their states and a result to the result's state, if that is known.
Rule = Callable[[tf.Operation, Sequence[Any], Sequence[State | None], Any], "State | None"]


def after(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: tf.Tensor
) -> State:
    """The state of a result `out` of an operation.

    Args:
        op: The recorded operation.
        inputs: As it was run.
        states: Of the inputs, None for one that depends on no weight; some have rows.
        out: The result.
    """
    rule = _RULES.get(op.type)
    if rule is None or out.shape.rank is None:
        return MIXED
    return rule(op, inputs, states, out) or MIXED


def _rows_of(states: Sequence[State | None]) -> list[Rows]:
    return [s for s in states if isinstance(s, Rows)]


def _by_element(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """Axes count from the last one, as in broadcasting."""
    del op
    places = set()
    for x, state in zip(inputs, states, strict=True):
        rank = x.shape.rank
        if rank is None:
            return None
        if isinstance(state, Rows):
            places.add((state.axis - rank, state.each, x.shape[state.axis]))
    if len(places) != 1:
        return None
    ((place, each, length),) = places
    for x, state in zip(inputs, states, strict=True):
        # A weight's axis along the examples, or one example for all.
        along = state is not None and not isinstance(state, Rows) and -place <= x.shape.rank
        if along and x.shape[place] != 1:
            return None
    if out.shape[place] != length:
        return None
    return Rows(out.shape.rank + place, each)


def _bias(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """Channels, which the bias is along, are the second axis or the last."""
    at = 1 if op.get_attr("data_format") == b"NCHW" else out.shape.rank - 1
    first = states[0]
    return first if isinstance(first, Rows) and first.axis != at else None


def _matrix_product(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """Rows from the left; or, of stacks of matrices, one an example on either side."""
    a, b = inputs[:2]
    first, second = states[:2]
    rank = out.shape.rank
    if a.shape.rank is None or b.shape.rank is None:
        return None
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    if isinstance(first, Rows) and isinstance(second, Rows):
        both = first == second and a.shape.rank == b.shape.rank == rank and first.axis < rank - 2
        return first if both and a.shape[first.axis] == b.shape[first.axis] else None
    if isinstance(second, Rows):  # a matrix of constants from the left
        stacked = second.axis < rank - 2 and b.shape.rank == rank and a.shape.rank == 2
        return second if stacked else None
    if not isinstance(first, Rows) or a.shape.rank != rank:
        return None
    if first.axis < rank - 2:
        same = out.shape[first.axis] == a.shape[first.axis]
        return first if same and (second is None or b.shape.rank == 2) else None
    return first if first.axis == rank - 2 and not transposed and b.shape.rank == 2 else None


def _einsum(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    text = op.get_attr("equation").decode().replace(" ", "")
    if "." in text or "->" not in text:
        return None
    terms, to = text.split("->")
    operands = terms.split(",")
    letters = {
        (term[state.axis], state.each)
        for term, state in zip(operands, states, strict=True)
        if isinstance(state, Rows)
    }
    if len(letters) != 1:
        return None
    ((letter, each),) = letters
    shared = any(
        letter in term and not isinstance(state, Rows) and state is not None
        for term, state in zip(operands, states, strict=True)
    )
    doubled = any(len(set(t)) != len(t) for t in (*operands, to))
    if shared or doubled or letter not in to:
        return None
    return Rows(to.index(letter), each)


def _reduction(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    (state, *_), rank = states, inputs[0].shape.rank
    axes = known_value(inputs[1])
    if axes is None or rank is None or not isinstance(state, Rows) or states[1] is not None:
        return None
    reduced = {int(n) % rank for n in axes.ravel()}
    if state.axis in reduced:
        return None
    before = 0 if op.get_attr("keep_dims") else sum(n < state.axis for n in reduced)
    return state._replace(axis=state.axis - before)


def _reshape(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """An example's elements stay side by side, if all of its new rows are whole."""
    del op
    state, x = states[0], inputs[0]
    if not isinstance(state, Rows) or x.shape.rank is None or not out.shape.rank:
        return None
    lengths, new = x.shape.as_list(), out.shape.as_list()
    before, after = _inner(lengths, state.axis), _inner(new, state.axis)
    if before is None or not after:
        return None
    if state.axis:  # what comes before it, and so its own length, stays what it is
        same = lengths[: state.axis] == new[: state.axis] and None not in new[: state.axis]
        return state if same and before == after else None
    whole = (state.each * before) % after == 0
    return Rows(0, state.each * before // after) if whole else None


def _inner(lengths: Sequence[int | None], axis: int) -> int | None:
    """Elements of one entry of that axis."""
    total = 1
    for n in lengths[axis + 1 :]:
        if n is None:
            return None
        total *= n
    return total


def _transpose(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    del op, out
    (state, *_), order = states, known_value(inputs[1])
    if order is None or not isinstance(state, Rows):
        return None
    return state._replace(axis=int(order.tolist().index(state.axis)))


def _squeeze(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    (state,), rank = states, inputs[0].shape.rank
    dropped = [n % rank for n in op.get_attr("squeeze_dims")] if rank else []
    if not dropped or not isinstance(state, Rows) or state.axis in dropped:
        return None
    return state._replace(axis=state.axis - sum(n < state.axis for n in dropped))


def _expand(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    del op
    (state, *_), axis = states, known_value(inputs[1])
    if axis is None or not isinstance(state, Rows):
        return None
    at = int(axis) % out.shape.rank
    return state._replace(axis=state.axis + (at <= state.axis))


def _unstack(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    (state,), axis = states, op.get_attr("axis") % (out.shape.rank + 1)
    if not isinstance(state, Rows) or axis == state.axis:
        return None
    return state._replace(axis=state.axis - (axis < state.axis))


def _stack(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    found, axis = set(_rows_of(states)), op.get_attr("axis") % out.shape.rank
    if len(found) != 1 or OF_WEIGHTS in states:
        return None
    (state,) = found
    return state._replace(axis=state.axis + (axis <= state.axis))


def _concat(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    found, axis = set(_rows_of(states)), known_value(inputs[-1])
    if len(found) != 1 or axis is None or OF_WEIGHTS in states:
        return None
    (state,) = found
    return None if int(axis) % out.shape.rank == state.axis else state


def _split(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    value, axis = (1, inputs[0]) if op.type == "Split" else (0, inputs[2])
    state, at = states[value], known_value(axis)
    if at is None or not isinstance(state, Rows) or int(at) % out.shape.rank == state.axis:
        return None
    return state


def _slice(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    del op
    state, begin, size = states[0], known_value(inputs[1]), known_value(inputs[2])
    if begin is None or size is None or not isinstance(state, Rows):
        return None
    whole = int(begin[state.axis]) == 0 and (
        int(size[state.axis]) in (-1, inputs[0].shape[state.axis])
    )
    return state if whole else None


def _strided_slice(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """Axis by axis, as `tf.strided_slice` has them."""
    state, strides, rank = states[0], known_value(inputs[3]), inputs[0].shape.rank
    if strides is None or rank is None or not isinstance(state, Rows):
        return None
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    begin, end, ellipsis, new, shrunk = (op.get_attr(name) for name in names)
    bits = [1 << k for k in range(len(strides))]
    covered = rank - sum(not (new | ellipsis) & bit for bit in bits)  # by the ellipsis
    axis, placed = 0, 0  # of the input and of the result
    for bit, stride in zip(bits, strides, strict=True):
        if ellipsis & bit:
            if axis <= state.axis < axis + covered:
                return state._replace(axis=placed + state.axis - axis)
            axis, placed = axis + covered, placed + covered
        elif new & bit:
            placed += 1
        elif axis == state.axis:
            whole = begin & end & bit and stride == 1 and not shrunk & bit
            return state._replace(axis=placed) if whole else None
        else:
            axis, placed = axis + 1, placed + (not shrunk & bit)
    return state._replace(axis=placed + state.axis - axis)


def _padding(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    state, paddings = states[0], known_value(inputs[1])
    if paddings is None or not isinstance(state, Rows) or paddings[state.axis].any():
        return None
    return state


def _tiling(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    state, multiples = states[0], known_value(inputs[1])
    if multiples is None or not isinstance(state, Rows) or multiples[state.axis] != 1:
        return None
    return state


def _broadcast(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    state, x = states[0], inputs[0]
    if not isinstance(state, Rows) or x.shape.rank is None:
        return None
    place = state.axis - x.shape.rank
    length = x.shape[state.axis]
    return (
        Rows(out.shape.rank + place, state.each)
        if length is not None and out.shape[place] == length
        else None
    )


def _gather(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    state, axis = states[0], known_value(inputs[2])
    if axis is None or not isinstance(state, Rows) or op.get_attr("batch_dims"):
        return None
    at, rank = int(axis) % inputs[0].shape.rank, inputs[1].shape.rank
    if at == state.axis or rank is None:
        return None
    return state._replace(axis=state.axis + (rank - 1 if at < state.axis else 0))


def _along_last(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    state = states[0]
    return state if isinstance(state, Rows) and state.axis < out.shape.rank - 1 else None


def _along_one(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    state, axis = states[0], known_value(inputs[1])
    if axis is None or not isinstance(state, Rows):
        return None
    return None if state.axis in {int(n) % out.shape.rank for n in axis.ravel()} else state


def _windows(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """Convolutions and poolings of images, first axis first; filters are no examples'."""
    found = _rows_of(states)
    wanted = all(s.axis == 0 for s in found) and len(set(found)) == 1
    filters = {"Conv2D": 1, "Conv3D": 1, "DepthwiseConv2dNative": 1, "Conv2DBackpropInput": 1}
    at = filters.get(op.type)
    if not wanted or (at is not None and isinstance(states[at], Rows)):
        return None
    return found[0]


def _rules(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, Rule] = {
    **_rules(
        "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil CheckNumerics Cos Cosh Digamma Elu "
        "EnsureShape Erf Erfc Erfinv Exp Expm1 Floor Identity Inv Invert IsFinite IsInf IsNan "
        "LeakyRelu Lgamma Log Log1p LogicalNot Ndtri Neg PreventGradient Reciprocal Relu Relu6 "
        "Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Snapshot Softplus Softsign Sqrt Square Tan "
        "Tanh",
        _by_element,
    ),
    **_rules(
        "Add AddN AddV2 ApproximateEqual Atan2 Div DivNoNan Equal EluGrad FloorDiv FloorMod "
        "Greater GreaterEqual InvGrad LeakyReluGrad Less LessEqual LogicalAnd LogicalOr Maximum "
        "Minimum Mod Mul MulNoNan NotEqual Pow RealDiv ReciprocalGrad Relu6Grad ReluGrad RsqrtGrad "
        "Select SelectV2 SeluGrad SigmoidGrad SoftplusGrad SoftsignGrad SqrtGrad SquaredDifference "
        "Sub TanhGrad TruncateDiv Xdivy Xlog1py Xlogy ZerosLike OnesLike ClipByValue",
        _by_element,
    ),
    "BiasAdd": _bias,
    **_rules("MatMul BatchMatMul BatchMatMulV2", _matrix_product),
    "Einsum": _einsum,
    **_rules("All Any EuclideanNorm Max Mean Min Prod Sum", _reduction),
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "ExpandDims": _expand,
    "Unpack": _unstack,
    "Pack": _stack,
    "ConcatV2": _concat,
    **_rules("Split SplitV", _split),
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    **_rules("MirrorPad Pad PadV2", _padding),
    "Tile": _tiling,
    "BroadcastTo": _broadcast,
    "GatherV2": _gather,
    **_rules("LogSoftmax Softmax", _along_last),
    **_rules("Cumprod Cumsum ReverseV2", _along_one),
    **_rules(
        "AvgPool AvgPool3D AvgPoolGrad Conv2D Conv2DBackpropInput Conv3D DepthwiseConv2dNative "
        "MaxPool MaxPool3D MaxPoolGrad",
        _windows,
    ),
}
