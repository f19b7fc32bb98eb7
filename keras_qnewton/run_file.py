"""Decisions in files: one JSON object a line, and of each run a line before them that says which.

    {"run": {"id": ..., "date": ..., "version": ..., "settings": ..., "model": ...}}
    {"route": ..., "reason": ..., ...}
    ...

A file that is written to again has a run after the other. Those of earlier versions have no such
line: there a run begins where the count of steps does not go on.

A leaf without TensorFlow: a page about a log needs nothing of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from keras_qnewton.decision import Decision

_RUN = "run"
_EXPECTED = (
    "Argument `path` must be a file of decisions, one JSON object a line. Received: {path!r}, line "
    "{number}: {problem}"
)


class Decisions(list[Decision]):
    """A list of `Decision`, oldest first."""

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str]) -> Decisions:
        """Decisions from a file that `to_jsonl` or `NewtonLog` wrote, those of all its runs.

        Raises:
            ValueError: With the number of the line that is not a decision.
        """
        return cls(d for run in runs_of_file(path) for d in run.decisions)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Writes one JSON object a line; NaN and Inf become null."""
        with open(path, "w", encoding="utf-8") as file:
            write_decisions(file, self)


@dataclasses.dataclass
class Run:
    """One run of a file.

    Attributes:
        about: What its first line says; empty where there is none.
        decisions: Its decisions, oldest first.
    """

    about: Mapping[str, Any]
    decisions: Decisions

    @property
    def title(self) -> str:
        """Its date and identifier; empty where the file has none."""
        known = (self.about.get(key) for key in ("date", "id"))
        return ", ".join(value for value in known if isinstance(value, str))


def runs_of(log: str | os.PathLike[str] | Sequence[Decision]) -> list[Run]:
    """The runs of a file, or of decisions, that have any decision."""
    if isinstance(log, (str, os.PathLike)):
        return [run for run in runs_of_file(log) if run.decisions]
    return list(_apart(Run({}, Decisions(log))))


def runs_of_file(path: str | os.PathLike[str]) -> list[Run]:
    """All runs of a file, those without a decision, too.

    Raises:
        ValueError: With the number of the line that is neither a decision nor a run's first.
    """
    runs: list[Run] = []
    for about, decision in _lines(path):
        if about is not None:
            runs.append(Run(about, Decisions()))
        elif decision is not None:
            if not runs:
                runs.append(Run({}, Decisions()))
            runs[-1].decisions.append(decision)
    return [part for run in runs for part in _apart(run)]


def write_run(file: IO[str], about: Mapping[str, Any]) -> None:
    """Writes a run's first line."""
    file.write(json.dumps({_RUN: _plain(about)}, allow_nan=False) + "\n")


def write_decisions(file: IO[str], decisions: Iterable[Decision]) -> None:
    """Writes one line a decision."""
    file.writelines(json.dumps(d.to_dict(), allow_nan=False) + "\n" for d in decisions)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with words for numbers that JSON has none for."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out[name] = _plain(value)
        elif isinstance(value, float) and not math.isfinite(value):
            out[name] = str(value)
        else:
            out[name] = value
    return out


def _apart(run: Run) -> Iterator[Run]:
    """`run`, parted where the steps do not go on."""
    current = Run(run.about, Decisions())
    for decision in run.decisions:
        last = current.decisions[-1] if current.decisions else decision
        if _begins_anew(last, decision):
            yield current
            current = Run(run.about, Decisions())
        current.decisions.append(decision)
    yield current


def _begins_anew(last: Decision, decision: Decision) -> bool:
    if last is decision or last.step is None or decision.step is None:
        return False
    # A step has a block's decision once.
    return decision.step < last.step


def _lines(
    path: str | os.PathLike[str],
) -> Iterator[tuple[Mapping[str, Any] | None, Decision | None]]:
    """What each line says: of a run, or a decision."""
    # In bytes: text that is not UTF-8 has a line, too.
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield _read(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(
                    _EXPECTED.format(path=os.fspath(path), number=number, problem=error)
                ) from error
            except RecursionError as error:
                problem = "nested too deep"
                raise ValueError(
                    _EXPECTED.format(path=os.fspath(path), number=number, problem=problem)
                ) from error


def _read(line: str) -> tuple[Mapping[str, Any] | None, Decision | None]:
    values = json.loads(line)
    if isinstance(values, dict) and set(values) == {_RUN}:
        about = values[_RUN]
        if not isinstance(about, dict):
            raise ValueError(f"field `{_RUN}` must be an object. Received: {about!a:.100}")
        return about, None
    return None, Decision.from_dict(values)
