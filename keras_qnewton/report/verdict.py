"""The first paragraph: how the run went, in plain words."""

from __future__ import annotations

import collections

from keras_qnewton.decision import is_known
from keras_qnewton.report.reading import Reading, solver_of
from keras_qnewton.report.words import count, listed, number, percent, seconds


def verdict(reading: Reading) -> str:
    """Sentences about steps, losses, solvers and seconds."""
    said = [_steps(reading), _losses(reading), _validation(reading), _solvers(reading)]
    return " ".join(text for text in [*said, _seconds(reading)] if text)


def _steps(reading: Reading) -> str:
    steps, refused = len(reading.steps), len(reading.refused)
    if not refused:
        return f"The run had {count(steps, 'step')}, and none was refused."
    were = "was" if refused == 1 else "were"
    return (
        f"The run had {count(steps, 'step')}, of which {refused:,} {were} refused. A refused step "
        "leaves the weights as they are."
    )


def _losses(reading: Reading) -> str:
    first, last = reading.steps[0].loss, reading.step_losses[-1]
    if not is_known(first) or not is_known(last):
        return ""
    whose = ", each of its own batch" if reading.has_small_batches else ""
    text = f"The final loss is {number(last)}, after {number(first)} at the beginning{whose}."
    means = [e.logs["loss"] for e in reading.epochs if is_known(e.logs.get("loss"))]
    if reading.has_small_batches and len(means) > 1:
        text += f" The mean loss of an epoch went from {number(means[0])} to {number(means[-1])}."
    return text


def _validation(reading: Reading) -> str:
    known = [(e.logs["val_loss"], e) for e in reading.epochs if is_known(e.logs.get("val_loss"))]
    if not known:
        return ""
    (least, best), (last, final) = min(known, key=lambda pair: pair[0]), known[-1]
    if best is final:
        return f"The validation loss ended at {number(last)}, its least."
    return (
        f"The validation loss ended at {number(last)}; it was least, {number(least)}, in epoch "
        f"{best.number + 1}."
    )


def _solvers(reading: Reading) -> str:
    if reading.is_learned:
        return "No linear system was solved: the inverse Hessian was learned from gradients."
    solvers = collections.Counter(solver_of(d) for d in reading.decisions).most_common()
    whole = len(reading.decisions)
    systems = count(whole, "linear system")
    if len(solvers) == 1:
        return f"The solver {solvers[0][0]} took all {systems}."
    shares = [f"{n:,} ({percent(n, whole)})" for _, n in solvers]
    parts = [f"{name} {part}" for (name, _), part in zip(solvers[1:], shares[1:], strict=True)]
    return f"Of {systems}, {listed([f'{solvers[0][0]} took {shares[0]}', *parts])}."


def _seconds(reading: Reading) -> str:
    if reading.seconds is None:
        return ""
    first, later = reading.seconds[0], reading.later_seconds
    text = f"The first step took {seconds(first)}"
    if not is_known(later):
        return f"{text}."
    if reading.is_traced:
        text += ", most of it TensorFlow's tracing of the model"
    return f"{text}; a later step took {seconds(later)} (median)."
