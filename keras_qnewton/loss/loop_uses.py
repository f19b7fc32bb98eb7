"""Uses of weights in the body of a loop that stays a loop.

    z_t' = z_t + s_t,  z_t = f(a_t, W)      in turn t of T, of N rows
    S    [N·T, ...]     all s_t, zeros: the `outputs` of one `Use`, in which derivatives are taken
    A    [N·T, ...]     all a_t: its `inputs`

So the turns are positions of an example, as places are those of a convolution. s_t is taken off a
list that is a variable of the loop, and a_t is put on another. A list that shrinks by an element a
turn has a gradient that grows by one; reading S by an index would add up T tensors of its size.

How many uses there are, and of how many rows, is found out by a first turn of the body in line.
Nothing but shapes is taken from it, so that it runs only where these are not known before.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_qnewton.loss.recorded_loops import Count, Observer, Turn, Widened
from keras_qnewton.loss.uses import Use, Uses

# An operation of a body, and how often it has run in the same turn.
_Key = tuple[tf.Operation, int]
# Integers as wide as a number: no derivative is taken of a list of them.
_BITS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


class UsesInLoops:
    """Shows `Uses` what is run again, and has it see into loops; an observer of `fetch`.

    Args:
        uses: Gets the uses.
        watch: Has a tape record what depends on a tensor.
        other: Another observer, of what is run in line.
    """

    def __init__(self, uses: Uses, watch: Callable[[tf.Tensor], None], other: Observer):
        self._uses, self._watch, self._other = uses, watch, other
        self._turn: _Turn | None = None  # that is being traced

    def __call__(
        self, op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> Sequence[Any] | None:
        """Shows an operation; hands back its outputs with shifts, if it is in a loop."""
        if self._turn is not None:
            return self._turn.shown(op, inputs, outputs)
        self._uses(op, inputs, outputs)
        return self._other(op, inputs, outputs)

    def widened(self, turn: Turn, start: Sequence[tf.Tensor], times: int | Count) -> Widened | None:
        """A loop with lists of shifts and inputs among its variables; None for one in a loop."""
        if self._turn is not None:
            return None
        count = times() if callable(times) else times
        if count is None:
            return None
        taps = self._taps(turn, start, count)
        for tap in taps.values():
            self._watch(tap.shifts)
        own = len(start)

        def wide_turn(*state: tf.Tensor) -> list[tf.Tensor]:
            lists = iter(state[own:])
            ends = {key: _End(tap, next(lists), next(lists)) for key, tap in taps.items()}
            with self._traced(ends) as inside:
                after = turn(*state[:own])
            missing = [tap.use.variable for key, tap in taps.items() if not ends[key].taken]
            self._uses.others.update(missing, inside.uses.others)
            return [*after, *(t for end in ends.values() for t in (end.shifts, end.inputs))]

        def finish(end: Sequence[tf.Tensor]) -> None:
            for tap, inputs in zip(taps.values(), end[1::2], strict=True):
                self._uses.found.append(tap.stacked(inputs))

        return Widened(wide_turn, [t for tap in taps.values() for t in tap.start()], finish)

    def _taps(
        self, turn: Turn, start: Sequence[tf.Tensor], times: int | tf.Tensor
    ) -> dict[_Key, _Tap]:
        """One for each use in the first turn."""
        found: dict[_Key, Use] = {}

        def first() -> list[tf.Tensor]:
            with self._traced({}) as survey:
                after = turn(*start)
            found.update((k, use) for k, use in survey.found.items() if _can_be_stacked(use))
            keeps_shapes = tf.convert_to_tensor(_have_same_shapes(start, after))
            return [keeps_shapes, *(tf.shape(use.outputs)[0] for use in found.values())]

        def none() -> list[tf.Tensor]:
            return [tf.constant(True), *(tf.constant(0) for _ in found)]

        # A loop that makes no turn may have nothing to make one with.
        keeps_shapes, *rows = first() if isinstance(times, int) else tf.cond(times > 0, first, none)
        return {
            key: _Tap(use, times, n, keeps_shapes)
            for (key, use), n in zip(found.items(), rows, strict=True)
        }

    @contextlib.contextmanager
    def _traced(self, ends: Mapping[_Key, _End]) -> Iterator[_Turn]:
        self._turn = _Turn(self._uses.inside(), ends)
        try:
            yield self._turn
        finally:
            self._turn = None


class _Turn:
    """One turn of a body, while it is traced.

    Attributes:
        uses: Those of this turn.
        found: The same, by operation.
    """

    def __init__(self, uses: Uses, ends: Mapping[_Key, _End]):
        self._ends = ends
        self._runs: collections.Counter[tf.Operation] = collections.Counter()
        self.uses = uses
        self.found: dict[_Key, Use] = {}

    def shown(
        self, op: tf.Operation, inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> Sequence[Any]:
        """Shows an operation, and hands back its outputs, with a shift if it is a use."""
        before = len(self.uses.found)
        self.uses(op, inputs, outputs)
        key = (op, self._runs[op])
        self._runs[op] += 1
        for use in self.uses.found[before:]:
            self.found[key] = use
            if key in self._ends:
                return [self._ends[key].take(use)]
            self.uses.others.add(use.variable)
        return outputs


class _Tap:
    """What is taken out of a loop about one use in it.

    Args:
        use: As it was in the first turn, perhaps in another graph: what is known of its shapes.
        times: T.
        rows: N.
        keeps_shapes: Whether the next turn has tensors of the same shapes.

    Attributes:
        use: As given.
        shifts: S.
    """

    def __init__(self, use: Use, times: int | tf.Tensor, rows: tf.Tensor, keeps_shapes: tf.Tensor):
        self.use = use
        self._times, self._keeps_shapes = times, keeps_shapes
        known, *inner = use.outputs.shape
        # A single row can be added to any number of them.
        self._rows = tf.where(keeps_shapes, rows, 1) if known is None else known
        self.shifts = tf.zeros([self._rows * times, *inner], use.outputs.dtype)

    def start(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The lists of shifts and of inputs before the first turn."""
        by_turn = tf.reshape(self.shifts, [self._rows, self._times, *self.shifts.shape[1:]])
        shifts = tf.raw_ops.TensorListFromTensor(
            tensor=_first_two_exchanged(by_turn), element_shape=_sizes(self.use.outputs)
        )
        a = self.use.inputs
        inputs = tf.raw_ops.EmptyTensorList(
            element_shape=tf.constant([] if a is None else _sizes(a), tf.int32),
            max_num_elements=self._times,
            element_dtype=tf.int32 if a is None else _bits(a.dtype),
        )
        return shifts, inputs

    def stacked(self, inputs: tf.Tensor) -> Use:
        """The use of all turns; `inputs` is their list after the last."""
        a = self.use.inputs
        if a is not None:
            a = self._stacked_inputs(inputs, a)
        return self.use._replace(inputs=a, outputs=self.shifts, positions=True, added_to=None)

    def _stacked_inputs(self, inputs: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        rows, *inner = first.shape

        def stack() -> tf.Tensor:
            by_turn = tf.raw_ops.TensorListStack(
                input_handle=inputs,
                element_shape=_sizes(first),
                element_dtype=_bits(first.dtype),
                num_elements=self._times if isinstance(self._times, int) else -1,
            )
            # Shifts were taken from the end of their list.
            a = _first_two_exchanged(tf.reverse(by_turn, [0]))
            a = a if a.dtype == first.dtype else tf.bitcast(a, first.dtype)
            return tf.reshape(a, [self._rows * self._times, *inner])

        if rows is not None:
            return stack()
        blank = [self._rows * self._times, *inner]
        a = tf.cond(self._keeps_shapes, stack, lambda: tf.zeros(blank, first.dtype))
        return tf.ensure_shape(a, [None, *inner])


class _End:
    """The ends of a use's two lists in one turn.

    Attributes:
        shifts: The list of shifts that are still to be taken.
        inputs: The list of the inputs so far.
        taken: Whether this turn has taken its shift.
    """

    def __init__(self, tap: _Tap, shifts: tf.Tensor, inputs: tf.Tensor):
        self._first = tap.use
        self.shifts, self.inputs = shifts, inputs
        self.taken = False

    def take(self, use: Use) -> tf.Tensor:
        """z with its shift."""
        z, a = use.outputs, use.inputs
        if not _is_like(use, self._first):
            return z
        self.shifts, shift = tf.raw_ops.TensorListPopBack(
            input_handle=self.shifts,
            element_shape=_sizes(self._first.outputs),
            element_dtype=z.dtype,
        )
        if a is not None:
            self.inputs = tf.raw_ops.TensorListPushBack(
                input_handle=self.inputs,
                tensor=tf.bitcast(a, _bits(a.dtype)) if a.dtype.is_floating else a,
            )
        self.taken = True
        return z + shift


def _can_be_stacked(use: Use) -> bool:
    """Whether the inputs have the rows of z, of known size."""
    a, z = use.inputs, use.outputs
    if a is None:
        return z.shape[1:].is_fully_defined()
    sizes_known = a.shape[1:].is_fully_defined() and z.shape[1:].is_fully_defined()
    return use.equation.by_example and sizes_known


def _is_like(use: Use, first: Use) -> bool:
    """Whether a use in any turn can be stacked with that of the first, as far as is known.

    Rows whose number was not known in the first turn either may turn out to be more or fewer.
    """
    pairs = [(use.outputs, first.outputs)]
    if use.inputs is not None and first.inputs is not None:
        pairs.append((use.inputs, first.inputs))
    same_sizes = all(
        a.shape.rank == b.shape.rank
        and all(n == m for n, m in zip(_sizes(a), _sizes(b), strict=True))
        for a, b in pairs
    )
    return same_sizes and use.equation == first.equation


def _sizes(a: tf.Tensor) -> list[int]:
    """Lengths of the axes, -1 for one that is not known."""
    return [-1 if n is None else n for n in a.shape]


def _bits(dtype: tf.DType) -> tf.DType:
    """What numbers of that type are put on a list as."""
    return _BITS[dtype.size] if dtype.is_floating else dtype


def _first_two_exchanged(a: tf.Tensor) -> tf.Tensor:
    return tf.transpose(a, [1, 0, *range(2, a.shape.rank)])


def _have_same_shapes(some: Sequence[tf.Tensor], others: Sequence[tf.Tensor]) -> tf.Tensor | bool:
    """Whether tensors have the shapes of others, in their order; a bool if that is known."""
    checks = []
    for a, b in zip(some, others, strict=True):
        if a.dtype == tf.variant or (a.shape.is_fully_defined() and a.shape == b.shape):
            continue
        if a.shape.rank is None or a.shape.rank != b.shape.rank:
            return False
        checks.append(tf.reduce_all(tf.equal(tf.shape(a), tf.shape(b))))
    return tf.reduce_all(checks) if checks else True
