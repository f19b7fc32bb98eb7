"""One Newton step.

    H_k, g_k     blocks of the curvature and of the gradient       [N_k, N_k], [N_k]
    x_k          direction at damping λ                            [N_k]
    d            the step that would be taken, -lr x               one tensor a weight
    m(d)         g.d + d.H d / 2, with the whole Hessian           scalar
    ρ            (L(w) - L(w + d)) / -m(d)                         scalar

No step is accepted that raises this batch's loss; one with a poor ρ is tried again at a
larger λ on the same curvature. Nothing is assigned here: the caller does, once all is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.directions import BlockStep, direction

# Relative error of a loss that is a mean of many terms, a few units in the last place.
_ROUNDING = {tf.bfloat16: 2.0**-6, tf.float16: 2.0**-9, tf.float32: 2.0**-21, tf.float64: 2.0**-50}


class Step(NamedTuple):
    """What a Newton step came to.

    Attributes:
        directions: x, one tensor a weight; zeros if the step was refused.
        blocks: One `BlockStep` a block, at the λ of the last attempt.
        loss: L(w), scalar.
        loss_after: L(w + d), scalar.
        ratio: ρ, float64 scalar; NaN where the loss's rounding hides the reduction.
        accepted: Boolean scalar.
        damping: λ of the last attempt, float64 scalar.
        next_damping: λ for the next step, float64 scalar.
    """

    directions: list[tf.Tensor]
    blocks: list[BlockStep]
    loss: tf.Tensor
    loss_after: tf.Tensor
    ratio: tf.Tensor
    accepted: tf.Tensor
    damping: tf.Tensor
    next_damping: tf.Tensor


def newton_step(
    loss: Any,
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    parts: Sequence[Any],
    *,
    curvature: Any,
    damping: Any,
    scheduler: Any,
    sparsity: int | float | None,
    seed: int = 0,
    last_damping: tf.Tensor,
    to_step: Callable[[list[tf.Tensor]], list[tf.Tensor]],
    keep: Callable[[int, Callable[[], tf.Tensor]], tf.Tensor] = lambda _, compute: compute(),
) -> Step:
    """The Newton step of `loss` at `weights`.

    Args:
        loss: Function of a list of tensors (`loss.RecordedLoss`).
        weights: One tensor a weight.
        gradients: The loss's gradient, one tensor a weight.
        parts: The blocks (`curvature.blocks.Part`).
        curvature: Policy with `at(loss, weights, parts)`.
        damping: Policy, see `conditioning.damping`.
        scheduler: Chooses among linear solvers.
        sparsity: See `directions.direction`.
        seed: See `directions.direction`.
        last_damping: λ as the last step left it, float64 scalar; not positive before the first.
        to_step: From the directions x to the step d that would be taken (learning rate,
            clipping), one tensor a weight each.
        keep: Called with a block's number and a function that computes its matrix; may return
            an earlier one.
    """
    at = curvature.at(loss, weights, parts)
    before = _finite(loss.value, "The loss")
    gradient = [_finite(g, "The gradient of the loss") for g in at.flatten(gradients)]

    def block(k: int, part: Any) -> tf.Tensor | None:
        if not part.dense:
            return None
        matrix = keep(k, lambda: at.block(k))
        return _finite(matrix, f"The Hessian block {part.name!r}")

    directions = [
        direction(at, k, part, block(k, part), gradient[k], damping, scheduler, sparsity, seed)
        for k, part in enumerate(parts)
    ]
    scale = tf.reduce_max(tf.stack([way.scale for way in directions]))
    first = tf.where(last_damping > 0, last_damping, damping.start(scale))

    def attempt(strength: tf.Tensor) -> tuple[Any, ...]:
        blocks = [way.solve(strength) for way in directions]
        step = to_step(at.unflatten([b.x for b in blocks]))
        d = at.flatten(step)
        model = _dot(gradient, d) + _dot(d, at.product(d)) / 2
        after = loss([w + s for w, s in zip(weights, step, strict=True)])
        reduction = tf.cast(before, tf.float64) - tf.cast(after, tf.float64)
        # Near a minimum the loss's rounding hides what a step does: no ratio, no reason to
        # change λ. Otherwise λ would run away on a converged model.
        hidden = tf.abs(model) <= _ROUNDING[before.dtype] * tf.abs(tf.cast(before, tf.float64))
        ratio = tf.where(model < 0, reduction / -model, -tf.ones_like(model))
        ratio = tf.where(hidden, tf.constant(float("nan"), tf.float64), ratio)
        sound = tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in d])
        sound &= tf.math.is_finite(after)
        accepted = sound & (reduction >= 0) if damping.adaptive else sound
        return blocks, after, ratio, accepted

    # The first attempt is the loop's first pass, so that its operations are built once.
    def unsatisfied(tries: tf.Tensor, strength: Any, result: Any) -> tf.Tensor:
        del strength
        _, _, ratio, accepted = result
        poor = ratio < damping.sufficient_ratio  # False for NaN
        poor |= ~accepted & ~tf.math.is_nan(ratio)
        return (tries == 0) | (poor & (tries <= damping.retries))

    def again(tries: tf.Tensor, strength: tf.Tensor, result: Any) -> tuple[Any, ...]:
        del result
        strength = tf.where(tries == 0, strength, damping.raised(strength))
        return tries + 1, strength, attempt(strength)

    nothing = tf.constant(0.0, tf.float64)
    blank = (
        [_blank(part, at.dtype, len(scheduler.routes)) for part in parts],
        tf.zeros_like(before),
        nothing,
        tf.constant(False),
    )
    _, strength, (blocks, after, ratio, accepted) = tf.while_loop(
        unsatisfied, again, (tf.constant(0), first, blank), parallel_iterations=1
    )
    taken = [tf.where(accepted, b.x, tf.zeros_like(b.x)) for b in blocks]
    return Step(
        directions=at.unflatten(taken),
        blocks=blocks,
        loss=before,
        loss_after=after,
        ratio=ratio,
        accepted=accepted,
        damping=strength,
        next_damping=tf.where(
            tf.math.is_finite(before) & tf.math.is_finite(scale),
            damping.update(strength, ratio, accepted, scale),
            last_damping,
        ),
    )


def _finite(tensor: tf.Tensor, what: str) -> tf.Tensor:
    """Stops the run with a message before any weight has changed."""
    return tf.debugging.assert_all_finite(
        tensor,
        f"{what} has NaN or Inf: QNewton took no step and changed no weight. Check the batch for "
        "NaN, and the model for functions without a finite derivative (sqrt or norm at 0).",
    )


def _dot(a: Sequence[tf.Tensor], b: Sequence[tf.Tensor]) -> tf.Tensor:
    """Σ a.b over all blocks, in float64."""
    return tf.add_n(
        [
            tf.tensordot(tf.cast(u, tf.float64), tf.cast(v, tf.float64), 1)
            for u, v in zip(a, b, strict=True)
        ]
    )


def _blank(part: Any, dtype: tf.DType, routes: int) -> BlockStep:
    zero, none = tf.constant(0.0, tf.float64), tf.constant(0)
    return BlockStep(
        tf.zeros([part.size], dtype),
        zero,
        zero,
        none,
        none,
        none,
        zero,
        tf.zeros([routes], tf.float64),
    )
