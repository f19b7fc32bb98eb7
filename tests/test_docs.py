"""The pages in `docs/`: their code runs, their links lead somewhere, their figures are drawn."""

import json
import re
import runpy
import sys

import pytest

from tests.pages import DOCS, NUMBER, blocks, broken_links, installed, run, same_but_for_rounding

PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
WITH_CODE = [name for name in PAGES if blocks(DOCS / name, "python")]
# A page whose code takes a second or two; the others train models.
FAST = {"stability.md", "start.md"}

# A page each: its code, its figure, and what it prints.
GALLERY = [name for name in WITH_CODE if name.startswith("gallery/")]
LARGEST_FIGURE = 150_000


def of_pages(names):
    return [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow, id=name)
        for name in names
    ]


@pytest.mark.parametrize("name", of_pages(sorted({*WITH_CODE} - {*GALLERY})))
def test_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DDE_BACKEND", "tensorflow")  # as a page sets it
    monkeypatch.chdir(tmp_path)
    run(DOCS / name, tmp_path)


@pytest.mark.parametrize("name", of_pages(GALLERY))
def test_gallery_page_draws_and_prints_what_it_says(name, tmp_path, monkeypatch, capsys):
    page = DOCS / name
    if not all(installed(code) for code in blocks(page, "python")):
        pytest.skip("the extra `examples` is not installed")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    run(page, tmp_path)
    sys.modules["matplotlib.pyplot"].close("all")
    assert (tmp_path / f"{page.stem}.svg").read_text("utf-8").count("<svg") == 1
    printed, (promised,) = capsys.readouterr().out, blocks(page, "text")
    # What a page reaches by the clock depends on the machine, and on what else runs there.
    timed = any("perf_counter" in code for code in blocks(page, "python"))
    same = NUMBER.sub("#", printed) == NUMBER.sub("#", promised)
    assert same if timed else same_but_for_rounding(printed, promised), printed


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(DOCS.glob("gallery/*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs(notebook, tmp_path, monkeypatch, capsys):
    """Cell by cell, but for the one that installs. Its numbers are the page's, see above."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"][1:]
    if not all(installed("".join(cell["source"])) for cell in code):
        pytest.skip("the extra `examples` is not installed")
    namespace = {"__name__": "notebook"}
    for number, cell in enumerate(code):
        file = tmp_path / f"cell_{number}.py"
        file.write_text("".join(cell["source"]), "utf-8")
        exec(compile(file.read_text("utf-8"), str(file), "exec"), namespace)
        printed = capsys.readouterr().out
        promised = "".join(line for output in cell["outputs"] for line in output["text"])
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", promised), printed
    sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("name", GALLERY)
def test_gallery_page_and_list_show_its_figure(name):
    page = DOCS / name
    figure = page.with_suffix(".svg")
    assert figure.stat().st_size <= LARGEST_FIGURE and "<dc:date>" not in figure.read_text("utf-8")
    assert f"]({figure.name})" in page.read_text("utf-8")
    index = (page.parent / "index.md").read_text("utf-8")
    assert f"]({page.name})" in index and f"]({figure.name})" in index


def test_home_page_has_readmes_sample():
    """Whose printed lines are tested."""
    (code,), (printed,) = (blocks(DOCS / "index.md", kind) for kind in ("python", "text"))
    readme = DOCS.parent / "README.md"
    assert [code] == blocks(readme, "python") and [printed] == blocks(readme, "text")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    assert not broken_links(DOCS / name)


def test_public_names_are_in_the_reference():
    import keras_qnewton

    reference = (DOCS / "reference.md").read_text("utf-8")
    listed = re.findall(r"^::: keras_qnewton\.(?:\w+\.)?(\w+)$", reference, re.M)
    assert sorted(listed) == sorted(keras_qnewton.__all__)
    stable = (DOCS / "stability.md").read_text("utf-8")
    assert all(f"`{name}`" in stable for name in keras_qnewton.__all__)


def test_solvers_and_prices_are_in_the_reference():
    from keras_qnewton import scheduling, solvers

    further = (DOCS / "reference_further.md").read_text("utf-8")
    elsewhere = {"Scheduler", "LinearSolver"}  # in the reference; the protocol of one's own
    for module in (solvers, scheduling):
        for name in {*module.__all__} - elsewhere:
            assert f"::: {module.__name__}.{name}\n" in further, name


@pytest.mark.slow
def test_healthy_and_sick_figure(tmp_path, monkeypatch):
    """It is drawn, and shows what the page says of it."""
    figure = tmp_path / "figure.svg"
    script = DOCS / "figures" / "healthy_and_sick.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--out", str(figure)])
    drawn = runpy.run_path(str(script), run_name="__main__")
    assert figure.read_text("utf-8").count("<svg") == 1
    healthy, sick = drawn["run"](sick=False), drawn["run"](sick=True)
    assert healthy[-1].loss_after < 1e-6 < 0.1 < sick[-1].loss_after
    assert healthy[-1].damping < 1e-3 * healthy[0].damping
    assert sick[-1].damping > 1e3 * sick[0].damping
