"""Where a tensor has its examples, from operation to operation: a row of `_RULES` each.

u [B, ...]    an operation's input, whose axis of examples is known
f(u)          keeps examples apart, if it works element by element, reduces other axes, ...

Each rule says where the result has its examples, or nothing where they may have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton.loss.example_moves import MOVES
from keras_qnewton.loss.example_states import (
    MIXED,
    Rows,
    Rule,
    State,
    rows_of,
    rules,
)
from keras_qnewton.loss.known_values import known_value, reduced_axes


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
    state, reduced = states[0], reduced_axes(*inputs[:2])
    if reduced is None or not isinstance(state, Rows) or states[1] is not None:
        return None
    if state.axis in reduced:
        return None
    before = 0 if op.get_attr("keep_dims") else sum(n < state.axis for n in reduced)
    return state._replace(axis=state.axis - before)


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
    found = rows_of(states)
    wanted = all(s.axis == 0 for s in found) and len(set(found)) == 1
    filters = {"Conv2D": 1, "Conv3D": 1, "DepthwiseConv2dNative": 1, "Conv2DBackpropInput": 1}
    at = filters.get(op.type)
    if not wanted or (at is not None and isinstance(states[at], Rows)):
        return None
    return found[0]


_RULES: dict[str, Rule] = {
    **rules(
        "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil CheckNumerics Cos Cosh Digamma Elu "
        "EnsureShape Erf Erfc Erfinv Exp Expm1 Floor Identity Inv Invert IsFinite IsInf IsNan "
        "LeakyRelu Lgamma Log Log1p LogicalNot Ndtri Neg PreventGradient Reciprocal Relu Relu6 "
        "Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Snapshot Softplus Softsign Sqrt Square Tan "
        "Tanh",
        _by_element,
    ),
    **rules(
        "Add AddN AddV2 ApproximateEqual Atan2 Div DivNoNan Equal EluGrad FloorDiv FloorMod "
        "Greater GreaterEqual InvGrad LeakyReluGrad Less LessEqual LogicalAnd LogicalOr Maximum "
        "Minimum Mod Mul MulNoNan NotEqual Pow RealDiv ReciprocalGrad Relu6Grad ReluGrad RsqrtGrad "
        "Select SelectV2 SeluGrad SigmoidGrad SoftplusGrad SoftsignGrad SqrtGrad SquaredDifference "
        "Sub TanhGrad TruncateDiv Xdivy Xlog1py Xlogy ZerosLike OnesLike ClipByValue",
        _by_element,
    ),
    "BiasAdd": _bias,
    **rules("MatMul BatchMatMul BatchMatMulV2", _matrix_product),
    "Einsum": _einsum,
    **rules("All Any EuclideanNorm Max Mean Min Prod Sum", _reduction),
    **MOVES,
    **rules("LogSoftmax Softmax", _along_last),
    **rules("Cumprod Cumsum ReverseV2", _along_one),
    **rules(
        "AvgPool AvgPool3D AvgPoolGrad Conv2D Conv2DBackpropInput Conv3D DepthwiseConv2dNative "
        "MaxPool MaxPool3D MaxPoolGrad",
        _windows,
    ),
}
