"""README and the guide: their code runs, their links lead somewhere, README stays short."""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/benchmarks.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Modules that an extra installs, by the import in a block that needs them.
EXTRAS = {"from keras_qnewton.report import": "matplotlib"}
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page(name)) if found == language]


def installed(code: str) -> bool:
    needed = [module for line, module in EXTRAS.items() if line in code]
    return all(importlib.util.find_spec(module) for module in needed)


def run(name: str, folder: pathlib.Path) -> None:
    """Runs a page's Python blocks, one after the other in one namespace.

    From files: without a source, TensorFlow warns that it cannot convert a function.
    """
    namespace = {"__name__": "page"}
    for number, code in enumerate(blocks(name, "python")):
        if installed(code):
            path = folder / f"block_{number}.py"
            path.write_text(code, "utf-8")
            exec(compile(code, str(path), "exec"), namespace)


def test_readme_sample_prints_what_readme_says(capsys, tmp_path):
    run("README.md", tmp_path)
    (promised,) = blocks("README.md", "text")
    printed = capsys.readouterr().out
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", promised)
    # Rounding on another machine may cost a digit of a small loss, not two.
    for value, said in zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True):
        assert 0.1 <= float(value) / float(said) <= 10


@pytest.mark.slow
def test_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("docs/guide.md", tmp_path)
    printed = capsys.readouterr().out
    assert "T-count" in printed and "ZZ" in printed


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page(name))):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
        assert not anchor or anchor in map(slug, headings), target


def slug(heading: str) -> str:
    """GitHub's anchor: lower case, hyphens for spaces, punctuation left out."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
