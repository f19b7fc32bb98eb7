"""The Newton step.

    L(w)         loss of the batch at the weights w                scalar
    m            number of full batches that are averaged; 1 if    scalar
                 the data are those of the last step
    n/N          what the batch weighs of a full one; 1 if the     scalar
                 data are those of the last step
    H_k, g_k     blocks of the curvature and of the gradient       [N_k, N_k], [N_k]
    λ            damping: how far curvature is not trusted         scalar
    D            λD² is added; 1, or of the diagonal of H_k        [N_k]
    x_k          direction of a block at λ, times (n/N) / m        [N_k]
    d            step that would be taken: -(learning rate) t x    one tensor a weight
    q(d)         quadratic model, g.d + d.H d / 2, with the        scalar
                 whole curvature H
    t            length of the lowest q(d) + λ Dd.Dd / 2, ≤ 1       scalar
    ρ            trust ratio (L(w) - L(w + d)) / -q(d)             scalar

With λ that adapts, no step is accepted that raises this batch's loss. One with a poor ρ is tried
again at a larger λ on the same curvature. One with a high ρ is doubled while that lowers the loss,
if the data are those of the last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import Damping
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.directions import unknown
from keras_qnewton.settings import Settings
from keras_qnewton.state import Both, Here, Memory, NewtonState
from keras_qnewton.step.batch import Batch, batches_to_average, value_and_gradient
from keras_qnewton.step.checks import checked_loss, sound
from keras_qnewton.step.quadratic_model import QuadraticModel, scaled
from keras_qnewton.step.system import System, remembered
from keras_qnewton.step.trial import Trial, first_sufficient, judged, lengthened


class Step(NamedTuple):
    """A Newton step that was found, not yet taken.

    Attributes:
        directions: x times the step length, one tensor a weight; zeros if the step was refused.
        trial: The last attempt, at the step's length; its ratio is at length t.
        formations: How each block's matrix came about, a `Formation`, int32 scalars.
        loss: L(w), scalar.
        gradient: g at w, one `[N_k]` a block; of a quasi-Newton step where that ends.
        is_flat: Whether there is neither gradient nor curvature, boolean scalar; False where
            curvature is not known.
        memory: For the next step; a `Here` of a quasi-Newton one, `Both` where either may follow.
        attempts: How many were made, int32 scalar; None of a quasi-Newton step.
        full: N for the next step, float64 scalar; None if batches are not weighed.
    """

    directions: list[tf.Tensor]
    trial: Trial
    formations: list[tf.Tensor]
    loss: tf.Tensor
    gradient: list[tf.Tensor]
    is_flat: tf.Tensor
    memory: Memory | Here | Both
    attempts: tf.Tensor | None = None
    full: tf.Tensor | None = None


def newton_step(batch: Batch, settings: Settings, state: NewtonState) -> Step:
    """One Newton step of `batch`; it assigns no weight, and no variable but kept blocks.

    Args:
        batch: The loss, the weights, and the update that the optimizer makes of directions.
        settings: The policies.
        state: The last step's values, and the blocks that are kept.

    Raises:
        tf.errors.InvalidArgumentError: If the loss, its gradient or a block has NaN or Inf.
    """
    policy = settings.damping
    curvature = batch.linearized(settings.curvature)
    value, flat = value_and_gradient(batch, curvature)
    loss, flat = checked_loss(value, flat, _sound(batch, curvature))
    gradient = curvature.sharpened(flat)
    last = state.memory(loss.dtype)
    share = batches_to_average(batch, curvature, loss, last, state.foreseen(), policy)
    noisy = share.count > 1  # the data are others than the last step's
    same_data = (last.damping > 0) & ~noisy  # unknown before the second step

    rescaled = _rescaled(settings, batch.parts, last.rescaled & same_data)
    system = System.of(batch, curvature, gradient, loss, share, rescaled, settings, state)
    scale = system.scale(loss)
    # `tf.where` would wait for the eigenvalue, and so would a branch that is a function.
    first_damping = tf.cond(
        same_data, lambda: last.damping, lambda: policy.start(scale.whole) / share.count
    )

    model = QuadraticModel(batch, system, curvature.value_error())

    def attempt(damping: tf.Tensor, before: Trial) -> Trial:
        blocks = system.solve(scale.of_blocks(damping), before.blocks)
        return judged(model, blocks, damping, loss, policy.adaptive)

    blank = [unknown(part.size, curvature.dtype, settings.scheduler) for part in batch.parts]
    blank = remembered(blank, batch.parts, last.lengths)
    trial, attempts = first_sufficient(
        attempt, Trial.before_any(blank, first_damping, loss), policy
    )
    trial = trial._replace(blocks=system.noted(trial.blocks, scale.of_blocks(trial.damping)))
    taken = curvature.unflatten(scaled(trial.accepted_directions(), trial.length))
    trial, longer_by = lengthened(trial, batch, taken, loss, same_data, policy)
    next_damping, next_rescaled = _following(policy, trial, longer_by, scale.whole, system)
    next_damping, next_rescaled = batch.agreed(next_damping, next_rescaled)
    known = tf.math.is_finite(loss) & tf.math.is_finite(scale.whole)
    # Where data change λ starts anew in each step, and what is kept says no more than that it was.
    next_damping = tf.where(noisy, trial.damping, next_damping)
    return Step(
        directions=scaled(taken, longer_by),
        trial=trial,
        formations=system.formations,
        loss=loss,
        gradient=flat,
        is_flat=tf.equal(scale.whole, 0.0),
        memory=Memory(
            damping=tf.where(known, next_damping, last.damping),
            count=share.count,
            loss=loss,
            weights=batch.weights,
            rescaled=tf.where(known, next_rescaled, last.rescaled) & ~noisy,
            forced=system.forced_after(trial.accepted, last.forced),
            lengths=system.lengths_after(trial.blocks, last.lengths),
        ),
        attempts=attempts,
        full=share.full,
    )


def _rescaled(
    settings: Settings, parts: Sequence[Part], since_stuck: tf.Tensor
) -> tf.Tensor | bool:
    """Whether weights are rescaled in this step; False if they never are."""
    # One λ is for all blocks: in rescaled weights it has no unit, so that all are, or none.
    if not settings.rescales or not all(part.dense for part in parts):
        return False
    return tf.constant(True) if settings.damping.scaling == "diagonal" else since_stuck


def _following(
    policy: Damping,
    trial: Trial,
    longer_by: tf.Tensor,
    scale: tf.Tensor,
    system: System,
) -> tuple[tf.Tensor, tf.Tensor]:
    """λ for the next step, and whether it is of rescaled weights.

    Args:
        policy: Adapts λ.
        trial: The step's last attempt, at the length `longer_by`.
        longer_by: How many times as long as the trial the step became, scalar; see `lengthened`.
        scale: The largest |eigenvalue|, float64 scalar.
        system: Says whether weights are rescaled in this step, and may be from the next one on.
    """
    damping = policy.update(trial.damping / longer_by, trial.ratio, trial.accepted, scale)
    rescaled = system.rescaled
    if rescaled is False:
        return damping, tf.constant(False)
    # Few rows leave directions without curvature, which no rescaling gives them.
    turned = ~rescaled & ~system.has_few_rows & policy.stuck(damping, trial.ratio, scale)
    # λ of rescaled weights has no unit.
    return tf.where(turned, damping / scale, damping), rescaled | turned


def _sound(batch: Batch, curvature: Linearized) -> tf.Tensor:
    return sound(batch, curvature.points, lambda: curvature.unflatten(curvature.points))
