"""A page about one training run: `python -m keras_qnewton report run.jsonl -o report.html`.

One self-contained HTML file for two readers. Who trained finds whether it went well and what to
change; who compares solvers finds which block went to which one, and why. Figures are inline SVG,
there is no script, and nothing is fetched.

    reading.py          a run's steps, blocks, seconds and epochs
    condition.py        whether a condition number is the damping's doing
    advice.py           what the log says should change
    verdict.py          the first paragraph
    step_figures.py     losses, damping, trust, attempts, lengths
    system_figures.py   condition numbers, residuals, solvers, prices
    described.py        a figure with its caption and its description
    drawing.py          a figure as SVG that suits light and dark pages
    tables.py           routes, blocks, epochs, decisions, settings
    sections.py         the order of all of these
    words.py            numbers as a reader wants them
    markup.py           HTML

It needs no TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from keras_qnewton.arguments import check_path, refused
from keras_qnewton.decision import Decision
from keras_qnewton.report.markup import heading, page, paragraph, table
from keras_qnewton.report.reading import Reading
from keras_qnewton.report.sections import sections_of
from keras_qnewton.run_file import Run, runs_of

__all__ = ["page", "page_of", "report", "table"]


def report(
    source: str | os.PathLike[str] | Sequence[Decision], path: str | os.PathLike[str]
) -> None:
    """Writes the page.

    Args:
        source: A file that `NewtonLog(path=...)` or `Decisions.to_jsonl` wrote, or decisions.
        path: The HTML file to write.

    Raises:
        ValueError: If there is no decision, or a line is not one: with the file and the line. If
            an argument is of another kind.
        OSError: If a file cannot be read or written.
        ImportError: Without Matplotlib.
    """
    check_path("path", path)
    runs = runs_of(source, "source")
    if _is_file(source, path):
        raise refused("path", path, "another file than the log, which the page would replace")
    if not any(run.decisions for run in runs):
        raise ValueError(f"Argument `source` must have at least one decision. Received: {source!r}")
    html_page = _page_of_runs(runs)
    # What a file's first line says of a run may have halves of characters.
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(html_page)


def _is_file(source: Any, path: str | os.PathLike[str]) -> bool:
    named = isinstance(source, (str, os.PathLike))
    return named and os.path.exists(path) and os.path.samefile(source, path)


def page_of(decisions: Sequence[Decision]) -> str:
    """The page as a string; a run begins where the count of steps does not go on."""
    return _page_of_runs(runs_of(decisions))


def _page_of_runs(runs: Sequence[Run]) -> str:
    readings = [Reading.of(run) for run in runs]
    if len(readings) == 1:
        (reading,) = readings
        return page(reading.title, [heading(1, reading.title), *sections_of(reading)])
    sections = [heading(1, "Newton runs"), paragraph(f"The log has {len(runs)} runs.")]
    for number, reading in enumerate(readings, 1):
        sections.append(heading(2, f"Run {number} of {len(runs)}: {reading.title}"))
        sections += sections_of(reading, level=3, prefix=f"run{number}-")
    return page("Newton runs", sections)
