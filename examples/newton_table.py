"""A live table of Newton steps, shared by the examples."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from keras_qnewton import Decision, NewtonLog

_COLUMNS = ("step", "loss", "ρ", "λ", "block", "N", "κ", "d", "route", "residual", "reason")
# What the table needs for a reason on one or two lines.
_WIDTH = 140


def make_console() -> Console:
    """The terminal as it is; a file or a pipe is given room for the whole table."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


class NewtonTable:
    """Shows one row a step and block while a model trains; pass `log` to `fit`'s callbacks."""

    def __init__(self, title: str, console: Console):
        self._console = console
        self._table = Table(title=title, header_style="bold", title_justify="left")
        for name in _COLUMNS:
            words = name in ("block", "route", "reason")
            self._table.add_column(
                name,
                justify="left" if words else "right",
                no_wrap=name != "reason",
                overflow="fold",
                min_width=24 if name == "reason" else None,
            )
        # A file or a pipe gets the finished table once, not every frame.
        self._live = Live(
            self._table, console=console, auto_refresh=False, vertical_overflow="visible"
        )
        self.log = NewtonLog(on_step=self._add)

    def __enter__(self) -> NewtonTable:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(*error)
        if not self._console.is_terminal:
            self._console.print()

    def _add(self, decisions: Sequence[Decision]) -> None:
        for k, d in enumerate(decisions):
            loss = f"{d.loss_after:.2e}" if d.accepted else f"{d.loss:.2e} (kept)"
            shared = (f"{d.step}", loss, f"{d.trust_ratio:.2f}", f"{d.damping:.0e}")
            self._table.add_row(
                *(shared if k == 0 else ("",) * 4),
                str(d.block).rpartition("/")[2],
                f"{d.size}",
                f"{d.condition_number:.0e}",
                f"{d.sparsity}",
                f"{d.route} → {d.solved_by}" if d.fallback else d.route,
                f"{d.residual:.0e}",
                d.reason,
            )
        self._live.refresh()


def verdict(console: Console, passed: bool, text: str) -> None:
    """One line; a failed run exits with code 1."""
    console.print(f"[bold {'green' if passed else 'red'}]{'PASS' if passed else 'FAIL'}[/]: {text}")
    if not passed:
        sys.exit(1)
