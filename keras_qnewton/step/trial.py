"""A step on trial: attempted at growing λ until it suffices, refused, or made longer.

refused     the step is not finite, or raises this batch's loss        `judged`
λ raised    ρ is below the policy's sufficient ratio                   `first_sufficient`
doubled     ρ is above its promising ratio, and the loss still falls   `lengthened`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton import _tf_private
from keras_qnewton.conditioning.damping import Damping
from keras_qnewton.directions import BlockStep
from keras_qnewton.step.batch import Batch
from keras_qnewton.step.quadratic_model import QuadraticModel, scaled
from keras_qnewton.step.rounding import ROUNDING
from keras_qnewton.step.trust_ratio import ratio_of_losses, trust_ratio


class Trial(NamedTuple):
    """One attempt at a step, and what came of it.

    Attributes:
        blocks: One `BlockStep` a block.
        damping: λ, float64 scalar.
        length: Step length, as a multiple of the directions x, float64 scalar.
        loss_after: L(w + d), scalar.
        ratio: ρ, float64 scalar; NaN where the loss's rounding hides the reduction.
        accepted: Whether the step is to be taken, boolean scalar.
    """

    blocks: list[BlockStep]
    damping: tf.Tensor
    length: tf.Tensor
    loss_after: tf.Tensor
    ratio: tf.Tensor
    accepted: tf.Tensor

    @classmethod
    def before_any(cls, blocks: list[BlockStep], damping: tf.Tensor, before: tf.Tensor) -> Trial:
        """The trial before the first attempt, which will be at `damping`."""
        zero = tf.constant(0.0, tf.float64)
        return cls(blocks, damping, zero, tf.zeros_like(before), zero, tf.constant(False))

    def accepted_directions(self) -> list[tf.Tensor]:
        """x, one `[N_k]` a block; zeros if the step is refused."""
        return [tf.where(self.accepted, b.x, tf.zeros_like(b.x)) for b in self.blocks]


def judged(
    model: QuadraticModel,
    blocks: list[BlockStep],
    damping: tf.Tensor,
    before: tf.Tensor,
    adaptive: bool,
) -> Trial:
    """The step of the blocks' solutions, cut back, with its ratio, accepted or refused.

    Args:
        model: Of the loss at the weights.
        blocks: The blocks' directions at λ, divided by m.
        damping: λ, float64 scalar.
        before: L(w), scalar.
        adaptive: Whether λ adapts, so that what raises the loss is refused.
    """
    directions = [b.x for b in blocks]
    plan = model.plan(directions)
    if adaptive and len(blocks) > 1:
        plan = model.cut_back(plan, directions, damping)
    after = model.batch.loss_after(plan.step)
    reduction = tf.cast(before, tf.float64) - tf.cast(after, tf.float64)
    accepted = tf.reduce_all([tf.reduce_all(tf.math.is_finite(d)) for d in plan.flat])
    accepted &= tf.math.is_finite(after)
    if adaptive:
        ratio = trust_ratio(model, plan, before, reduction)
        accepted &= reduction >= 0
    else:
        ratio = ratio_of_losses(plan, before, reduction)
    return Trial(blocks, damping, plan.length, after, ratio, accepted)


def first_sufficient(
    attempt: Callable[[tf.Tensor, Trial], Trial], start: Trial, policy: Damping
) -> tuple[Trial, tf.Tensor]:
    """The first attempt that suffices, each at a larger λ on the same curvature, or the last; and
    how many were made, int32 scalar.

    Args:
        attempt: Makes one at λ, after another one.
        start: From `Trial.before_any`. The first attempt is the loop's first pass, so that its
            operations are built once.
        policy: Says what suffices, how λ grows, and how often.
    """

    def unsatisfied(tries: tf.Tensor, trial: Trial) -> tf.Tensor:
        poor = trial.ratio < policy.sufficient_ratio  # False for NaN
        poor |= ~trial.accepted & ~tf.math.is_nan(trial.ratio)
        return (tries == 0) | (poor & (tries <= policy.retries))

    def again(tries: tf.Tensor, trial: Trial) -> tuple[tf.Tensor, Trial]:
        damping = tf.where(tries == 0, trial.damping, policy.raised(trial.damping))
        return tries + 1, attempt(damping, trial)

    start_at = tf.constant(0), start
    tries, trial = _tf_private.while_loop(unsatisfied, again, start_at, parallel_iterations=1)
    return trial, tries


def lengthened(
    trial: Trial,
    batch: Batch,
    taken: Sequence[tf.Tensor],
    before: tf.Tensor,
    may_try: tf.Tensor,
    policy: Damping,
) -> tuple[Trial, tf.Tensor]:
    """`trial` at a longer step if that lowers the loss, and how many times as long.

    Where a loss falls faster than its quadratic model, as towards a minimum at infinity (a
    cross-entropy once all labels are right), Newton's step is too short. Doubling it at once
    costs a loss, not a Hessian (Dennis & Schnabel 1983, section 6.4.3).

    Args:
        trial: At length t.
        batch: Its loss and update.
        taken: Its directions times t, one tensor a weight.
        before: L(w), scalar.
        may_try: Whether the data are those of the last step, boolean scalar.
        policy: Says what is promising, and how many doublings are tried at most.
    """
    one = tf.constant(1.0, tf.float64)
    if not policy.doublings:
        return trial, one

    def double(
        factor: tf.Tensor, lowest: tf.Tensor, going: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        del going
        after = batch.loss_after(batch.update(scaled(taken, 2 * factor)))
        # Beyond rounding; NaN is not lower.
        lower = lowest - after > ROUNDING[before.dtype] * tf.abs(before)
        return tf.where(lower, 2 * factor, factor), tf.where(lower, after, lowest), lower

    promising = trial.accepted & may_try & (trial.ratio >= policy.promising_ratio)
    factor, after, _ = _tf_private.while_loop(
        lambda factor, lowest, going: going,
        double,
        (one, trial.loss_after, promising),
        parallel_iterations=1,
        maximum_iterations=policy.doublings,
    )
    return trial._replace(length=trial.length * factor, loss_after=after), factor
