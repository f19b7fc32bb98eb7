"""A run of steps that changed nothing, said once: who trains should hear that it stands still.

The log has it: of the last steps none was taken, and each would have raised the loss by more than
its rounding, or was not finite. Steps that are refused where the loss is as low as rounding lets it
be do not count, unless the learning rate has long been zero or negative: no step lowers it then.

`fit` tells when it ends, by a Python warning, and so does an eager `minimize`. Elsewhere nothing in
Python runs after a step: in `train_on_batch`, a loop of one's own or a graph with `minimize` an
operation prints to stderr, which is run in the rare case alone. XLA compiles no such operation, so
that none is there.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_qnewton import _tf_private, slow_steps
from keras_qnewton.decision_log import FIELDS, DecisionLog, StepColumns

# Refused steps in a row.
RUN = 10
# Rises of the loss by less than this share of the largest one in the log may be rounding.
_ROUNDING = 1e-5

_TEXT = (
    "QNewton refused {count} steps in a row, and the weights stood still. {why} See "
    "`optimizer.decisions`."
)
_RATE = (
    "The last {count} of QNewton's steps did not lower the loss, and the learning rate is "
    "{rate:.3g} now. Newton's own is 1.0. Look at the schedule, or at what assigned "
    "`optimizer.learning_rate`."
)
_NOT_FINITE = (
    "The loss, or the step itself, was not finite at any damping that was tried. Numbers overflow: "
    "scale the data or the loss, or train in float64; look for functions without a finite "
    "derivative, and for a learning rate that is none."
)
_RISES = (
    "The loss rose at every damping that was tried, however short the step. Is the learning rate "
    "negative? Does a custom gradient belong to another function? Does the loss jump, or draw "
    "random numbers anew? Else try `damping=Adaptive(initial=1.0, retries=10)`, a smaller learning "
    "rate, or float64."
)


class Refusals:
    """Tells of an optimizer's refused steps, once.

    Args:
        log: The optimizer's.
    """

    def __init__(self, log: DecisionLog):
        self._log, self._told, self._told_slow = log, False, False

    def warn(self, stacklevel: int, rate: Callable[[int], float]) -> None:
        """Warns if the log has a run of refused steps, or of slow ones; of each kind once.

        Args:
            stacklevel: Of `warnings.warn`, as the caller would give it.
            rate: The learning rate of so many steps ago; asked where steps have changed nothing.
        """
        if self._told:
            return
        steps = self._log.steps()
        run, last = _longest(_stuck(steps))
        if run < RUN:
            # A schedule that has just ended at zero has nothing to do with steps before.
            if _stands(steps) and rate(0) <= 0 and rate(RUN) <= 0:
                self._told = True
                text = _RATE.format(count=RUN, rate=rate(0))
                warnings.warn(text, stacklevel=stacklevel + 1)
                return
            slow = None if self._told_slow else slow_steps.told_of(steps)
            if slow is not None:
                self._told_slow = True
                warnings.warn(slow, stacklevel=stacklevel + 1)
            return
        self._told = True
        finite = np.isfinite(steps.loss_after[last + 1 - run : last + 1]).all()
        why = _RISES if finite else _NOT_FINITE
        numbers = (
            f"Last, at step {steps.step[last]:.0f}: loss {steps.loss[last]:.4g}, after the step "
            f"{steps.loss_after[last]:.4g}, λ = {steps.damping[last]:.3g}."
        )
        warnings.warn(_TEXT.format(count=run, why=f"{why} {numbers}"), stacklevel=stacklevel + 1)

    def print_in_graph(self, accepted: tf.Tensor, blocks: int) -> None:
        """Prints to stderr, in the graph, at the last of `RUN` refused steps.

        Args:
            accepted: Whether the step that was just logged was taken, boolean scalar.
            blocks: Rows of a step in the log.
        """
        buffer, count = self._log.buffer, self._log.count
        if (RUN + 1) * blocks > buffer.shape[0]:
            return

        def look() -> tf.Tensor:
            at = tf.convert_to_tensor(count.value) - 1
            at -= blocks * tf.range(RUN + 1, dtype=at.dtype)
            last = tf.gather(buffer.value, tf.cast(at % buffer.shape[0], tf.int32))
            loss, after, taken = (
                last[:, FIELDS.index(name)] for name in ("loss", "loss_after", "accepted")
            )
            rises = after - loss > _ROUNDING * tf.reduce_max(tf.abs(loss))
            finite = tf.math.is_finite(after)
            stuck = (at >= 0) & (taken <= 0) & (rises | ~finite)
            exactly = tf.reduce_all(stuck[:RUN]) & ~stuck[RUN]
            all_finite = tf.reduce_all(finite[:RUN])
            return _tf_private.cond(exactly, lambda: tell(all_finite), lambda: tf.constant(False))

        def tell(finite: tf.Tensor) -> tf.Tensor:
            texts = [_TEXT.format(count=RUN, why=why) for why in (_NOT_FINITE, _RISES)]
            text = tf.gather(texts, tf.cast(finite, tf.int32))
            with tf.control_dependencies([tf.print(text, output_stream=sys.stderr)]):
                return tf.constant(True)

        _tf_private.cond(accepted, lambda: tf.constant(False), look)


def _stuck(steps: StepColumns) -> np.ndarray:
    """Which steps were refused beyond rounding, bool `[S]`."""
    known = np.abs(steps.loss[np.isfinite(steps.loss)])
    largest = known.max() if known.size else 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        rises = steps.loss_after - steps.loss > _ROUNDING * largest
    stuck: np.ndarray = (steps.accepted <= 0) & (rises | ~np.isfinite(steps.loss_after))
    return stuck


def _stands(steps: StepColumns) -> bool:
    """Whether none of the last steps lowered the loss."""
    last = slice(-RUN, None)
    lower = (steps.accepted[last] > 0) & (steps.loss_after[last] < steps.loss[last])
    return len(lower) == RUN and not lower.any()


def _longest(flags: np.ndarray) -> tuple[int, int]:
    """The length of the longest run of True, and its last place."""
    longest, last, run = 0, -1, 0
    for place, flag in enumerate(flags.tolist()):
        run = run + 1 if flag else 0
        if run > longest:
            longest, last = run, place
    return longest, last
