"""The tables of a report: routes, blocks, epochs, decisions, settings and versions."""

from __future__ import annotations

import collections
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.report import condition
from keras_qnewton.report.markup import pairs, table
from keras_qnewton.report.reading import Reading, solver_of
from keras_qnewton.report.words import UNKNOWN, number, seconds

LAST_ROWS = 20
_NUMBERS = re.compile(r"\d+(,\d{3})*(\.\d+)?(e[+-]?\d+)?")
# In a file's first line, beside the settings and the model.
_VERSIONS = (
    ("keras_qnewton", "version"),
    ("TensorFlow", "tensorflow"),
    ("Keras", "keras"),
    ("Python", "python"),
)


def routes(reading: Reading) -> str:
    """Blocks by solver and rule: how often, at what predicted prices, and why."""
    priced = list(dict.fromkeys(route for d in reading.decisions for route in d.predicted))
    columns = [("block", True), ("solver", True), ("steps", False), ("κ, median", False)]
    columns += [(f"predicted, {route}", False) for route in priced]
    rows = [
        [
            name,
            _solver(own[-1]),
            f"{len(own):,} of {len(reading.blocks[name]):,}",
            number(_median(d.condition_number for d in own)),
            *(seconds(_median(d.predicted.get(route) for d in own)) for route in priced),
            own[-1].reason,
        ]
        for name, own in _by_rule(reading.decisions)
    ]
    return table([*columns, ("reason, the last time", True)], rows)


def blocks(reading: Reading) -> str:
    """Size, condition number, α, residual and formation of each block."""
    columns = [("block", True), ("N", False), ("d", False), ("κ, median", False)]
    columns += [("κ, largest", False), ("κ follows λ", True), ("worst residual", False)]
    priced = any(d.alpha is not None for d in reading.decisions)
    columns += [("α, median", False), ("of the encoding", True)] * priced
    rows = [
        [
            name,
            f"{own[-1].size:,}",
            f"{own[-1].sparsity:,}",
            number(_median(d.condition_number for d in own)),
            number(_most(d.condition_number for d in own)),
            _follows(own),
            number(_most(d.residual for d in own)),
            *_encoded(own)[: 2 * priced],
            _formed(own),
        ]
        for name, own in reading.blocks.items()
    ]
    return table([*columns, ("formed by", True)], rows)


def epochs(reading: Reading) -> str:
    """Keras's logs: in the first and the last epoch, and their range."""
    names = list(dict.fromkeys(name for epoch in reading.epochs for name in epoch.logs))
    rows = []
    for name in names:
        values = [epoch.logs.get(name) for epoch in reading.epochs]
        known = [value for value in values if is_known(value)]
        ends = (values[0], min(known, default=None), max(known, default=None), values[-1])
        rows.append([name, *map(number, ends)])
    columns = [("measure", True), ("first epoch", False), ("least", False), ("largest", False)]
    return table([*columns, ("last epoch", False)], rows)


def last_decisions(reading: Reading) -> str:
    """The last decisions, one a row."""
    columns = [("step", False), ("block", True), ("loss", False), ("loss after", False)]
    columns += [("taken", True), ("length", False), ("attempts", False), ("λ", False)]
    columns += [("ρ", False), ("κ", False), ("solver", True), ("time of the step", False)]
    return table(columns, [_decision_row(d) for d in reading.decisions[-LAST_ROWS:]])


def about(reading: Reading) -> str:
    """Model, settings, seeds and versions, as far as the file's first line says them."""
    rows = [(name, str(reading.said(key))) for name, key in _KNOWN if reading.said(key) is not None]
    fit = reading.said("fit")
    if isinstance(fit, Mapping):
        rows += [(f"fit: {name}", str(value)) for name, value in fit.items()]
    model = reading.said("model")
    if isinstance(model, Mapping):
        rows.append(("model", f"{model.get('name')}, {_grouped(model.get('weights'))} weights"))
    settings = reading.said("settings")
    if isinstance(settings, Mapping):
        rows += [(f"QNewton: {name}", str(value)) for name, value in settings.items()]
    versions = ((name, reading.said(key)) for name, key in _VERSIONS)
    rows += [(f"version of {name}", str(v)) for name, v in versions if v is not None]
    return pairs(rows) if rows else ""


_KNOWN = (("run", "id"), ("date", "date"), ("seed of Keras and TensorFlow", "seed"))


def layers(reading: Reading) -> str:
    """The model's layers; nothing where the file does not have them."""
    known = reading.said("model", "layers")
    rows = [
        [str(layer.get("name")), str(layer.get("class")), _grouped(layer.get("weights"))]
        for layer in (known if isinstance(known, list) else [])
        if isinstance(layer, Mapping)
    ]
    columns = [("layer", True), ("class", True), ("weights", False)]
    return table(columns, rows) if rows else ""


def _by_rule(decisions: Sequence[Decision]) -> list[tuple[str, list[Decision]]]:
    """Decisions by block, solver and rule: a reason without its numbers. Blocks stay together."""
    groups: dict[tuple[str, str, str, str], list[Decision]] = collections.defaultdict(list)
    for d in decisions:
        rule = _NUMBERS.sub("#", d.reason)
        groups[str(d.block), d.route, solver_of(d), rule].append(d)
    order = list(dict.fromkeys(str(d.block) for d in decisions))
    place = {name: k for k, name in enumerate(order)}
    found = sorted(groups.items(), key=lambda group: (place[group[0][0]], -len(group[1])))
    return [(key[0], own) for key, own in found]


def _solver(d: Decision) -> str:
    return solver_of(d) if solver_of(d) == d.route else f"{solver_of(d)}, after {d.route}"


def _decision_row(d: Decision) -> list[str]:
    return [
        UNKNOWN if d.step is None else str(d.step),
        str(d.block),
        number(d.loss),
        number(d.loss_after),
        "yes" if d.accepted else "no",
        number(d.length),
        UNKNOWN if d.attempts is None else str(d.attempts),
        number(d.damping),
        number(d.trust_ratio),
        number(d.condition_number),
        _solver(d),
        seconds(d.step_seconds),
    ]


def _follows(own: Sequence[Decision]) -> str:
    known = any(is_known(d.condition_number) for d in own)
    return condition.follows_damping(own) if known else UNKNOWN


def _encoded(own: Sequence[Decision]) -> list[str]:
    """α of the block encoding that was priced, and its name."""
    names = dict.fromkeys(d.encoding for d in own if d.encoding is not None)
    return [number(_median(d.alpha for d in own)), ", ".join(names) or UNKNOWN]


def _formed(own: Sequence[Decision]) -> str:
    """How a block's matrix came about, by steps."""
    ways = collections.Counter(d.formed_by for d in own if d.formed_by is not None).most_common()
    if len(ways) == 1:
        return ways[0][0]
    return "; ".join(f"{count:,} steps: {way}" for way, count in ways) or UNKNOWN


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if is_known(value)]
    return statistics.median(known) if known else math.nan


def _most(values: Iterable[float | None]) -> float:
    return max((value for value in values if is_known(value)), default=math.nan)


def _grouped(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
