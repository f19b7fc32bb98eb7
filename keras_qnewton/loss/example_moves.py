"""Where a tensor has its examples after operations that only move elements: see `example_axes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton.loss.example_states import OF_WEIGHTS, Rows, Rule, State, rows_of, rules
from keras_qnewton.loss.joined_rows import width_of_products
from keras_qnewton.loss.known_values import known_lengths, known_value


def _reshape(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    """An example's elements stay side by side, if all of its new rows are whole."""
    state, x = states[0], inputs[0]
    if not isinstance(state, Rows) or x.shape.rank is None or not out.shape.rank:
        return None
    lengths, new = x.shape.as_list(), out.shape.as_list()
    if None in new[1:]:
        known = known_lengths(inputs[1]) or new
        new = [n if n is not None else m for n, m in zip(new, known, strict=True)]
    if new[-1] is None:
        new[-1] = width_of_products(op.outputs[0])
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
    found, axis = set(rows_of(states)), op.get_attr("axis") % out.shape.rank
    if len(found) != 1 or OF_WEIGHTS in states:
        return None
    (state,) = found
    return state._replace(axis=state.axis + (axis <= state.axis))


def _concat(
    op: tf.Operation, inputs: Sequence[Any], states: Sequence[State | None], out: Any
) -> State | None:
    found, axis = set(rows_of(states)), known_value(inputs[-1])
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


MOVES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "ExpandDims": _expand,
    "Unpack": _unstack,
    "Pack": _stack,
    "ConcatV2": _concat,
    **rules("Split SplitV", _split),
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    **rules("MirrorPad Pad PadV2", _padding),
    "Tile": _tiling,
    "BroadcastTo": _broadcast,
    "GatherV2": _gather,
}
