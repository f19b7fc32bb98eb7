"""The three main pages of the gallery as notebooks: `python docs/gallery/notebooks.py` writes them.

A notebook is its page: prose, code, and what the code prints, with one cell before them that
installs. `draw.py` writes it anew with its page.
"""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
PAGES = ("regression", "pinn_inverse", "digits_cnn")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_KEY = re.compile(r"<!--.*?-->", re.S)
# Nothing is published: a notebook stands in the checkout that it installs.
INSTALL = '%pip install --quiet "../..[examples]"'


def notebook(page: str) -> dict[str, Any]:
    """A page in Markdown as a notebook, in the format 4.5."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str, **fields: Any) -> None:
        lines = source.strip().splitlines(keepends=True)
        name = f"cell-{len(cells)}"
        cells.append({"cell_type": kind, "id": name, "metadata": {}, "source": lines, **fields})

    def add_code(source: str) -> None:
        add("code", source, execution_count=None, outputs=[])

    end = 0
    for found in _FENCE.finditer(page):
        prose = _KEY.sub("", page[end : found.start()])
        if prose.strip():
            add("markdown", prose)
        if len(cells) == 1:
            add_code(INSTALL)
        language, text = found.groups()
        end = found.end()
        if language == "python":
            add_code(text)
        else:  # what the cell before prints
            stream = {"name": "stdout", "output_type": "stream"}
            cells[-1]["outputs"].append({**stream, "text": text.splitlines(keepends=True)})
    add("markdown", _KEY.sub("", page[end:]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def written(name: str) -> str:
    """The file of a page's notebook, as it is to be."""
    page = (HERE / f"{name}.md").read_text("utf-8")
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name in PAGES:
        (HERE / f"{name}.ipynb").write_text(written(name), "utf-8")


if __name__ == "__main__":
    main()
