"""Numbers as a reader wants them."""

from __future__ import annotations

import math

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
UNKNOWN = "–"


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Seconds with a unit that suits them, or a dash."""
    if value is None or math.isnan(value):
        return UNKNOWN
    for size, unit in _UNITS:
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def percent(part: int, whole: int) -> str:
    """As "30 %", which no line breaks."""
    return f"{100 * part / whole:.0f}\u00a0%"


def share(part: int, whole: int) -> str:
    """As "3 of 10 (30 %)"."""
    return f"{part:,} of {whole:,} ({percent(part, whole)})"


def count(how_many: int, what: str) -> str:
    """As "1 step" or "2 steps"."""
    return f"{how_many:,} {what}{'' if how_many == 1 else 's'}"


def listed(parts: list[str]) -> str:
    """As "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
