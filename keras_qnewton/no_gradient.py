"""Weights that never had a gradient, said once: nothing else would say that they stand still.

A gradient of exactly zero is no error: dead and saturated units, a clip, a mask of zeros and layers
that all begin at zero make one, and a step of it is taken and changes nothing. A minimum makes one,
too. So it is told of

    never     weights whose gradient was zero in every step from the first one on, where they are
              several or the loss fell without them; of all weights, where curvature is zero, too
    lately    several weights, and not all, whose gradient has become zero, as of units that died
    no more   all weights, whose gradient and curvature have become zero

where a loss is not zero, and for the latter two not low, after as many steps as are a run of
refused ones, or up to twice as many. It is said by a
warning where `fit` or an eager `minimize` ends. Elsewhere what is never there is said on stderr,
after the first of these steps, and what is no more is not said.

Each row of the log has 32 bits, one for each of up to 30 groups of its block's weights, one after
the other, `_ANEW` and `_NOTHING`. A group's bit is set as long as no step has had a gradient in it.
Once all are cleared, little is left to do: one step of `RUN` looks anew, and sets the bits of what
has no gradient in it. `_ANEW` stays where one was set so: its weights had a gradient before.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.decision_log import CAPACITY, FIELDS, DecisionLog, marks_in
from keras_qnewton.refusals import RUN
from keras_qnewton.step import Step

_GROUPS = 30
_ANEW = 1 << _GROUPS
# Neither gradient nor curvature in this step; where curvature is learned, no gradient in any.
_NOTHING = 2 << _GROUPS
# So few weights may have a gradient of exactly zero by chance, at a minimum where nothing moves.
_SEVERAL = 4
# By this share a loss falls visibly, and to this share of the largest one it is low.
_VISIBLE, _LOW = 1e-3, 1e-3
# Weights that are named, the others are counted.
_NAMED = 12

_NEVER = "The gradient has been exactly zero in every step so far, in all of these weights: "
_LATELY = f"The gradient has been exactly zero in the last {RUN} steps, in all of these weights: "
_NO_MORE = "Gradient and curvature have become exactly zero in all weights"
_WHY = (
    "QNewton leaves such weights where they are. If that is no minimum, units may be dead (ReLUs "
    "whose input is negative for all examples) or saturated (sigmoid, tanh, softmax, a clip); a "
    "mask or the sample weights may be zero; layers that follow each other may all begin at zero; "
    "something may be rounded on the way to the loss. Try other initial weights, scaled inputs, "
    "`leaky_relu`, a loss of logits (`from_logits=True`), or float64."
)


class _Group(NamedTuple):
    """Weights of a block, one after the other.

    Attributes:
        block: Number of the block.
        bit: Of the block's marks, 2^k.
        end: How many numbers of the block's vector are before it, or in it.
        size: How many are in it.
        names: The weights' names.
    """

    block: int
    bit: int
    end: int
    size: int
    names: list[str]


class _Found(NamedTuple):
    """What the log tells, boolean; scalars but for the first.

    Attributes:
        flags: Which groups have had no gradient of late, `[G]`.
        never: Whether it is to be told that they never had one.
        lately: Whether it is to be told that they have none any more, and others do.
        no_more: Whether it is to be told that there is no gradient any more.
    """

    flags: tf.Tensor
    never: tf.Tensor
    lately: tf.Tensor
    no_more: tf.Tensor


class NoGradient:
    """Tells of an optimizer's weights without a gradient, once.

    Args:
        log: The optimizer's.
    """

    def __init__(self, log: DecisionLog):
        self._log, self._told = log, False
        self._groups: list[_Group] = []

    def marks(
        self, step: Step, parts: Sequence[Part], weights: Sequence[tuple[str, int]]
    ) -> tf.Tensor:
        """What the log is to keep of a step's gradient, int64 `[K]`.

        Args:
            step: The step, which is not in the log yet.
            parts: Its blocks.
            weights: Each weight's name and how many numbers it is.
        """
        self._groups = groups = _groups_of(parts, weights)
        ends = [[g.end for g in groups if g.block == k] for k in range(len(parts))]
        before = self._log.last_marks(parts)
        loss, after = (tf.cast(t, tf.float64) for t in (step.loss, step.trial.loss_after))
        stands = tf.reduce_any(before != 0) | tf.equal(loss, after)
        anew = tf.equal(tf.convert_to_tensor(self._log.count) % (RUN * len(parts)), 0)

        def found() -> tf.Tensor:
            zeros = [
                _are_zero(g, of_block) for g, of_block in zip(step.gradient, ends, strict=True)
            ]
            bits = tf.stack([_bits(flags) for flags in zeros])
            whole = tf.reduce_all(tf.concat(zeros, 0))
            # All of them have none at a minimum, too.
            kept = tf.bitwise.bitwise_and(bits, before)
            never = tf.where(anew & ~whole, bits, kept)
            later = tf.reduce_any((never != kept) | (tf.bitwise.bitwise_and(before, _ANEW) != 0))
            # Before the first step all bits are set.
            sticks = later & (tf.convert_to_tensor(self._log.count) > 0)
            # λ is NaN where curvature is learned.
            never_any = tf.math.is_nan(step.trial.damping) & tf.reduce_all(tf.equal(never, bits))
            whole &= step.is_flat | never_any
            of_all = _NOTHING * tf.cast(whole, tf.int64) + _ANEW * tf.cast(sticks, tf.int64)
            return never + of_all

        return _tf_private.cond(stands | anew, found, lambda: tf.zeros_like(before))

    def warn(self, stacklevel: int) -> None:
        """Warns if there is something to tell, and nothing was told.

        Args:
            stacklevel: Of `warnings.warn`, as the caller would give it.
        """
        if self._told or not self._groups or not self._has_room() or self._all_have_moved():
            return
        found = self._found()
        if not (found.never or found.lately or found.no_more):
            return
        self._told = True
        flags = np.zeros_like(found.flags) if found.no_more else found.flags.numpy()
        names = [
            name for g, flag in zip(self._groups, flags, strict=True) if flag for name in g.names
        ]
        text = _text(_NEVER if found.never else _LATELY, names)
        warnings.warn(text, stacklevel=stacklevel + 1)

    def _all_have_moved(self) -> bool:
        """Whether the last step left no mark; an eager `minimize` asks after each."""
        places = len(self._log) - 1 - np.arange(self._groups[-1].block + 1)
        formations = self._log.buffer.numpy()[places % CAPACITY, FIELDS.index("formation")]
        return not np.any(formations % 1)

    def print_in_graph(self, marks: tf.Tensor) -> None:
        """Prints to stderr, in the graph, at the last of the first `RUN` steps.

        What happens later is told by `warn` alone: to look at each step takes many operations.

        Args:
            marks: Of the step that was just logged; see `marks`.
        """
        if not self._has_room():
            return
        count, blocks = self._log.count, marks.shape[0]

        def look() -> tf.Tensor:
            losses = self._log.buffer.value[: RUN * blocks : blocks, FIELDS.index("loss")]
            flags = self._flags(marks)
            never = self._never(flags, marks, losses[0], losses[RUN - 1])
            never &= tf.reduce_all(losses != 0)
            return _tf_private.cond(never, lambda: tell(flags), lambda: tf.constant(False))

        def tell(flags: tf.Tensor) -> tf.Tensor:
            texts = tf.constant([", ".join(map(repr, g.names)) for g in self._groups])
            names = tf.strings.reduce_join(tf.boolean_mask(texts, flags), separator=", ")
            text = _NEVER + names + ". " + _WHY
            with tf.control_dependencies([tf.print(text, output_stream=sys.stderr)]):
                return tf.constant(True)

        now = tf.equal(count.value, RUN * blocks) & tf.reduce_any(marks != 0)
        _tf_private.cond(now, look, lambda: tf.constant(False))

    def _has_room(self) -> bool:
        """Whether the log holds as many steps as are looked at."""
        return RUN * (self._groups[-1].block + 1) <= CAPACITY

    def _flags(self, marks: tf.Tensor) -> tf.Tensor:
        """Which groups' bits are set, `[..., G]`, of marks `[..., K]`."""
        bits = tf.constant([g.bit for g in self._groups], tf.int64)
        of_block = tf.gather(marks, [g.block for g in self._groups], axis=-1)
        return tf.bitwise.bitwise_and(of_block, bits) != 0

    def _are_several(self, flags: tf.Tensor) -> tf.Tensor:
        """Whether these groups have several numbers."""
        sizes = tf.constant([g.size for g in self._groups], tf.int64)
        return tf.reduce_sum(tf.where(flags, sizes, 0)) >= _SEVERAL

    def _never(
        self, flags: tf.Tensor, marks: tf.Tensor, first: tf.Tensor, last: tf.Tensor
    ) -> tf.Tensor:
        """Whether it is to be told that these groups never had a gradient.

        Args:
            flags: The groups, `[G]`.
            marks: The last step's, int64 `[K]`.
            first: The first step's loss, or the oldest that is known.
            last: The last step's.
        """
        fell = first - last > _VISIBLE * tf.abs(first)
        some = tf.reduce_any(flags) & (fell | self._are_several(flags))
        return tf.where(tf.reduce_all(flags), _are_nothing(marks), some)

    def _found(self) -> _Found:
        """What the log tells after a step; eagerly."""
        rows, there = self._last_rows()
        losses, marks = rows[:, 0, FIELDS.index("loss")], marks_in(rows)
        unmoved, known = self._flags(marks), tf.boolean_mask(losses, there)
        run = tf.reduce_all(there[:RUN] & (losses[:RUN] != 0))
        high = tf.abs(losses[0]) > _LOW * tf.reduce_max(tf.abs(known))
        ever = tf.reduce_all(unmoved | ~there[:, None], 0)
        never = run & self._never(ever, marks[0], known[-1], losses[0])
        never &= tf.reduce_all(tf.equal(tf.bitwise.bitwise_and(marks[0], _ANEW), 0))
        lately = tf.reduce_all(unmoved[:RUN], 0)
        died = self._are_several(lately) & ~tf.reduce_all(lately)
        no_more = tf.reduce_all(_are_nothing(marks[:RUN]))
        others = run & high & ~never
        return _Found(tf.where(never, ever, lately), never, others & died, others & no_more)

    def _last_rows(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The last steps' rows `[S, K, width]`, last first, and whether they are any."""
        blocks = self._groups[-1].block + 1
        at = tf.convert_to_tensor(self._log.count.value)
        at -= blocks * tf.range(1, CAPACITY // blocks + 1, dtype=at.dtype)
        places = at[:, None] + tf.range(blocks, dtype=at.dtype)
        return tf.gather(self._log.buffer.value, tf.cast(places % CAPACITY, tf.int32)), at >= 0


def _are_nothing(marks: tf.Tensor) -> tf.Tensor:
    """Whether all blocks of a step have neither gradient nor curvature, of marks `[..., K]`."""
    return tf.reduce_all(tf.bitwise.bitwise_and(marks, _NOTHING) != 0, -1)


def _groups_of(parts: Sequence[Part], weights: Sequence[tuple[str, int]]) -> list[_Group]:
    """All blocks' groups that have numbers."""
    found = []
    for k, part in enumerate(parts):
        indices = [i for i in part.indices if weights[i][1]] or part.indices
        count, end = math.ceil(len(indices) / _GROUPS), 0
        for bit in range(math.ceil(len(indices) / count)):
            inside = [weights[i] for i in indices[bit * count : (bit + 1) * count]]
            size = sum(n for _, n in inside)
            end += size
            found.append(_Group(k, 1 << bit, end, size, [name for name, _ in inside]))
    return found


def _are_zero(gradient: tf.Tensor, ends: Sequence[int]) -> tf.Tensor:
    """Whether the numbers up to each end are zero, from the end before, boolean `[len(ends)]`."""
    seen = tf.cumsum(tf.cast(gradient != 0, tf.int32))
    so_far = tf.gather(tf.concat([[0], seen], 0), [0, *ends])
    return tf.equal(so_far[1:], so_far[:-1])


def _bits(flags: tf.Tensor) -> tf.Tensor:
    """Flags `[n]` as the bits of an int64 scalar, the first one lowest."""
    return tf.reduce_sum(
        tf.where(flags, tf.constant([1 << k for k in range(flags.shape[0])], tf.int64), 0)
    )


def _text(what: str, names: Sequence[str]) -> str:
    named = ", ".join(repr(name) for name in names[:_NAMED])
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what + named + more if names else _NO_MORE}. {_WHY}"
