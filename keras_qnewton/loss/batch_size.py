"""How many examples a loss is of, as its own divisor counts them.

From the loss back to the tensors v of which it is a sum

    L = Σ_k a_k Σ_i v_k[i] + ...          v_k of any shape, a_k a scalar

each v_k that the data enter counts its elements. Where a_k, or a weight in v_k, is a scalar that is
computed of the data's values, it is a divisor of the user's or Keras's own, and n_k = 1 / a_k:

    mean over the batch, sample weights       every element, those of weight zero, too
    masks of Keras                            elements that are not masked
    sum of weights in the divisor             that sum

A loss that is a sum over examples says so: what is made of it is n times that of their mean.

Only the ratio of two batches of one model has a meaning. Scalars that are read from variables,
as the weight of a loss that is annealed, count as 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.loss.recorded import RecordedLoss
from keras_qnewton.loss.replayable import ARGUMENTS, READS, VALUE_INDEPENDENT
from keras_qnewton.loss.summed import SummedLoss

_REDUCTIONS = {"Sum", "Mean", "L2Loss", "Max", "Min", "Prod", "EuclideanNorm"}
_QUOTIENTS = {"RealDiv", "DivNoNan", "Div", "Xdivy"}
_PRODUCTS = {"Mul", "MulNoNan"}
_MOVES = {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "Neg", "EnsureShape"}
_CHOICES = {"Select", "SelectV2"}


@dataclasses.dataclass(frozen=True)
class _Scalars:
    """Scalars that a sum is multiplied and divided by, and the means among its reductions."""

    factors: tuple[tf.Tensor, ...] = ()
    divisors: tuple[tf.Tensor, ...] = ()
    means: tuple[tf.Operation, ...] = ()

    def times(self, *factors: tf.Tensor) -> _Scalars:
        return dataclasses.replace(self, factors=(*self.factors, *factors))

    def over(self, *divisors: tf.Tensor) -> _Scalars:
        return dataclasses.replace(self, divisors=(*self.divisors, *divisors))

    def averaged(self, op: tf.Operation) -> _Scalars:
        return self if op.type != "Mean" else dataclasses.replace(self, means=(*self.means, op))


class BatchSize(NamedTuple):
    """How many examples a loss is of.

    Attributes:
        count: n, float64 scalar.
        summed: Whether the loss is a sum over them, and not divided by their number.
    """

    count: tf.Tensor
    summed: bool


def batch_size(loss: RecordedLoss) -> BatchSize | None:
    """n of a loss; None if no data are seen to enter it."""
    if isinstance(loss, SummedLoss):
        return _of_replicas(loss)
    sources = _Sources()
    walk = _Walk(loss)
    sums = list(walk.sums(loss.recorded, _Scalars()))
    entered = [[sources.of(t) for t in walk.taken(elements)] for elements, _ in sums]
    for kind in ("data", "constant"):
        found = [
            of
            for of, taken in zip(sums, entered, strict=True)
            if any(kind in of_taken for of_taken in taken)
        ]
        if found:
            count = tf.add_n([_count(*of, sources) for of in found])
            return BatchSize(count, not any(_is_mean(*of, sources) for of in found))
    return None


def _of_replicas(loss: SummedLoss) -> BatchSize | None:
    found = loss.each(batch_size)
    sizes = [size for size in found if size is not None]
    if len(sizes) < len(found):
        return None
    (count,) = loss.replicas.total([[size.count] for size in sizes])
    return BatchSize(count, all(size.summed for size in sizes))


def _is_mean(elements: tf.Tensor, scalars: _Scalars, sources: _Sources) -> bool:
    """Whether a_k has the number of examples for a divisor, as far as is seen."""
    if any(_averages_examples(mean) for mean in scalars.means):
        return True
    known = (*scalars.factors, *scalars.divisors)
    if any(sources.of(t) & {"shape", "data"} for t in known):
        return True
    # Of a batch whose size is known while tracing the divisor is a number.
    shape = elements.shape.as_list() if elements.shape.rank else []
    sizes = {math.prod(shape[:k]) for k in range(1, len(shape) + 1) if None not in shape[:k]} - {1}
    values = [tf.get_static_value(divisor) for divisor in scalars.divisors]
    return any(value is not None and float(value) in sizes for value in values)


def _averages_examples(mean: tf.Operation) -> bool:
    axes, rank = tf.get_static_value(mean.inputs[1]), mean.inputs[0].shape.rank
    return axes is None or rank is None or any(int(a) % rank == 0 for a in np.ravel(axes))


def _count(elements: tf.Tensor, scalars: _Scalars, sources: _Sources) -> tf.Tensor:
    """n_k, float64 scalar."""
    known = (*scalars.factors, *scalars.divisors)
    if not any("data" in of and "variable" not in of for of in map(sources.of, known)):
        return _size(elements)
    count = tf.constant(1.0, tf.float64)
    for factor in scalars.factors:
        if "variable" not in sources.of(factor):
            count = tf.math.divide_no_nan(count, tf.abs(_float64(factor)))
    for divisor in scalars.divisors:
        if "variable" not in sources.of(divisor):
            count *= tf.abs(_float64(divisor))
    for mean in scalars.means:
        count *= _size(mean.inputs[0]) / _size(mean.outputs[0])
    return count


def _float64(scalar: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cast(scalar, tf.float64), [])


def _size(tensor: tf.Tensor) -> tf.Tensor:
    """The number of elements, float64 scalar."""
    known = tensor.shape.num_elements()
    if known is not None:
        return tf.constant(float(known), tf.float64)
    return tf.cast(tf.size(tensor, out_type=tf.int64), tf.float64)


class _Walk:
    """From a loss back over its recorded operations, to what it is a sum of."""

    def __init__(self, loss: RecordedLoss):
        self._recorded = {op.name for op in loss.operations}
        self._handles = loss.handles

    def sums(self, tensor: tf.Tensor, scalars: _Scalars) -> Iterator[tuple[tf.Tensor, _Scalars]]:
        """Each v_k, and the scalars in a_k and in its weights."""
        pending = [(tensor, scalars)]
        seen: set[str] = set()
        while pending:
            tensor, scalars = pending.pop()
            op = tensor.op
            if tensor.name in seen or not self._is_recorded(tensor):
                continue
            seen.add(tensor.name)
            if tensor.shape.rank != 0:
                yield self._elements(tensor, scalars)
                continue
            moving, fixed = self._inputs(op)
            if op.type in _REDUCTIONS:
                pending.append((op.inputs[0], scalars.averaged(op)))
            elif op.type in _PRODUCTS:
                pending += [(t, scalars.times(*fixed)) for t in moving]
            elif op.type in _QUOTIENTS and self._is_recorded(op.inputs[0]):
                pending += [(op.inputs[0], scalars.over(*(t for t in fixed)))]
            else:
                pending += [(t, scalars) for t in moving]

    def _elements(self, tensor: tf.Tensor, scalars: _Scalars) -> tuple[tf.Tensor, _Scalars]:
        """What is reduced first on the way to `tensor`, and the scalars among its weights."""
        reduced = tensor
        while self._is_recorded(tensor):
            op = tensor.op
            moving, fixed = self._inputs(op)
            if op.type in _REDUCTIONS:
                tensor = reduced = op.inputs[0]
                scalars = scalars.averaged(op)
            elif op.type == "MatMul" and tensor.shape.num_elements() == 1:
                return op.inputs[0], scalars
            elif op.type in _MOVES:
                tensor = op.inputs[0]
            elif op.type in _PRODUCTS and len(moving) == 1:
                (tensor,) = moving
                scalars = scalars.times(*(s for t in fixed for s in _scalars_of(t)))
            elif op.type in _QUOTIENTS and len(moving) == 1 and moving[0] is op.inputs[0]:
                (tensor,) = moving
                scalars = scalars.over(*(t for t in fixed if t.shape.rank == 0))
            else:
                break
        return reduced, scalars

    def taken(self, tensor: tf.Tensor) -> list[tf.Tensor]:
        """Tensors, not scalars, that are not made of weights and that `tensor` is made of."""
        found: dict[str, tf.Tensor] = {}
        pending, seen = [tensor], {tensor.name}
        while pending:
            op = pending.pop().op
            for t in op.inputs:
                if t.name in seen or t.name in self._handles:
                    continue
                seen.add(t.name)
                if self._is_recorded(t):
                    pending.append(t)
                elif t.shape.rank != 0 and t.dtype not in (tf.resource, tf.variant):
                    found[t.name] = t
        return list(found.values())

    def _is_recorded(self, tensor: tf.Tensor) -> bool:
        return tensor.op.name in self._recorded

    def _inputs(self, op: tf.Operation) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Those that are made of weights, and the others."""
        moving = [t for t in op.inputs if self._is_recorded(t)]
        return moving, [t for t in op.inputs if not self._is_recorded(t)]


def _scalars_of(weights: tf.Tensor) -> Iterator[tf.Tensor]:
    """Scalars that a tensor of weights is multiplied by, as Keras does with a mask's."""
    if weights.shape.rank == 0:
        yield weights
        return
    op = weights.op
    if op.type in _PRODUCTS or op.type in _CHOICES:
        others = op.inputs[1:] if op.type in _CHOICES else op.inputs
        for tensor in others:
            if not (op.type in _CHOICES and tensor.op.type == "Const"):
                yield from _scalars_of(tensor)
    elif op.type in _MOVES:
        yield from _scalars_of(op.inputs[0])


class _Sources:
    """Where the values of tensors come from.

    "data" are arguments of the graph and what it has captured, "variable" is a variable, "random"
    any other operation with a state, "constant" an array of floating numbers, "shape" the
    shape of a tensor. Numbers that were written out come from nowhere.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def of(self, tensor: tf.Tensor) -> set[str]:
        """The sources of `tensor`."""
        pending = [tensor.op]
        while pending:
            op = pending[-1]
            if op.name in self._known:
                pending.pop()
                continue
            found = _own_source(op)
            before = [] if found is not None else [t.op for t in op.inputs]
            waiting = [other for other in before if other.name not in self._known]
            if waiting:
                pending.extend(waiting)
                continue
            pending.pop()
            of_inputs = [self._known[other.name] for other in before]
            self._known[op.name] = set().union(*of_inputs) if found is None else found
        return self._known[tensor.op.name]


def _own_source(op: tf.Operation) -> set[str] | None:
    """The source that an operation is; None if its inputs say."""
    if op.type in VALUE_INDEPENDENT:
        return {"shape"}
    if op.type == "Const":
        tensor = op.outputs[0]
        return {"constant"} if tensor.dtype.is_floating and tensor.shape.rank != 0 else set()
    if op.type in READS:
        return {"variable"}
    if op.type in ARGUMENTS:
        return {"data"}
    if op.op_def.is_stateful:
        return {"random"}
    return None if op.inputs else set()
