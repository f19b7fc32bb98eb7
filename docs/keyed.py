"""Measured numbers of the pages: each has the key of a committed result, and is what that says.

In a sentence the key is a comment behind the number, which readers do not see:

    A step takes 0.73<!-- solve/dtype=float64,size=1024/chosen_over_scipy --> times as long.

A key is a path into `docs/measured/<first part>.json`: names of fields, positions, or conditions
that choose rows. Where it leads to several numbers, `min`, `max`, `sum` or `median` before it makes
one of them; `over` divides by another, and `*` multiplies, for other units. Blanks in names are
written as `_`. The key `printed` is for a number that the page's own code prints, which tests run.
Tables are made whole: see `docs/measured.py`.

`unkeyed` finds numbers that look measured and have no key. What looks so and is none is listed in
`docs/not_measured.txt`, with what it is.
"""

from __future__ import annotations

import json
import pathlib
import re
import statistics
from collections.abc import Callable, Iterator
from typing import Any

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS / "measured"
NOT_MEASURED = DOCS / "not_measured.txt"

_NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
_KEYED = re.compile(rf"(-?{_NUMBER})((?:\s?[^\s<|.,;]+)?)<!-- ([^>]+?) -->")
_UNITS = (
    "ms|s|seconds?|minutes?|hours?|%|kB|MB|GB|GiB|times|fold|GB/s|evaluations|"
    "as fast|as long|as slow|as high|as low"
)
# What was measured, as it is written: with a unit, with a power of ten, or with a point.
_LOOKS_MEASURED = re.compile(
    rf"(?<![\w.])(?:{_NUMBER}(?=[ -]?(?:{_UNITS})(?![\w-]))|\d[\d,]*(?:\.\d+)?e[+-]?\d+|\d+\.\d+)"
    rf"|(?<=\| ){_NUMBER}(?= \|)"  # a cell of a table
)
# What is no prose: code, tables of `measured.py`, addresses, and comments.
_LEFT_OUT = re.compile(
    r"^```.*?^```$|^    [^\n]*$|<!-- measured: .*?<!-- end of measured -->|`[^`]*`|\]\([^)]*\)"
    rf"|-?{_NUMBER}(?:\s?[^\s<|.,;]+)?<!-- [^>]+? -->|<!--.*?-->",
    re.M | re.S,
)
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "sum": sum,
    "median": statistics.median,
}


# --- what a key leads to --------------------------------------------------------------------


def value_of(key: str) -> float:
    """The number that a key leads to.

    Raises:
        KeyError, ValueError: If it leads nowhere, or to several numbers.
    """
    key, _, factor = key.partition(" * ")
    key, _, divisor = key.partition(" over ")
    value = _one(key.strip())
    if divisor:
        value /= _one(divisor.strip())
    return value * float(factor or 1)


def _one(key: str) -> float:
    first, _, rest = key.partition(" ")
    if rest:
        return float(_AGGREGATES[first](_numbers(rest)))
    (value,) = _numbers(key)
    return value


def _numbers(path: str) -> list[float]:
    name, *steps = path.split("/")
    found: list[Any] = [json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["runs"]]
    for step in steps:
        found = [inner for outer in found for inner in _step(outer, step)]
    if not found:
        raise KeyError(f"{path} leads nowhere")
    return [float(value) for value in found]


def _step(outer: Any, step: str) -> Iterator[Any]:
    if isinstance(outer, dict):
        yield from (value for name, value in outer.items() if name.replace(" ", "_") == step)
    elif step == "*":
        yield from outer
    elif "=" in step:
        wanted = dict(part.split("=", 1) for part in step.split(","))
        yield from (
            row
            for row in outer
            if isinstance(row, dict) and all(_written(row.get(k)) == v for k, v in wanted.items())
        )
    else:
        yield outer[int(step)]


def _written(value: Any) -> str:
    return str(value).replace(" ", "_")


# --- what a page says -----------------------------------------------------------------------


def rounds_to(value: float, said: str) -> bool:
    """Whether a value, rounded to the digits of what is said, is what is said."""
    mantissa, _, power = said.replace(",", "").partition("e")
    if "." in mantissa:
        last = -len(mantissa.partition(".")[2])
    else:  # zeros at the end may be rounding's
        last = len(mantissa) - len(mantissa.rstrip("0")) if mantissa.strip("-0") else 0
    half = 0.5 * 10.0 ** (last + int(power or 0))
    return abs(value - float(f"{mantissa}e{power or 0}")) <= half * (1 + 1e-6)


def wrong(text: str) -> list[str]:
    """Keyed numbers of a page that are not what their key leads to, each with what it is."""
    out = []
    printed = [float(n.replace(",", "")) for n in _printed(text)]
    for said, _, key in _KEYED.findall(text):
        if key.startswith(("measured:", "end of measured")):
            continue
        if key == "printed":
            if not any(rounds_to(value, said) for value in printed):
                out.append(f"{said}: the page prints no such number")
            continue
        try:
            value = value_of(key)
        except (KeyError, ValueError, IndexError, OSError) as error:
            out.append(f"{said} ({key}): {error!r}")
            continue
        if not rounds_to(value, said):
            out.append(f"{said} ({key}) is {value:.6g}")
    return out


def _printed(text: str) -> list[str]:
    blocks = re.findall(r"^```text\n(.*?)^```$", text, re.M | re.S)
    return re.findall(rf"-?{_NUMBER}", " ".join(blocks))


def not_measured(page: str) -> list[str]:
    """Phrases of a page whose numbers are none that was measured."""
    lines = (line for line in NOT_MEASURED.read_text("utf-8").splitlines() if " | " in line)
    entries = (line.split(" | ", 1) for line in lines)
    return [phrase for of, phrase in entries if of in ("*", page)]


def unkeyed(text: str, allowed: list[str]) -> list[str]:
    """Numbers that look measured and have no key, each with what stands around it."""
    prose = _LEFT_OUT.sub(lambda found: " " * len(found[0]) if "\n" not in found[0] else "\n", text)
    prose = re.sub(r"\s+", " ", prose)
    for phrase in sorted(allowed, key=len, reverse=True):
        prose = prose.replace(phrase, "…")
    return [
        prose[max(0, found.start() - 50) : found.end() + 25].strip()
        for found in _LOOKS_MEASURED.finditer(prose)
    ]


def pages() -> Iterator[tuple[str, str]]:
    """README's and the site's pages: name and text."""
    for path in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))):
        yield str(path.relative_to(DOCS.parent)), path.read_text("utf-8")


def main() -> int:
    """1 where a number is wrong or has no key, with a line for each."""
    found = [
        f"{page}: {line}"
        for page, text in pages()
        for line in (*wrong(text), *(f"no key: {n}" for n in unkeyed(text, not_measured(page))))
    ]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
