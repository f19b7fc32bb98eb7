"""What a log says should change: rules in the order of their weight, each a sentence or None."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.report.reading import ROUNDING, Reading
from keras_qnewton.report.words import count, listed, number, share
from keras_qnewton.run_file import Epoch

MOST = 2
# Refused steps in a row that are worth a word; `QNewton` warns of as many.
_STANDSTILL = 10
_MANY_REFUSED = 0.2
_OFTEN = 0.25
_SUFFICIENT_RATIO = 0.25
# What a decision's reason says of them.
_FAILED, _OFTEN_FAILED = "failed its residual check", 0.1
_RISEN, _STILL_FALLING = 1.05, 0.05


def advice(reading: Reading) -> list[str]:
    """At most two sentences, the weightiest first; none where nothing calls for a change."""
    said = (rule(reading) for rule in _RULES)
    return list(itertools.islice((text for text in said if text is not None), MOST))


def _not_finite(reading: Reading) -> str | None:
    first, last = reading.steps[0].loss, reading.steps[-1].loss
    if not is_known(first) or is_known(last):
        return None
    return (
        "The loss is no longer a finite number. Scale the data or the loss, or train in float64, "
        "and look for functions without a finite derivative."
    )


def _stands_still(reading: Reading) -> str | None:
    last = list(itertools.takewhile(lambda d: not d.accepted, reversed(reading.steps)))
    if len(last) < _STANDSTILL:
        return None
    if reading.is_at_rounding or not _rises(reading, last):
        return (
            f"The last {len(last):,} steps were refused where rounding hides what is left of the "
            "loss. The training is done: stop earlier, as by "
            'EarlyStopping("loss", patience=5).'
        )
    return (
        f"The last {len(last):,} steps were refused, and the weights stood still. Look for a loss "
        "that jumps or draws random numbers anew. Else try "
        "damping=Adaptive(initial=1.0, retries=10), or float64."
    )


def _loss_rose(reading: Reading) -> str | None:
    losses = reading.losses
    if len(losses) < 2 or not losses[-1] > losses[0]:
        return None
    cure = (
        'Take damping="adaptive", which refuses steps that raise it.'
        if str(reading.said("settings", "damping")).startswith("Constant")
        else "Take larger batches, or full ones where the data fit."
    )
    return f"The loss rose from {number(losses[0])} to {number(losses[-1])}. {cure}"


def _many_refused(reading: Reading) -> str | None:
    refused = _rises(reading, reading.refused)
    if len(refused) < _MANY_REFUSED * len(reading.steps) or reading.is_learned:
        return None
    cure = (
        "Take larger batches, or full ones where the data fit."
        if reading.has_small_batches
        else "Begin with more damping: damping=Adaptive(initial=1.0, retries=10)."
    )
    return f"{share(len(refused), len(reading.steps))} steps were refused. {cure}"


def _overdamped(reading: Reading) -> str | None:
    late = reading.steps[-max(len(reading.steps) // 4, 5) :]
    first = min((d.step or 0) for d in late)
    kappas = [
        d.condition_number
        for d in reading.decisions
        # κ of one unknown is 1 at any damping.
        if (d.step or 0) >= first and d.size > 1 and is_known(d.condition_number)
    ]
    dampings = [d.damping for d in reading.steps if is_known(d.damping)]
    # A damping that fell is no reason for a small κ: the curvature is even.
    risen = len(dampings) > 1 and dampings[-1] > dampings[0]
    if reading.is_at_rounding or len(kappas) < 5 or statistics.median(kappas) >= 2 or not risen:
        return None
    return (
        "At the end the damping λ was larger than all of the curvature, and steps were short ones "
        "down the gradient. Look for jumps in the loss, scale the data, or take a smaller "
        "learning rate."
    )


def _poor_model(reading: Reading) -> str | None:
    known = [d.trust_ratio for d in reading.steps if is_known(d.trust_ratio)]
    poor = sum(ratio < _SUFFICIENT_RATIO for ratio in known)
    if len(known) < 5 or poor < _OFTEN * len(known):
        return None
    cure = "larger batches" if reading.has_small_batches else "smooth activations, as tanh or GELU,"
    return (
        f"The quadratic model of the loss was poor (trust ratio ρ below 1/4) in "
        f"{share(poor, len(known))} steps. Try {cure} or a larger first damping."
    )


def _overfits(reading: Reading) -> str | None:
    known = _validation(reading)
    if len(known) < 3:
        return None
    least, best = min(known, key=lambda pair: pair[0])
    last, final = known[-1]
    if not (least > 0 and last > _RISEN * least and final.number - best.number >= 2):
        return None
    return (
        f"The validation loss was least, {number(least)}, in epoch {best.number + 1}, and rose to "
        f"{number(last)} since. Stop there, as by "
        'EarlyStopping("val_loss", patience=3, restore_best_weights=True).'
    )


def _fell_back(reading: Reading) -> str | None:
    # Others took over where a matrix was not positive definite, which is no fault of the solver.
    failed = [d for d in reading.decisions if d.fallback and _FAILED in d.reason]
    if len(failed) < _OFTEN_FAILED * len(reading.decisions):
        return None
    routes = listed(sorted({d.route for d in failed}))
    return (
        f"{share(len(failed), len(reading.decisions))} solutions of {routes} failed their residual "
        "check, and another solver took over. Ask for more accuracy, or leave these blocks to it."
    )


def _still_falling(reading: Reading) -> str | None:
    losses = reading.losses
    late = max(len(losses) // 10, 2)
    if len(losses) < 8 or reading.is_at_rounding or not losses[-1 - late] > losses[-1] > 0:
        return None
    fall = 1.0 - losses[-1] / losses[-1 - late]
    if not fall > _STILL_FALLING or _validation_stands_still(reading):
        return None
    per = "epoch" if len(losses) <= len(reading.epochs) else "step"
    return (
        f"The loss was still falling, by {100 * fall:.0f} % in the last {count(late, per)}. "
        f"Train for more {per}s."
    )


def _validation(reading: Reading) -> list[tuple[float, Epoch]]:
    """Validation losses that are known, each with its epoch."""
    return [(e.logs["val_loss"], e) for e in reading.epochs if is_known(e.logs.get("val_loss"))]


def _validation_stands_still(reading: Reading) -> bool:
    """Whether the last tenth of the epochs has no validation loss below those before."""
    losses = [loss for loss, _ in _validation(reading)]
    late = max(len(losses) // 10, 2)
    return len(losses) > late and min(losses[-late:]) >= min(losses[:-late])


def _rises(reading: Reading, refused: Sequence[Decision]) -> list[Decision]:
    """Those of the refused steps that would have raised the loss by more than its rounding."""
    largest = max((abs(d.loss) for d in reading.steps if is_known(d.loss)), default=0.0)
    return [
        d
        for d in refused
        if not (is_known(d.loss) and is_known(d.loss_after))
        or d.loss_after - d.loss > ROUNDING * largest
    ]


_RULES: tuple[Callable[[Reading], str | None], ...] = (
    _not_finite,
    _stands_still,
    _loss_rose,
    _overfits,
    _many_refused,
    _overdamped,
    _poor_model,
    _fell_back,
    _still_falling,
)
