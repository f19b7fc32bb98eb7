"""A page about one training run: `python -m keras_qnewton report run.jsonl -o report.html`.

One self-contained HTML file: figures are inline SVG, there is no script, and nothing is fetched.
"""

from __future__ import annotations

import collections
import html
import io
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_qnewton.decision import Decision, is_known
from keras_qnewton.run_file import Run, runs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { width: 100%; min-width: 30rem; height: auto; }
figcaption { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
td.text, th.text { text-align: left; }
td.text:last-child { min-width: 16rem; }
"""
_LAST_ROWS = 20
# Beyond, the ends of a logarithmic axis overflow.
_LARGEST_DRAWN = 1e250


def report(
    source: str | os.PathLike[str] | Sequence[Decision], path: str | os.PathLike[str]
) -> None:
    """Writes the page.

    Args:
        source: A file that `NewtonLog(path=...)` or `Decisions.to_jsonl` wrote, or decisions.
        path: The HTML file to write.

    Raises:
        ValueError: If there is no decision, or a line is not one: with the file and the line.
        ImportError: Without Matplotlib.
    """
    runs = runs_of(source)
    if not any(run.decisions for run in runs):
        raise ValueError(f"Argument `source` must have at least one decision. Received: {source!r}")
    html_page = _page_of_runs(runs)
    with open(path, "w", encoding="utf-8") as file:
        file.write(html_page)


def page_of(decisions: Sequence[Decision]) -> str:
    """The page as a string; a run begins where the count of steps does not go on."""
    return _page_of_runs(runs_of(decisions))


def _page_of_runs(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        (run,) = runs
        return page("A Newton run", ["<h1>A Newton run</h1>", *_sections(run)])
    sections = ["<h1>Newton runs</h1>", f"<p>The log has {len(runs)} runs.</p>"]
    for number, run in enumerate(runs, 1):
        sections += [f"<h1>Run {number} of {len(runs)}</h1>", *_sections(run)]
    return page("Newton runs", sections)


def _sections(run: Run) -> list[str]:
    """What the page says of one run, in HTML."""
    decisions = run.decisions
    steps = list({d.step: d for d in decisions}.values())
    blocks: dict[str, list[Decision]] = collections.defaultdict(list)
    for d in decisions:
        blocks[str(d.block)].append(d)
    sections = [
        table([("", True), ("", False)], [*_about(run), *_summary(decisions, steps, blocks)]),
        "<h2>Convergence</h2>",
        _figure(_loss, steps, caption="This batch's loss before each step, and after it."),
        _figure(
            _trust,
            steps,
            caption="Damping λ, and the trust ratio ρ: actual over predicted reduction. "
            "Below 1/4 a step was tried again with a larger λ.",
        ),
        "<h2>Conditioning</h2>",
        _figure(_kappa, blocks, caption="Condition number κ of each block's damped system."),
        "<h2>Who solved what</h2>",
        table(
            [
                ("block", True),
                ("N", False),
                ("d", False),
                ("κ, median", False),
                ("κ, last", False),
                ("solved by", True),
                ("worst residual", False),
                ("the last reason", True),
            ],
            [_block_row(name, own) for name, own in blocks.items()],
        ),
        *_formations(blocks),
        _figure(_residuals, decisions, caption="Relative residual of each solution that was used."),
    ]
    if any(d.predicted for d in decisions) or any(d.step_seconds for d in steps):
        sections += [
            "<h2>Time</h2>",
            _figure(
                _seconds,
                decisions,
                steps,
                caption="Measured: the whole training step. Predicted: all blocks' solves "
                "by one route. A quantum route's is a projection at the scheduler's gate time.",
            ),
        ]
    return [
        *sections,
        f"<h2>The last {min(_LAST_ROWS, len(decisions))} decisions</h2>",
        table(
            [
                ("step", False),
                ("block", True),
                ("κ", False),
                ("λ", False),
                ("ρ", False),
                ("loss", False),
                ("loss after", False),
                ("taken", True),
                ("solved by", True),
                ("reason", True),
            ],
            [_decision_row(d) for d in decisions[-_LAST_ROWS:]],
        ),
    ]


def page(title: str, sections: Iterable[str]) -> str:
    """A self-contained HTML page; `title` is plain text, `sections` are HTML."""
    title, body = html.escape(title), "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


# --- tables ---------------------------------------------------------------------------------


def _about(run: Run) -> list[list[str]]:
    """Rows of what the log's first line says of the run."""
    rows = [["run", run.title]] if run.title else []
    version, model = run.about.get("version"), run.about.get("model")
    if isinstance(version, str):
        rows.append(["keras_qnewton", version])
    if isinstance(model, dict):
        rows.append(["model", f"{model.get('name')}, {model.get('weights')} weights"])
    return rows


def _summary(
    decisions: Sequence[Decision], steps: Sequence[Decision], blocks: dict[str, list[Decision]]
) -> list[list[str]]:
    last = steps[-1]
    taken = sum(bool(d.accepted) for d in steps)
    solvers = collections.Counter(d.solved_by or d.route for d in decisions)
    rows = [
        ["steps", f"{len(steps)}, of which {taken} taken"],
        ["blocks", f"{len(blocks)}, the largest of {max(d.size for d in decisions):,} weights"],
        ["first loss", _number(steps[0].loss)],
        ["last loss", _number(last.loss_after if last.accepted else last.loss)],
        ["solved by", ", ".join(f"{name} {count:,}" for name, count in solvers.most_common())],
        ["fallbacks", str(sum(bool(d.fallback) for d in decisions))],
    ]
    seconds = [s for s in (d.step_seconds for d in steps) if is_known(s)]
    if seconds:
        rows.append(["seconds a step, median", _number(statistics.median(seconds))])
    return rows


def _block_row(name: str, own: Sequence[Decision]) -> list[str]:
    kappas = [d.condition_number for d in own if is_known(d.condition_number)]
    residuals = [r for r in (d.residual for d in own) if is_known(r)]
    solvers = collections.Counter(d.solved_by or d.route for d in own)
    return [
        name,
        f"{own[-1].size:,}",
        f"{own[-1].sparsity:,}",
        _number(statistics.median(kappas) if kappas else math.nan),
        _number(own[-1].condition_number),
        ", ".join(f"{solver} {count}" for solver, count in solvers.most_common()),
        _number(max(residuals) if residuals else math.nan),
        own[-1].reason,
    ]


def _formations(blocks: dict[str, list[Decision]]) -> list[str]:
    """A table of how each block's matrix came about, by steps; none for a log without that."""
    rows = [
        [name, f"{count:,}", formed_by]
        for name, own in blocks.items()
        for formed_by, count in collections.Counter(d.formed_by for d in own).most_common()
        if formed_by is not None
    ]
    return [table([("block", True), ("steps", False), ("formed by", True)], rows)] if rows else []


def _decision_row(d: Decision) -> list[str]:
    numbers = (d.condition_number, d.damping, d.trust_ratio, d.loss, d.loss_after)
    return [
        str(d.step),
        str(d.block),
        *map(_number, numbers),
        _taken(d),
        str(d.solved_by or d.route),
        d.reason,
    ]


def _taken(d: Decision) -> str:
    """Yes or no: was the step taken? With its length, as a multiple of the solution."""
    if not d.accepted:
        return "no"
    return f"yes, × {d.length:.3g}" if is_known(d.length) and d.length != 1 else "yes"


def table(columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> str:
    """HTML of a table; columns are (heading, whether it holds text), cells plain text."""

    def cell(tag: str, value: str, text: bool) -> str:
        return f"<{tag}{' class=text' if text else ''}>{html.escape(value)}</{tag}>"

    head = ""
    if any(name for name, _ in columns):
        head = "<thead><tr>" + "".join(cell("th", *c) for c in columns) + "</tr></thead>"
    lines = [
        "<tr>"
        + "".join(cell("td", v, text) for v, (_, text) in zip(row, columns, strict=True))
        + "</tr>"
        for row in rows
    ]
    return f"<div class=wide><table>{head}<tbody>{''.join(lines)}</tbody></table></div>"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


# --- figures --------------------------------------------------------------------------------


def _figure(draw: Callable[..., None], *data: Any, caption: str) -> str:
    """The figure that `draw(figure, *data)` draws, as inline SVG."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "A report needs Matplotlib: run `pip install keras-qnewton[report]`."
        ) from error
    # Text as text: smaller, and it can be searched.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "keras_qnewton"}):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        draw(figure, *data)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    label = html.escape(caption)
    return f'<figure role="img" aria-label="{label}">{svg}<figcaption>{label}</figcaption></figure>'


def _axes(figure: Figure, ylabel: str, logarithmic: bool = True) -> Axes:
    axes = figure.subplots()
    _dress(axes, ylabel, logarithmic)
    axes.set_xlabel("step")
    return axes


def _dress(axes: Axes, ylabel: str, logarithmic: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, alpha=0.3)
    if logarithmic:
        axes.set_yscale("log", nonpositive="mask")


def _plot(
    axes: Axes, points: Iterable[tuple[int | None, float | None]], label: str, style: str = "-"
) -> None:
    known = [(x, y) for x, y in points if is_known(y) and abs(y) < _LARGEST_DRAWN]
    if known:
        # A dollar would begin a formula, and what is not printable has no glyph.
        label = "".join(c for c in label if c.isprintable()).replace("$", r"\$")
        axes.plot(*zip(*known, strict=True), style, label=label, markersize=3)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _loss(figure: Figure, steps: Sequence[Decision]) -> None:
    axes = _axes(figure, "loss")
    _plot(axes, ((d.step, d.loss) for d in steps), "before", "o-")
    _plot(axes, ((d.step, d.loss_after) for d in steps if d.accepted), "after, taken", ".")
    _plot(axes, ((d.step, d.loss_after) for d in steps if not d.accepted), "after, refused", "x")
    _legend(axes)


def _trust(figure: Figure, steps: Sequence[Decision]) -> None:
    left, right = figure.subplots(1, 2)
    _dress(left, "damping λ")
    _plot(left, ((d.step, d.damping) for d in steps), "λ")
    _dress(right, "trust ratio ρ", logarithmic=False)
    _plot(right, ((d.step, d.trust_ratio) for d in steps), "ρ", "o")
    right.axhline(0.25, color="C3", linewidth=1)
    for axes in (left, right):
        axes.set_xlabel("step")


def _kappa(figure: Figure, blocks: dict[str, list[Decision]]) -> None:
    axes = _axes(figure, "condition number κ")
    for name, own in blocks.items():
        _plot(axes, ((d.step, d.condition_number) for d in own), name)
    if len(blocks) <= 12:
        _legend(axes)


def _residuals(figure: Figure, decisions: Sequence[Decision]) -> None:
    axes = _axes(figure, "‖Ax - b‖ / ‖b‖")
    solvers = dict.fromkeys(d.solved_by or d.route for d in decisions)
    for solver in solvers:
        own = (d for d in decisions if (d.solved_by or d.route) == solver)
        _plot(axes, ((d.step, d.residual) for d in own), solver, "o")
    _legend(axes)


def _seconds(figure: Figure, decisions: Sequence[Decision], steps: Sequence[Decision]) -> None:
    axes = _axes(figure, "seconds")
    _plot(axes, ((d.step, d.step_seconds) for d in steps), "measured: the step")
    totals: dict[str, dict[int | None, float]] = collections.defaultdict(
        lambda: collections.defaultdict(float)
    )
    for d in decisions:
        for route, seconds in d.predicted.items():
            totals[route][d.step] += seconds
    for route, by_step in totals.items():
        _plot(axes, by_step.items(), f"predicted: {route}", "--")
    _legend(axes)
