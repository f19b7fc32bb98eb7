"""What the page says of one run, and in which order."""

from __future__ import annotations

import datetime

from keras_qnewton.decision import is_known
from keras_qnewton.report import condition, step_figures, system_figures, tables
from keras_qnewton.report.advice import advice
from keras_qnewton.report.markup import bullets, heading, paragraph
from keras_qnewton.report.reading import Reading
from keras_qnewton.report.verdict import verdict
from keras_qnewton.report.words import count, listed, number

_NO_SECONDS = (
    "The log has no seconds of its steps, so that there is no loss against time: NewtonLog records "
    "them."
)
_NO_EPOCHS = (
    "The log has no epochs, and so no validation loss: NewtonLog(path=...) writes them in fit."
)
_KAPPA = (
    "The condition number κ is that of a block's damped system: the largest over the smallest "
    "eigenvalue, after the damping λ was added to both. Where the smallest one is far below λ, κ "
    "is 1 + c/λ, with c the largest one. Such a κ only follows λ: it is no finding about the model."
)
_FOLLOWS = {
    condition.YES: "κ follows λ: it is the damping's doing, and no finding.",
    condition.PARTLY: "κ follows λ in part.",
    condition.NO: "κ hardly follows λ: it is the curvature's own.",
    condition.UNTOLD: "the log does not tell.",
}


def sections_of(reading: Reading, level: int = 2, prefix: str = "") -> list[str]:
    """The sections, in HTML.

    Args:
        reading: The run.
        level: Of the headings.
        prefix: Begins the identifiers of its figures, which have to differ on a page.
    """
    return [
        _first(reading),
        heading(level, "Loss"),
        *_loss(reading, prefix),
        heading(level, "Damping and trust"),
        *_steps(reading, prefix),
        heading(level, "Condition numbers"),
        *_kappa(reading, prefix),
        heading(level, "Which solver took what, and why"),
        *_routes(reading, prefix),
        heading(level, f"The last {count(_last_rows(reading), 'decision')}"),
        tables.last_decisions(reading),
        *_about(reading, level),
    ]


def _first(reading: Reading) -> str:
    """The date, the verdict and what to change."""
    weights, name = reading.said("model", "weights"), reading.said("id")
    known = [_date(reading.said("date")), f"run {name}" if isinstance(name, str) else ""]
    if isinstance(weights, int):
        known.append(f"{count(weights, 'weight')} in {count(len(reading.blocks), 'block')}")
    said = advice(reading)
    return "\n".join(
        [
            paragraph(" · ".join(filter(None, known)), quiet=True) if any(known) else "",
            "<div class=verdict>",
            paragraph(verdict(reading)),
            bullets(said) if said else paragraph("Nothing in the log calls for a change."),
            "</div>",
        ]
    )


def _date(text: object) -> str:
    """A date with its time, to the minute."""
    try:
        return f"{datetime.datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %z}"
    except ValueError:
        return text if isinstance(text, str) else ""


def _loss(reading: Reading, prefix: str) -> list[str]:
    out = _grid(
        step_figures.loss_by_step(reading, prefix),
        step_figures.loss_by_second(reading, prefix),
        step_figures.loss_by_epoch(reading, prefix),
    )
    if reading.elapsed is None:
        out.append(paragraph(_NO_SECONDS, quiet=True))
    out.append(tables.epochs(reading) if reading.epochs else paragraph(_NO_EPOCHS, quiet=True))
    return out


def _steps(reading: Reading, prefix: str) -> list[str]:
    out = _grid(
        step_figures.damping(reading, prefix),
        step_figures.trust(reading, prefix),
        step_figures.attempts(reading, prefix),
        step_figures.length(reading, prefix),
    )
    if reading.is_learned:
        text = "Quasi-Newton steps have neither damping nor a trust ratio: a line search ends them."
        out.insert(0, paragraph(text))
    return out


def _kappa(reading: Reading, prefix: str) -> list[str]:
    drawn = system_figures.kappa(reading, prefix)
    if not drawn:
        return [paragraph("No condition number is known of this run's systems."), _blocks(reading)]
    return [
        paragraph(_KAPPA),
        bullets(_findings(reading)),
        *_grid(
            drawn,
            system_figures.kappa_by_damping(reading, prefix),
            system_figures.residuals(reading, prefix),
        ),
        _blocks(reading),
    ]


def _blocks(reading: Reading) -> str:
    legend = "N is the number of weights, d the largest number of non-zeros in a row."
    if any(d.alpha is not None for d in reading.decisions):
        legend += " α, over the largest eigenvalue, multiplies κ in the price of a circuit."
    return tables.blocks(reading) + paragraph(legend, quiet=True)


def _findings(reading: Reading) -> list[str]:
    """Whether κ follows λ, and what the log bounds the undamped κ by."""
    verdicts: dict[str, list[str]] = {}
    largest = 1.0
    for name, own in reading.blocks.items():
        kappas = [d.condition_number for d in own if is_known(d.condition_number)]
        if kappas:
            verdicts.setdefault(condition.follows_damping(own), []).append(name)
            largest = max(largest, *kappas) if not condition.is_bound(own) else largest
    said = [f"{_named(names)}: {_FOLLOWS[follows]}" for follows, names in verdicts.items()]
    if largest > 1:
        said.append(
            f"Without damping, the largest κ is at least about {number(largest)}, the largest one "
            "seen: where no eigenvalue is negative, damping can only lower κ."
        )
    return said


def _named(names: list[str]) -> str:
    if len(names) > 6:
        return f"{len(names):,} blocks"
    return f"Block{'' if len(names) == 1 else 's'} {listed(names)}"


def _routes(reading: Reading, prefix: str) -> list[str]:
    priced = any(d.predicted for d in reading.decisions)
    text = (
        "Predicted prices are medians over these steps. Those of quantum solvers are projections "
        "at the scheduler's gate time."
        if priced
        else "No prices were predicted: there was no choice of solvers, or none was asked for."
    )
    return [
        tables.routes(reading),
        paragraph(text, quiet=True),
        *_grid(system_figures.routes(reading, prefix), system_figures.prices(reading, prefix)),
    ]


def _about(reading: Reading, level: int) -> list[str]:
    known = [part for part in (tables.about(reading), tables.layers(reading)) if part]
    if not known:
        text = "The log does not say which model, settings and versions the run had."
        known = [paragraph(text, quiet=True)]
    return [heading(level, "Model, settings and versions"), *known]


def _last_rows(reading: Reading) -> int:
    return min(tables.LAST_ROWS, len(reading.decisions))


def _grid(*drawn: str) -> list[str]:
    """Figures side by side, as many as there is room for; those that are empty are left out."""
    known = [one for one in drawn if one]
    return ["<div class=figures>" + "\n".join(known) + "</div>"] if known else []
