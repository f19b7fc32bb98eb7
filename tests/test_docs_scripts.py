"""What stands behind the pages: README's limits and lines, and what was measured."""

import configparser
import importlib.util
import json
import pathlib
import re

import pytest

from tests.pages import blocks

DOCS = pathlib.Path(__file__).parents[1] / "docs"
ENVIRONMENTS = pathlib.Path(__file__).parent / "environments"


@pytest.fixture(autouse=True)
def _scripts_find_one_another(monkeypatch):
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    monkeypatch.syspath_prepend(DOCS)


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
    named = []
    for path in DOCS.rglob("*.md"):
        page = path.read_text("utf-8")
        named += re.findall(r"<!-- measured: (\w+) -->", page)
        assert measured.rewritten(page) == page, "run python docs/measured.py"
    assert sorted(named) == sorted(measured.TABLES)


@pytest.mark.parametrize("page", [page for page, _ in script("keyed").pages()])
def test_measured_numbers_are_those_of_committed_results(page):
    keyed = script("keyed")
    text = dict(keyed.pages())[page]
    assert not keyed.wrong(text)
    assert not keyed.unkeyed(text, keyed.not_measured(page))


def test_results_have_a_command_a_date_and_a_machine():
    keyed, measured = script("keyed"), script("measured")
    used = "".join(text for _, text in keyed.pages())
    for path in keyed.RESULTS.glob("*.json"):
        about = json.loads(path.read_text("utf-8"))["about"]
        assert {"command", "date", "machine", "versions"} <= set(about)
        tables = [name for name, (file, _) in measured.TABLES.items() if file == path.stem]
        assert tables or f" {path.stem}/" in used, "no page uses it"


def test_what_is_said_not_to_be_measured_is_said_somewhere():
    keyed = script("keyed")
    pages = {name: re.sub(r"\s+", " ", text) for name, text in keyed.pages()}
    for line in keyed.NOT_MEASURED.read_text("utf-8").splitlines():
        of, separator, phrase = line.partition(" | ")
        if separator:
            assert any(phrase in text for name, text in pages.items() if of in ("*", name)), line


@pytest.mark.parametrize(
    ("number", "said", "same"),
    [
        (0.734, "0.73", True),
        (0.736, "0.73", False),
        (1287.0, "1,300", True),
        (1287.0, "1,200", False),
        (3.4e-9, "3e-9", True),
        (3.6e-9, "3e-9", False),
        (0.0, "0", True),
        (1.2e-08, "1.2e-08", True),
    ],
)
def test_a_number_is_what_its_value_rounds_to(number, said, same):
    assert script("keyed").rounds_to(number, said) == same


def test_keys_lead_into_results(tmp_path):
    keyed = script("keyed")
    keyed.RESULTS = tmp_path
    rows = [{"of": "a b", "ms": [2.0, 3.0]}, {"of": "c", "ms": [4.0, 9.0]}]
    (tmp_path / "some.json").write_text(json.dumps({"runs": rows}), "utf-8")
    assert keyed.value_of("some/of=a_b/ms/1") == 3
    assert keyed.value_of("max some/*/ms/0") == 4
    assert keyed.value_of("some/of=c/ms/0 over some/of=a_b/ms/0 * 10") == 20
    right, no_row = "It took 4 ms<!-- some/of=c/ms/0 -->.", "5<!-- some/of=d/ms/0 -->"
    assert not keyed.wrong(right) and not keyed.unkeyed(right, [])
    (found,) = keyed.wrong(right.replace("4 ms", "5 ms"))
    assert found == "5 (some/of=c/ms/0) is 4"
    assert len(keyed.wrong(no_row)) == 1
    page = "```text\nthe error 0.22\n```\nAn error of 0.2<!-- printed -->"
    assert not keyed.wrong(page) and keyed.wrong(page.replace("0.2<", "0.3<"))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It takes 3 ms, or 4 seconds.", 2),
        ("A loss of 3e-8, an accuracy of 0.97, and 20 % of it.", 3),
        ("| a | 2,031 | 1e-5 |", 2),
        ("Blocks of 2,048 weights, `3 ms`, [a link](x3.5)\n\n    python 3.5\n", 0),
        ("```text\n3 ms\n```", 0),
        ("<!-- measured: some -->\n| 3 ms |\n<!-- end of measured -->", 0),
        ("It takes 3.0 on Python 3.10.", 1),
    ],
)
def test_numbers_that_look_measured_are_found(text, count):
    assert len(script("keyed").unkeyed(text, ["Python 3.10"])) == count


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


@pytest.mark.parametrize("name", script("notebooks", DOCS / "gallery").PAGES)
def test_a_notebook_is_its_page(name):
    notebooks = script("notebooks", DOCS / "gallery")
    file = (DOCS / "gallery" / f"{name}.ipynb").read_text("utf-8")
    assert file == notebooks.written(name), "run python docs/gallery/notebooks.py"
    code = ["".join(c["source"]) for c in json.loads(file)["cells"] if c["cell_type"] == "code"]
    assert code[0].startswith("%pip install")
    assert [f"{cell}\n" for cell in code[1:]] == blocks(DOCS / "gallery" / f"{name}.md", "python")


def test_architecture_is_short():
    lines = (DOCS / "architecture.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150


def test_every_decision_is_listed_and_linked():
    index = (DOCS / "decisions" / "index.md").read_text("utf-8")
    architecture = (DOCS / "architecture.md").read_text("utf-8")
    for page in (DOCS / "decisions").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
        assert f"(decisions/{page.name})" in architecture


def test_pip_sees_the_bounds_that_extras_have_before_it_downloads():
    """It takes requirements in order: the first on TensorFlow decides what is downloaded."""
    requirement = pytest.importorskip("packaging.requirements").Requirement
    setup = configparser.ConfigParser()
    setup.read(DOCS.parent / "setup.cfg", encoding="utf-8")
    first, then = map(requirement, setup["options"]["install_requires"].split("\n")[1:3])
    assert first.name == then.name == "tensorflow"
    assert "2.18.1" in first.specifier and "2.19.0" not in first.specifier
    bounded = [e for e in setup["options.extras_require"] if first.marker.evaluate({"extra": e})]
    assert bounded == ["tfq", "deepxde", "bench-peers"]
    assert not first.marker.evaluate({"extra": ""}) and then.marker is None


def test_the_matrix_asks_for_the_lowest_versions_that_are_promised():
    matrix = script("matrix", ENVIRONMENTS)
    lowest = matrix.requirements("lowest")
    assert "tensorflow==2.18.*" in lowest and "keras==3.10.*" in lowest and lowest[-1] == "."
    assert all("==" in one for one in lowest[:-1])
