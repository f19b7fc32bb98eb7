"""HTML: a page with its style, tables and paragraphs. Text is escaped here, and nowhere else."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --quiet: #555d66; --paper: #fff;
        --rule: #d5d9de; --grid: #dfe3e7; --tint: #f3f5f7; --blue: #0072b2; --sky: #56b4e9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --quiet: #a4adb6; --paper: #15181c; --rule: #3a4149; --grid: #30363d;
          --tint: #1f2429; --blue: #56b4e9; --sky: #0072b2; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 68rem; padding: 1rem;
       color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, ul { max-width: 44rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.verdict { background: var(--tint); border-left: .25rem solid var(--blue); padding: .25rem 1rem;
           max-width: 46rem; }
.figures { display: grid; gap: 1rem 2rem;
           grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: .5rem 0; min-width: 0; }
figure svg { display: block; width: 100%; max-width: 30rem; height: auto; }
figure svg text { font-family: system-ui, sans-serif; }
figcaption { max-width: 30rem; margin-top: .25rem; }
.wide { overflow-x: auto; max-width: 100%; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: right;
         vertical-align: top; white-space: nowrap; }
th { border-bottom-width: 2px; font-weight: 600; }
td.text, th.text { text-align: left; }
td.text { white-space: normal; max-width: 26rem; }
td.text:last-child { min-width: 18rem; }
dl { display: grid; grid-template-columns: minmax(6rem, 10rem) 1fr; font-size: .85rem;
     max-width: 46rem; }
dt, dd { margin: 0; padding: .3rem 0; border-bottom: 1px solid var(--rule); min-width: 0;
         overflow-wrap: anywhere; }
dt { color: var(--quiet); padding-right: 1rem; }
"""


def escaped(text: str) -> str:
    """Plain text as HTML; what neither prints nor spaces becomes the replacement character."""
    shown = (c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)
    return html.escape("".join(shown))


def page(title: str, sections: Iterable[str]) -> str:
    """A self-contained HTML page; `title` is plain text, `sections` are HTML."""
    title, body = escaped(title), "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def heading(level: int, text: str) -> str:
    """HTML of a heading; `text` is plain."""
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str, quiet: bool = False) -> str:
    """HTML of a paragraph; `text` is plain. Quiet ones are smaller."""
    return f"<p{' class=quiet' if quiet else ''}>{escaped(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """HTML of a list; `texts` are plain."""
    return "<ul>" + "".join(f"<li>{escaped(text)}</li>" for text in texts) + "</ul>"


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """HTML of names with their values; both are plain text."""
    cells = (f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in rows)
    return f"<dl>{''.join(cells)}</dl>"


def figure(svg: str, caption: str) -> str:
    """HTML of a figure; `svg` is HTML and says what it shows, `caption` is plain."""
    return f"<figure>{svg}<figcaption>{escaped(caption)}</figcaption></figure>"


def table(columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> str:
    """HTML of a table; columns are (heading, whether it holds text), cells plain text."""

    def cell(tag: str, value: str, text: bool) -> str:
        return f"<{tag}{' class=text' if text else ''}>{escaped(value)}</{tag}>"

    head = ""
    if any(name for name, _ in columns):
        head = "<thead><tr>" + "".join(cell("th", *c) for c in columns) + "</tr></thead>"
    lines = [
        "<tr>"
        + "".join(cell("td", v, text) for v, (_, text) in zip(row, columns, strict=True))
        + "</tr>"
        for row in rows
    ]
    # With a place in the order of the Tab key, a box is scrolled by the keyboard, too.
    return f"<div class=wide tabindex=0><table>{head}<tbody>{''.join(lines)}</tbody></table></div>"
