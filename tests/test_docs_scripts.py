"""What stands behind the pages: README's limits and lines, and what was measured."""

import importlib.util
import pathlib

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
ENVIRONMENTS = pathlib.Path(__file__).parent / "environments"


@pytest.fixture(autouse=True)
def _scripts_find_one_another(monkeypatch):
    monkeypatch.syspath_prepend(ENVIRONMENTS)


def script(name, folder=DOCS):
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "words", "numbers"),
    [
        ("One two, 3.\n", 3, 1),
        ("[a link](docs/page1.md) in 2 tables | 4 |\n", 6, 2),
        ("word\n\n    python -m pip 1 2 3\n\nword\n", 2, 0),
        ("word\n```python\nx = 1\n\n    y = 2\n```\nword\n", 2, 0),
        ("2,048 weights and 3.10 to 3.13\n", 6, 3),
    ],
)
def test_words_and_numbers_of_prose_are_counted(text, words, numbers):
    assert script("readme_limits").counts(text) == {"words": words, "numbers": numbers}


def test_readme_is_within_its_limits():
    limits = script("readme_limits")
    found = limits.counts(limits.README.read_text("utf-8"))
    assert all(found[name] <= limit for name, limit in limits.LIMITS.items()), found


def test_a_newcomer_meets_commands_and_code_in_order():
    page = (
        "Do\n\n    make demo    # a word\n\nthen\n\n```python\nx = 1\n```\n```text\n    no\n```\n"
    )
    assert list(script("newcomer", ENVIRONMENTS).parts(page)) == [
        ("command", "make demo"),
        ("code", "x = 1\n"),
    ]


def test_readme_begins_with_its_installation():
    newcomer = script("newcomer", ENVIRONMENTS)
    kinds = list(newcomer.parts((DOCS.parent / "README.md").read_text("utf-8")))
    assert kinds[0] == ("command", "python -m pip install .")
    assert [kind for kind, _ in kinds].count("code") == 1


def test_tables_are_those_of_committed_results():
    measured = script("measured")
    for path in measured.PAGES:
        page = path.read_text("utf-8")
        assert "<!-- measured:" in page
        assert measured.rewritten(page) == page, "run python docs/measured.py"


_PAGE = """# A page

```python
from matplotlib.figure import Figure

figure = Figure()
figure.subplots().plot([1, 2])
print("drawn")
figure.savefig("page.svg")
```

```text
something else
```
"""


def test_the_gallery_keeps_a_figure_without_its_date_and_what_is_printed(tmp_path):
    pytest.importorskip("matplotlib")
    draw = script("draw", DOCS / "gallery").draw
    page = tmp_path / "page.md"
    page.write_text(_PAGE, "utf-8")
    draw(page)
    first = page.with_suffix(".svg").read_text("utf-8")
    assert page.read_text("utf-8") == _PAGE.replace("something else", "drawn")
    draw(page)
    assert page.with_suffix(".svg").read_text("utf-8") == first
    assert "<svg" in first and "<dc:date>" not in first


def test_architecture_is_short():
    lines = (DOCS / "architecture.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150


def test_every_decision_is_listed_and_linked():
    index = (DOCS / "decisions" / "index.md").read_text("utf-8")
    architecture = (DOCS / "architecture.md").read_text("utf-8")
    for page in (DOCS / "decisions").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
        assert f"(decisions/{page.name})" in architecture


def test_the_matrix_asks_for_the_lowest_versions_that_are_promised():
    matrix = script("matrix", ENVIRONMENTS)
    lowest = matrix.requirements("lowest")
    assert "tensorflow==2.18.*" in lowest and "keras==3.10.*" in lowest and lowest[-1] == "."
    assert all("==" in one for one in lowest[:-1])
