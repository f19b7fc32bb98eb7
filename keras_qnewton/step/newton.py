"""The Newton step.

    L(w)         loss of the batch at the weights w                scalar
    m            number of batches that are averaged; 1 if the     scalar
                 data are those of the last step
    H_k, g_k     blocks of the curvature and of the gradient       [N_k, N_k], [N_k]
    λ            damping: how far curvature is not trusted         scalar
    x_k          direction of a block at λ, divided by m           [N_k]
    d            step that would be taken: -(learning rate) t x    one tensor a weight
    q(d)         quadratic model, g.d + d.H d / 2, with the        scalar
                 whole curvature H
    t            length at which q(d) + λ d.d / 2 is lowest, ≤ 1   scalar
    ρ            trust ratio (L(w) - L(w + d)) / -q(d)             scalar

With λ that adapts, no step is accepted that raises this batch's loss. One with a poor ρ is tried
again at a larger λ on the same curvature. One with a high ρ is doubled while that lowers the loss,
if the data are those of the last step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import DampingScale
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.directions import BlockProblem, BlockStep, direction, max_rank, unknown
from keras_qnewton.settings import Settings
from keras_qnewton.state import Both, Here, Memory, NewtonState
from keras_qnewton.step.batch import Batch, batches_to_average, value_and_gradient
from keras_qnewton.step.checks import checked_loss, sound
from keras_qnewton.step.forming import Forming, formed_before_any_is_kept
from keras_qnewton.step.quadratic_model import QuadraticModel, scaled
from keras_qnewton.step.trial import Trial, first_sufficient, judged, lengthened


class Step(NamedTuple):
    """A Newton step that was found, not yet taken.

    Attributes:
        directions: x times the step length, one tensor a weight; zeros if the step was refused.
        trial: The last attempt, at the step's length; its ratio is at length t.
        formations: How each block's matrix came about, a `Formation`, int32 scalars.
        loss: L(w), scalar.
        memory: For the next step; a `Here` of a quasi-Newton one, `Both` where either may follow.
    """

    directions: list[tf.Tensor]
    trial: Trial
    formations: list[tf.Tensor]
    loss: tf.Tensor
    memory: Memory | Here | Both


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
    curvature = settings.curvature.at(batch.loss, batch.weights, batch.parts)
    value, flat = value_and_gradient(batch, curvature)
    loss, flat = checked_loss(value, flat, _sound(batch, curvature))
    gradient = curvature.sharpened(flat)
    last = state.memory(loss.dtype)
    count = batches_to_average(batch, curvature, loss, last, state.foreseen_loss(), policy)
    noisy = count > 1
    same_data = (last.damping > 0) & ~noisy  # unknown before the second step

    problems = _block_problems(batch.parts, curvature, gradient, loss, count, settings, state)
    methods = [direction(problem, settings) for problem in problems]
    prepared = [method.init(problem) for method, problem in zip(methods, problems, strict=True)]
    scale = DampingScale.of_curvature([p.scale for p in prepared])
    if policy.adaptive:
        scale = scale.or_of_gradient(gradient, curvature.points, loss, count)
    # `tf.where` would wait for the eigenvalue.
    first_damping = tf.cond(
        same_data, lambda: last.damping, lambda: policy.start(scale.whole) / count
    )

    def product(vectors: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        found = [
            method.product(problem, ready, vector)
            for method, problem, ready, vector in zip(
                methods, problems, prepared, vectors, strict=True
            )
        ]
        return _whole_product(curvature, vectors, found, count)

    model = QuadraticModel(batch, curvature, product, gradient, curvature.value_error())

    def attempt(damping: tf.Tensor) -> Trial:
        blocks = [
            _divided(method.solve(problem, ready, own_damping), count)
            for method, problem, ready, own_damping in zip(
                methods, problems, prepared, scale.of_blocks(damping), strict=True
            )
        ]
        return judged(model, blocks, damping, loss, policy.adaptive)

    blank = [unknown(part.size, curvature.dtype, settings.scheduler) for part in batch.parts]
    trial = first_sufficient(attempt, Trial.before_any(blank, first_damping, loss), policy)
    taken = curvature.unflatten(scaled(trial.accepted_directions(), trial.length))
    trial, longer_by = lengthened(trial, batch, taken, loss, same_data, policy)
    next_damping = policy.update(
        trial.damping / longer_by, trial.ratio, trial.accepted, scale.whole
    )
    known = tf.math.is_finite(loss) & tf.math.is_finite(scale.whole)
    next_damping = tf.where(noisy, trial.damping, next_damping)
    return Step(
        directions=scaled(taken, longer_by),
        trial=trial,
        formations=[p.formation for p in prepared],
        loss=loss,
        memory=Memory(
            damping=tf.where(known, next_damping, last.damping),
            count=count,
            loss=loss,
            weights=batch.weights,
        ),
    )


def _block_problems(
    parts: Sequence[Part],
    curvature: Linearized,
    gradient: Sequence[tf.Tensor],
    ready: tf.Tensor,
    count: tf.Tensor,
    settings: Settings,
    state: NewtonState,
) -> list[BlockProblem]:
    """Each block's system, formed when a direction asks for it."""
    # A block that is averaged over batches has too many rows; one that is not formed is not.
    rows = curvature.low_rank(
        [max_rank(part, settings) for part in parts],
        [count <= 1 if part.dense else True for part in parts],
    )
    blocks = [
        Forming(
            part=part,
            curvature=functools.partial(curvature.formed, k),
            kept=state.block(part),
            count=count,
            ready=ready,
            pruning=settings.pruning,
        )
        for k, part in enumerate(parts)
    ]
    forms = formed_before_any_is_kept(blocks, rows)
    problems = []
    for k, part in enumerate(parts):
        problem = BlockProblem(
            part=part,
            gradient=gradient[k],
            product=functools.partial(_block_product, curvature, k),
            form=forms[k],
            low_rank=rows[k],
            semidefinite=curvature.positive_semidefinite,
            kept=blocks[k].kept,
        )
        problems.append(problem)
    return problems


def _sound(batch: Batch, curvature: Linearized) -> tf.Tensor:
    return sound(batch, curvature.points, lambda: curvature.unflatten(curvature.points))


def _block_product(curvature: Linearized, k: int, vector: tf.Tensor) -> tf.Tensor:
    """H_k v; the curvature is asked only where it is wanted."""
    return curvature.block_product(k, vector)


def _whole_product(
    curvature: Linearized,
    vectors: Sequence[tf.Tensor],
    by_blocks: Sequence[tf.Tensor | None],
    count: tf.Tensor,
) -> Sequence[tf.Tensor]:
    """H v: by the matrix, where one block is all of it and this batch's alone."""
    (found, *others) = by_blocks
    if others or found is None:
        return curvature.product(vectors)
    return tf.cond(count > 1, lambda: curvature.product(vectors), lambda: [found])


def _divided(block: BlockStep, count: tf.Tensor) -> BlockStep:
    """The step of one of `count` batches that share the work."""
    return block._replace(x=block.x / tf.cast(count, block.x.dtype))
