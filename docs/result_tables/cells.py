"""What tables are made of, and how a cell is written."""

from __future__ import annotations

from typing import Any

# What a benchmark wrote, a row a run; and the cells of a table, its head first.
Runs = list[dict[str, Any]]
Table = list[list[str]]


def two_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def code(text: str) -> str:
    return f"`{text}`"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms" if seconds < 0.1 else f"{1e3 * seconds:,.0f} ms"


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:,.0f} %"
