"""The figures of the gallery, and what its pages say is printed: both are of one run of each page.

    python docs/gallery/draw.py [regression lstm ...]

A page's code saves its figure, `<page>.svg`, into the folder that it runs in. The figure is kept
beside the page, and pages that are notebooks, too, are written as such. Needs the extra `examples`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import notebooks  # noqa: E402

from tests.pages import blocks, run  # noqa: E402

PAGES = sorted(page.stem for page in HERE.glob("*.md") if page.stem != "index")
# The same numbers give the same file.
SAME_FILE = {"svg.hashsalt": "keras_qnewton", "svg.fonttype": "none"}
LARGEST = 150_000


@contextlib.contextmanager
def moved_to(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def draw(page: pathlib.Path) -> None:
    """Runs a page, and keeps its figure and what it prints."""
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as name, moved_to(name):
        # Matplotlib reads it where a page has a process of its own.
        settings = "".join(f"{key}: {value}\n" for key, value in SAME_FILE.items())
        pathlib.Path("matplotlibrc").write_text(settings, "utf-8")
        with matplotlib.rc_context(SAME_FILE), contextlib.redirect_stdout(printed):
            run(page, pathlib.Path(name))
        figure = pathlib.Path(f"{page.stem}.svg").read_text("utf-8")
    dateless = re.sub(r"\s*<dc:date>.*?</dc:date>", "", figure)
    if len(dateless.encode()) > LARGEST:
        raise SystemExit(f"{page.stem}.svg is above {LARGEST} bytes: draw fewer points")
    page.with_suffix(".svg").write_text(dateless, "utf-8")
    (said,) = blocks(page, "text")
    text = page.read_text("utf-8")
    page.write_text(text.replace(f"```text\n{said}", f"```text\n{printed.getvalue()}"), "utf-8")
    print(page.stem, printed.getvalue(), sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", default=PAGES, metavar="page", help=", ".join(PAGES))
    for name in parser.parse_args().pages:
        draw(HERE / f"{name}.md")
    notebooks.main()


if __name__ == "__main__":
    main()
