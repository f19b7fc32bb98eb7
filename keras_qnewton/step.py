"""One Newton step.

    m            1, or over how many batches to average            scalar
    H_k, g_k     blocks of the curvature and of the gradient       [N_k, N_k], [N_k]
    x_k          direction at damping λ, divided by m              [N_k]
    d            the step that would be taken, -lr t x             one tensor a weight
    m(d)         g.d + d.H d / 2, with the whole Hessian           scalar
    t            where m(d) + λ d.d / 2 is lowest, at most 1       scalar
    ρ            (L(w) - L(w + d)) / -m(d)                         scalar

No step is accepted that raises this batch's loss; one with a poor ρ is tried again at a
larger λ on the same curvature, one with a high ρ is doubled while that lowers the loss. Blocks
know nothing of one another, so what they take together would go too far where they agree: t cuts
it back, by the Hessian between the blocks that no block has (Martens & Grosse 2015,
arXiv:1503.05671, section 6.4). Nothing is assigned here: the caller does, once all is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_qnewton.conditioning import data_changed
from keras_qnewton.curvature.formation import Formed
from keras_qnewton.directions import BlockStep, Direction, direction, most_rows

# Relative error of a loss that is a mean of many terms, a few units in the last place.
_ROUNDING = {tf.bfloat16: 2.0**-6, tf.float16: 2.0**-9, tf.float32: 2.0**-21, tf.float64: 2.0**-50}
# A ratio of losses in between is taken as it is, and so is any of a reduction this many times
# their rounding error; another is compared with that of gradients.
_CREDIBLE = (0.75, 1.5)
_CLEAR = 2.0**8
# Two estimates of a reduction that differ by less, relative to the model's, agree.
_AGREEMENT = 0.25


class Memory(NamedTuple):
    """What a step knows of the one before.

    Attributes:
        damping: λ as it left it, float64 scalar; not positive before the first step.
        count: m, float64 scalar.
        loss: Its batch's loss before it, scalar; NaN before the first step.
        weights: The weights before it, one tensor a weight; empty if data that change are not
            looked for.
    """

    damping: tf.Tensor
    count: tf.Tensor
    loss: tf.Tensor
    weights: Sequence[tf.Tensor]


class Step(NamedTuple):
    """What a Newton step came to.

    Attributes:
        directions: x times `length`, one tensor a weight; zeros if the step was refused.
        blocks: One `BlockStep` a block, at the λ of the last attempt.
        formations: How each block's matrix came about, a `Formation`, int32 scalars.
        length: How many times x the step is, float64 scalar: t times 1 or a power of 2.
        loss: L(w), scalar.
        loss_after: L(w + d), scalar, at the step's length.
        ratio: ρ at length t, float64 scalar; NaN where the loss's rounding hides the reduction.
        accepted: Boolean scalar.
        damping: λ of the last attempt, float64 scalar.
        memory: For the next step.
    """

    directions: list[tf.Tensor]
    blocks: list[BlockStep]
    formations: list[tf.Tensor]
    length: tf.Tensor
    loss: tf.Tensor
    loss_after: tf.Tensor
    ratio: tf.Tensor
    accepted: tf.Tensor
    damping: tf.Tensor
    memory: Memory


def newton_step(
    loss: Any,
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    parts: Sequence[Any],
    *,
    curvature: Any,
    damping: Any,
    scheduler: Any,
    pruning: Any,
    seed: int = 0,
    last: Memory,
    to_step: Callable[[list[tf.Tensor]], list[tf.Tensor]],
    proportional: bool = False,
    keep: Callable[[int, Callable[[], Formed], tf.Tensor], tuple[Formed, tf.Tensor | bool]],
    keep_derived: Callable[..., Any],
    keeps: bool = False,
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
        pruning: See `directions.direction`.
        seed: See `directions.direction`.
        last: What the step before left.
        to_step: From the directions x to the step d that would be taken (learning rate,
            clipping), one tensor a weight each.
        proportional: Whether d is so to x: nothing is clipped, no constraint met.
        keep: Called with a block's number, a function that forms it, and m; may return an
            earlier one, or an average over the last m. Also returns whether it is that of the
            last step.
        keep_derived: Called with a block's number, whether its matrix is that of the last step,
            and what `directions.Keep` is called with.
        keeps: Whether `keep` may return an earlier step's.
    """
    at = curvature.at(loss, weights, parts)
    before = _finite(loss.value, "The loss")
    gradient = [_finite(g, "The gradient of the loss") for g in at.flatten(gradients)]
    gradient = at.sharpened(gradient)
    count = _batches_to_average(loss, before, weights, gradients, damping, last)
    noisy = count > 1
    # Before the second step nobody can tell.
    same_data = (last.damping > 0) & ~noisy

    # Averages are not of low rank.
    few = at.low_rank(
        [most_rows(part, damping, scheduler, pruning, keeps) for part in parts],
        [~noisy if part.dense else True for part in parts],
    )

    def way(k: int, part: Any) -> tuple[Direction, tf.Tensor]:
        return direction(
            at,
            k,
            part,
            lambda: block(k, part),
            few[k],
            gradient[k],
            damping,
            scheduler,
            pruning,
            seed,
            functools.partial(keep_derived, k),
        )

    def block(k: int, part: Any) -> tuple[Formed, tf.Tensor | bool]:
        (matrix, how), same = keep(k, lambda: at.formed(k), count)
        # The sum has a NaN or Inf wherever the matrix has one.
        total = _finite(tf.reduce_sum(matrix), f"The Hessian block {part.name!r}")
        with tf.control_dependencies([total]):
            return Formed(tf.identity(matrix), how), same

    ways = [way(k, part) for k, part in enumerate(parts)]
    directions, formations = ([found[i] for found in ways] for i in range(2))
    scale = tf.reduce_max(tf.stack([way.scale for way in directions]))
    # Not `tf.where`: it would wait for the scale.
    first = tf.cond(same_data, lambda: last.damping, lambda: damping.start(scale) / count)

    error = at.value_error()

    def planned(blocks: list[BlockStep], times: tf.Tensor) -> tuple[Any, ...]:
        """d, as `to_step` and as one `[N_k]` a block, and its g.d and d.H d."""
        step = to_step(at.unflatten(_scaled([b.x for b in blocks], times)))
        d = at.flatten(step)
        return step, d, (_dot(gradient, d), _dot(d, at.product(d)))

    def attempt(strength: tf.Tensor) -> tuple[Any, ...]:
        blocks = [way.solve(strength) for way in directions]
        blocks = [b._replace(x=b.x / tf.cast(count, b.x.dtype)) for b in blocks]
        cut = tf.constant(1.0, tf.float64)
        step, d, slopes = planned(blocks, cut)
        if damping.adaptive and len(parts) > 1:
            cut = _cut(slopes, strength * _dot(d, d))
            if proportional:
                step, d = _scaled(step, cut), _scaled(d, cut)
                slopes = cut * slopes[0], cut**2 * slopes[1]
            else:
                step, d, slopes = planned(blocks, cut)
        model = slopes[0] + slopes[1] / 2
        after = loss([w + s for w, s in zip(weights, step, strict=True)])
        reduction = tf.cast(before, tf.float64) - tf.cast(after, tf.float64)
        # Near a minimum the loss's rounding hides what a step does: no ratio, no reason to
        # change λ. Otherwise λ would run away on a converged model.
        hidden = tf.abs(model) <= _ROUNDING[before.dtype] * tf.abs(tf.cast(before, tf.float64))
        ratio = tf.where(model < 0, reduction / -model, -tf.ones_like(model))
        ratio = tf.where(hidden, tf.constant(float("nan"), tf.float64), ratio)
        if damping.adaptive:
            # Written so that NaN is not credible.
            credible = (ratio >= _CREDIBLE[0]) & (ratio <= _CREDIBLE[1])
            credible |= -model >= _CLEAR * error
            losses = ratio
            ratio = tf.cond(
                credible | (model >= 0),
                lambda: losses,
                lambda: _ratio_of_gradients(at, d, slopes, model, losses),
            )
        sound = tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in d])
        sound &= tf.math.is_finite(after)
        accepted = sound & (reduction >= 0) if damping.adaptive else sound
        return blocks, cut, after, ratio, accepted

    # The first attempt is the loop's first pass, so that its operations are built once.
    def unsatisfied(tries: tf.Tensor, strength: Any, result: Any) -> tf.Tensor:
        del strength
        *_, ratio, accepted = result
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
        nothing,
        tf.zeros_like(before),
        nothing,
        tf.constant(False),
    )
    _, strength, (blocks, cut, after, ratio, accepted) = tf.while_loop(
        unsatisfied, again, (tf.constant(0), first, blank), parallel_iterations=1
    )
    taken = at.unflatten(
        _scaled([tf.where(accepted, b.x, tf.zeros_like(b.x)) for b in blocks], cut)
    )
    times, after = _lengthened(
        accepted & same_data & (ratio >= damping.promising_ratio),
        lambda times: loss(
            [w + s for w, s in zip(weights, to_step(_scaled(taken, times)), strict=True)]
        ),
        before,
        after,
        damping.doublings,
    )
    following = damping.update(strength / times, ratio, accepted, scale)
    return Step(
        directions=_scaled(taken, times),
        blocks=blocks,
        formations=formations,
        length=cut * times,
        loss=before,
        loss_after=after,
        ratio=ratio,
        accepted=accepted,
        damping=strength,
        memory=Memory(
            damping=tf.where(
                tf.math.is_finite(before) & tf.math.is_finite(scale),
                tf.where(noisy, strength, following),
                last.damping,
            ),
            count=count,
            loss=before,
            weights=weights,
        ),
    )


def _batches_to_average(
    loss: Any,
    before: tf.Tensor,
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    damping: Any,
    last: Memory,
) -> tf.Tensor:
    """m, float64 scalar: 1 if the data are those of the last step."""
    one = tf.constant(1.0, tf.float64)
    if not last.weights:
        return one
    now = tf.where(tf.math.is_finite(last.loss), loss(last.weights), before)
    noisy = data_changed(last.loss, now, weights, gradients)
    return tf.where(noisy, tf.minimum(last.count + 1, float(damping.memory)), one)


def _cut(slopes: tuple[tf.Tensor, tf.Tensor], damping: tf.Tensor) -> tf.Tensor:
    """t, float64 scalar: how much of d is up to the damped model's minimum along it; at most 1.

    With one block t is 1: (H + λI) x = g. With K semidefinite ones it is 1/K at least, which is
    where all agree: H is at most K times its diagonal blocks.

    Args:
        slopes: g.d and d.H d.
        damping: λ d.d.
    """
    slope, bend = slopes
    times = -slope / (bend + damping)
    # Also where the model has no minimum, and for NaN.
    return tf.where((times > 0) & (times < 1), times, tf.ones_like(times))


def _lengthened(
    promising: tf.Tensor,
    loss_at: Callable[[tf.Tensor], tf.Tensor],
    before: tf.Tensor,
    after: tf.Tensor,
    doublings: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """How many times as long the step is to be, float64 scalar, and the loss there.

    Where a loss falls faster than its quadratic model, as towards a minimum at infinity (a
    cross-entropy once all labels are right), Newton's step is too short. Doubling it at once
    costs a loss, not a Hessian (Dennis & Schnabel 1983, section 6.4.3).

    Args:
        promising: Whether to try, boolean scalar.
        loss_at: From a length to the loss, scalar.
        before: L(w), scalar.
        after: The loss at length 1, scalar.
        doublings: How many at most.
    """
    length = tf.constant(1.0, tf.float64)
    if not doublings:
        return length, after

    def double(length: tf.Tensor, lowest: tf.Tensor, going: tf.Tensor) -> tuple[tf.Tensor, ...]:
        del going
        after = loss_at(2 * length)
        # Beyond rounding; NaN is not lower.
        lower = lowest - after > _ROUNDING[before.dtype] * tf.abs(before)
        return tf.where(lower, 2 * length, length), tf.where(lower, after, lowest), lower

    length, after, _ = tf.while_loop(
        lambda length, lowest, going: going,
        double,
        (length, after, promising),
        parallel_iterations=1,
        maximum_iterations=doublings,
    )
    return length, after


def _scaled(tensors: Sequence[tf.Tensor], factor: tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(factor, t.dtype) * t for t in tensors]


def _ratio_of_gradients(
    at: Any,
    step: list[tf.Tensor],
    slopes: tuple[tf.Tensor, tf.Tensor],
    model: tf.Tensor,
    ratio: tf.Tensor,
) -> tf.Tensor:
    """ρ from the gradients at both ends of the step, or as it is where they do not tell.

        T   g.d + (g(w+d) - g).d / 2                         trapezoidal rule
        C   g.d + d.H d / 2 + (g(w+d) - g - H d).d / 3       exact for a cubic loss

    A loss is a mean of numbers with an absolute error: cross-entropy's is that of the logits. A
    difference of two losses has no digits left long before a gradient, a sum of products,
    loses any. Where T and C agree, the error of C is smaller than their difference.

    Args:
        at: Curvature at the weights.
        step: d, one `[N_k]` a block.
        slopes: g.d and d.H d.
        model: g.d + d.H d / 2, negative.
        ratio: ρ from the losses; NaN where rounding hides the reduction.
    """
    slope, bend = slopes
    change = _dot(at.gradients_after(step), step) - slope
    trapezoid = slope + change / 2
    cubic = slope + bend / 2 + (change - bend) / 3
    agreed = tf.abs(trapezoid - cubic) <= _AGREEMENT * tf.abs(model)
    better = cubic / model
    # A poor ratio of a hidden reduction says only that the model has converged.
    agreed &= ~tf.math.is_nan(ratio) | (better >= _CREDIBLE[0])
    return tf.where(agreed, better, ratio)


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
        zero,
        zero,
        zero,
        zero,
    )
