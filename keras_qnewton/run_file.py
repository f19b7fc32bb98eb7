"""Decisions in files: one JSON object a line, and of each run a line before them that says which.

    {"run": {"id": ..., "date": ..., "version": ..., "settings": ..., "model": ...}}
    {"route": ..., "reason": ..., ...}
    {"epoch": {"number": 0, "step": ..., "logs": {"loss": ..., "val_loss": ...}}}
    ...

A file that is written to again has a run after the other. Those of earlier versions have no line
of a run: there a run begins where the count of steps does not go on. Lines of epochs may be
missing, too.

A leaf without TensorFlow: a page about a log needs nothing of it.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from keras_qnewton.arguments import check_path, refused
from keras_qnewton.decision import Decision

_RUN = "run"
_EPOCH = "epoch"
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
            ValueError: If `path` is no path; with the number of the line that is not a decision.
            OSError: If the file cannot be read.
        """
        return cls(d for run in runs_of_file(path) for d in run.decisions)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Writes one JSON object a line; NaN and Inf become null.

        Raises:
            ValueError: If `path` is no path.
            OSError: If the file cannot be written.
        """
        check_path("path", path)
        with open(path, "w", encoding="utf-8") as file:
            write_decisions(file, self)


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What Keras logged at the end of an epoch.

    Attributes:
        number: Which epoch of its `fit`, from 0.
        step: The epoch's last optimizer step; None where it had none.
        logs: Keras's numbers by name, "loss" and "val_loss" among them; NaN where one was not
            finite.
    """

    number: int
    step: int | None
    logs: Mapping[str, float]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Epoch:
        """The epoch of which `to_dict` made `values`.

        Raises:
            ValueError: If a field is missing or unknown, or its value of another kind.
        """
        if not isinstance(values, dict) or set(values) != {"number", "step", "logs"}:
            raise ValueError(
                f"field `{_EPOCH}` must have number, step and logs. Received: {values!a:.100}"
            )
        number, step, logs = values["number"], values["step"], values["logs"]
        if not _is_count(number) or not (step is None or _is_count(step)):
            raise ValueError(
                f"field `{_EPOCH}` must have whole numbers, 0 or more, of 64 bits. "
                f"Received: {values!a:.100}"
            )
        if not isinstance(logs, dict) or not all(_is_number_or_none(v) for v in logs.values()):
            raise ValueError(
                f"field `{_EPOCH}` must have numbers by name in `logs`. Received: {logs!a:.100}"
            )
        return cls(number, step, {k: math.nan if v is None else float(v) for k, v in logs.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain types only; numbers that are not finite become None."""
        logs = {name: v if math.isfinite(v) else None for name, v in self.logs.items()}
        return {"number": self.number, "step": self.step, "logs": logs}


@dataclasses.dataclass
class Run:
    """One run of a file.

    Attributes:
        about: What its first line says; empty where there is none.
        decisions: Its decisions, oldest first.
        epochs: Its epochs, oldest first; empty where the file has none.
    """

    about: Mapping[str, Any]
    decisions: Decisions
    epochs: list[Epoch] = dataclasses.field(default_factory=list)

    @property
    def title(self) -> str:
        """Its date and identifier; empty where the file has none."""
        known = (self.about.get(key) for key in ("date", "id"))
        return ", ".join(value for value in known if isinstance(value, str))


def runs_of(log: str | os.PathLike[str] | Sequence[Decision], argument: str = "log") -> list[Run]:
    """The runs of a file, or of decisions, that have any decision.

    Raises:
        ValueError: If it is neither; with the caller's name of the argument.
    """
    if isinstance(log, (str, os.PathLike)):
        check_path(argument, log)
        return [run for run in runs_of_file(log) if run.decisions]
    given: Any = log
    if not isinstance(given, Sequence) or not all(isinstance(one, Decision) for one in given):
        raise refused(argument, log, "the path of a log, or a sequence of `Decision`s")
    return _runs(given)


def runs_of_file(path: str | os.PathLike[str]) -> list[Run]:
    """All runs of a file, those without a decision, too.

    Raises:
        ValueError: With the number of the line that is neither a decision nor a run's first.
    """
    return _runs(_lines(path))


def end_line(file: IO[str]) -> None:
    """Ends a last line that a process was killed in, of a file that is open for appending.

    Raises:
        ValueError: If the file is something else than a log: nothing is to be written into it.
    """
    with open(file.name, "rb") as written:
        size = written.seek(0, os.SEEK_END)
        if not size:
            return
        written.seek(0)
        begins = written.read(80).removeprefix(codecs.BOM_UTF8).lstrip()
        if begins[:1] not in (b"", b"{"):
            raise ValueError(
                "Argument `path` must be a new file, or one that `NewtonLog` wrote. Received: "
                f"path={file.name!r}, a file that begins with {begins[:20]!r}"
            )
        written.seek(size - 1)
        if written.read(1) != b"\n":
            file.write("\n")


def write_run(file: IO[str], about: Mapping[str, Any]) -> None:
    """Writes a run's first line."""
    file.write(json.dumps({_RUN: _plain(about)}, allow_nan=False) + "\n")


def write_decisions(file: IO[str], decisions: Iterable[Decision]) -> None:
    """Writes one line a decision."""
    file.writelines(json.dumps(d.to_dict(), allow_nan=False) + "\n" for d in decisions)


def write_epoch(file: IO[str], epoch: Epoch) -> None:
    """Writes one line."""
    file.write(json.dumps({_EPOCH: epoch.to_dict()}, allow_nan=False) + "\n")


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


def _runs(lines: Iterable[Mapping[str, Any] | Epoch | Decision]) -> list[Run]:
    """Runs of what lines say; another begins with a mapping, and where steps do not go on."""
    runs: list[Run] = []
    for line in lines:
        if isinstance(line, Mapping):
            runs.append(Run(line, Decisions()))
            continue
        if not runs:
            runs.append(Run({}, Decisions()))
        if isinstance(line, Epoch):
            runs[-1].epochs.append(line)
            continue
        if runs[-1].decisions and _begins_anew(runs[-1].decisions[-1], line):
            runs.append(Run(runs[-1].about, Decisions()))
        runs[-1].decisions.append(line)
    return runs


def _begins_anew(last: Decision, decision: Decision) -> bool:
    if last.step is None or decision.step is None:
        return False
    # A step has a block's decision once.
    return decision.step < last.step


def _lines(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Any] | Epoch | Decision]:
    """What each line says: of a run, of an epoch, or a decision.

    A process that was killed may leave half a line, with which a run ends. It is left out.
    """
    # In bytes: text that is not UTF-8 has a line, too.
    check_path("path", path)
    with open(path, "rb") as file:
        lines = file.readlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if _is_cut_off(line, *lines[number : number + 1]):
                message = f"{os.fspath(path)}, line {number}: cut off, as by a kill, and left out."
                warnings.warn(message, RuntimeWarning, stacklevel=2)
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


def _is_cut_off(line: bytes, *following: bytes) -> bool:
    """Whether a line lacks its end, before the end of the file or another run."""
    if following:
        ends = following[0].startswith(b'{"%b":' % _RUN.encode())
    else:
        ends = not line.endswith(b"\n")
    return ends and line.startswith(b"{") and not line.rstrip().endswith(b"}")


def _read(line: str) -> Mapping[str, Any] | Epoch | Decision:
    values = json.loads(line)
    if isinstance(values, dict) and set(values) == {_EPOCH}:
        return Epoch.from_dict(values[_EPOCH])
    if isinstance(values, dict) and set(values) == {_RUN}:
        about = values[_RUN]
        if not isinstance(about, dict):
            raise ValueError(f"field `{_RUN}` must be an object. Received: {about!a:.100}")
        return about
    return Decision.from_dict(values)


def _is_count(value: Any) -> bool:
    # Larger counts do not fit into an array's 64 bits.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number_or_none(value: Any) -> bool:
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
