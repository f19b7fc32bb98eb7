"""A number that tells whether a loss's data are those of another step, with no loss evaluated.

What a recorded loss takes beside the weights are tensors of the graph: the batch, masks, moving
statistics. Those that are made of constants alone cannot change. The bits of the others are added
up as integers, each times odd numbers of its place: along a row of tensor k, and over rows.

    r[i]   = Σ_j bits(t_k[i, j]) c[j]     mod 2³²                              int32, a row
    F      = F₀ + Σ_k Σ_i r[i] m(i, k)    mod 2⁶⁴                              int64 scalar

Equal data have equal numbers, and one number that is another changes F. Other data share an F by
chance alone. Rows are a matrix product: of a large batch that takes less than a layer does.

`fit` shuffles the examples of a full batch in each epoch. So data have F's last 32 bits, and 32
more that no order changes: the sum of a mixed r[i] over rows, each times an odd number of k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.loss.recorded import RecordedLoss
from keras_qnewton.loss.summed import SummedLoss

# Odd multipliers of positions; 64-bit mixing constants (Steele, Lea & Flood 2014, SplitMix).
_OF_ELEMENTS, _OF_TENSORS = -0x61C8864680B583EB, -0x40A7B892E31B1A47
_OF_NOTHING = 0x106689D45497FDB5
_SHIFT = 29
# Of 64 bits.
_HALF, _LAST = 32, 0xFFFFFFFF
_BITS = {1: tf.int8, 2: tf.int16, 4: tf.int32}


def data_fingerprint(loss: RecordedLoss) -> tf.Tensor | None:
    """A number of what `loss` takes beside its weights, int64 scalar; None if there is none.

    There is none where an operation takes a table, or another variable itself. Of rows in another
    order it is another number, but for `same_rows`.
    """
    if isinstance(loss, SummedLoss):
        return _of_replicas(loss)
    taken = _taken(loss)
    if any(t.dtype in (tf.resource, tf.variant, tf.string) for t in taken):
        return None
    constants = _constants(t.op for t in taken)
    by_rows = [_by_rows(t) for t in taken if t.op not in constants]
    if not by_rows:
        return fingerprint([])
    return _packed(_in_any_order(by_rows), _in_order(by_rows))


def same_rows(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Whether two numbers are those of data with the same rows, in any order; boolean scalar.

    Rows are those of each tensor by itself: which belong together is not seen.
    """
    return tf.bitwise.right_shift(one, _HALF) == tf.bitwise.right_shift(other, _HALF)


def has_constant_data(loss: RecordedLoss) -> bool:
    """Whether all that `loss` takes beside its weights is the same in every step, by the graph."""
    if isinstance(loss, SummedLoss):
        return all(loss.each(has_constant_data))
    taken = {t.op for t in _taken(loss)}
    return taken <= _constants(taken)


def fingerprint(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """F of tensors, int64 scalar."""
    return _in_order([_by_rows(tensor) for tensor in tensors])


def _by_rows(tensor: tf.Tensor) -> tf.Tensor:
    """r of each row, int64 `[rows]`."""
    bits = _bits(tensor)
    odd = tf.cast(_odd(tf.shape(bits)[1], 0), tf.int32)
    return tf.cast(tf.linalg.matvec(bits, odd), tf.int64)


def _in_order(by_rows: Sequence[tf.Tensor]) -> tf.Tensor:
    # Of zeros it is another number than of nothing, which is what a new optimizer remembers.
    total = tf.constant(_OF_NOTHING, tf.int64)
    for k, rows in enumerate(by_rows):
        total += tf.reduce_sum(rows * _odd(tf.size(rows), k + 1))
    return total


def _in_any_order(by_rows: Sequence[tf.Tensor]) -> tf.Tensor:
    total = tf.constant(_OF_NOTHING, tf.int64)
    for k, rows in enumerate(by_rows):
        mixed = (rows + k) * _OF_ELEMENTS
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, _SHIFT))
        total += tf.reduce_sum(mixed * _OF_TENSORS)
    return total


def _of_replicas(loss: SummedLoss) -> tf.Tensor | None:
    found = loss.each(data_fingerprint)
    if any(f is None for f in found):
        return None
    # Replicas that exchange their data have the same loss. The halves are added up apart, since
    # what is carried from the one would change the other.
    halves = [[tf.bitwise.right_shift(f, _HALF), _last_bits(f)] for f in found]
    return _packed(*loss.replicas.total(halves))


def _packed(any_order: tf.Tensor, in_order: tf.Tensor) -> tf.Tensor:
    """The last bits of two numbers, side by side."""
    return tf.bitwise.left_shift(any_order, _HALF) + _last_bits(in_order)


def _last_bits(number: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_and(number, tf.constant(_LAST, tf.int64))


def _odd(count: tf.Tensor, salt: int) -> tf.Tensor:
    """Odd numbers of places 0 to `count` - 1, int64."""
    places = tf.range(tf.cast(count, tf.int64), dtype=tf.int64)
    mixed = places * _OF_ELEMENTS + salt * (_OF_TENSORS >> 8)
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, _SHIFT))
    return tf.bitwise.bitwise_or(mixed, tf.constant(1, tf.int64))


def _bits(tensor: tf.Tensor) -> tf.Tensor:
    """The bits of each number, int32 `[rows, columns]`; of a complex one both parts."""
    if tensor.dtype.is_complex:
        parts = [_bits(tf.math.real(tensor)), _bits(tf.math.imag(tensor))]
        return tf.concat(parts, 1)
    shape = tf.shape(tensor)
    rows = tf.reduce_prod(shape[:1])
    columns = tf.reduce_prod(shape[1:])
    if tensor.dtype.size == 8:
        tensor, columns = tf.bitcast(tensor, tf.int32), 2 * columns
    elif tensor.dtype.is_floating:
        tensor = tf.bitcast(tensor, _BITS[tensor.dtype.size])
    return tf.reshape(tf.cast(tensor, tf.int32), [rows, columns])


def _taken(loss: RecordedLoss) -> list[tf.Tensor]:
    """Tensors that recorded operations take and none of them makes, but for the weights."""
    made = {t.name for op in loss.operations for t in op.outputs} | loss.handles
    taken = {t.name: t for op in loss.operations for t in op.inputs if t.name not in made}
    return list(taken.values())


def _constants(ops: Iterable[tf.Operation]) -> set[tf.Operation]:
    """Those of `ops` whose results are the same in every step, as far as the graph tells."""
    known: dict[tf.Operation, bool] = {}
    pending = list(ops)
    while pending:
        op = pending[-1]
        before = [t.op for t in op.inputs]
        unknown = [] if op in known else [other for other in before if other not in known]
        if unknown:
            pending.extend(unknown)
            continue
        pending.pop()
        known.setdefault(op, _adds_nothing(op) and all(known[other] for other in before))
    return {op for op, constant in known.items() if constant}


def _adds_nothing(op: tf.Operation) -> bool:
    """Whether an operation's results can only change with what it takes."""
    if op.type != "Placeholder":
        return not op.op_def.is_stateful
    # A captured tensor that was computed before has one value; an argument has not.
    outer = _tf_private.resolve_capture(op.outputs[0])
    return not tf.is_symbolic_tensor(outer) and outer.dtype not in (tf.resource, tf.variant)
