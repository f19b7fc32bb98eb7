"""The figures that pages have of committed results: `docs/plotted.py` draws them."""

import importlib
import json
import pathlib
import re
import xml.etree.ElementTree as ET

import pytest

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

DOCS = pathlib.Path(__file__).parents[1] / "docs"
LARGEST = 150_000


@pytest.fixture
def plotted(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("plotted")


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("measured")


def lines(plotted, name, panel):
    """Of a panel its lines by their labels: what they are drawn through."""
    figure = Figure()
    plotted.PLOTS[name].draw(figure, plotted.runs_of(name))
    drawn = figure.axes[panel].lines
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in drawn}


def test_pages_show_each_figure_once_and_say_what_is_in_it(plotted):
    shown = []
    for path in DOCS.rglob("*.md"):
        page = path.read_text("utf-8")
        shown += re.findall(r"<!-- plotted: (\w+) -->", page)
        assert plotted.rewritten(path, page) == page, "run python docs/measured.py"
    assert sorted(shown) == sorted(plotted.PLOTS)
    assert all(len(plot.shows) > 60 for plot in plotted.PLOTS.values())


def test_figures_are_of_the_committed_results(plotted):
    """And to the byte what is drawn here, if the same Matplotlib drew them."""
    for name in plotted.PLOTS:
        file = (DOCS / "figures" / f"{name}.svg").read_text("utf-8")
        digest = plotted.digest(plotted.runs_of(name))
        assert f"<dc:identifier>{digest}</dc:identifier>" in file, "run python docs/measured.py"
        assert ET.fromstring(file).tag.endswith("svg") and "<dc:date>" not in file
        assert len(file.encode()) < LARGEST
        if f"Matplotlib v{matplotlib.__version__}," in file:
            assert plotted.drawn(name) == file, "run python docs/measured.py"


def test_a_readers_own_settings_do_not_show(plotted):
    first = plotted.drawn("solve")
    own = {"lines.linewidth": 9, "svg.hashsalt": None, "svg.fonttype": "path", "font.size": 20}
    with matplotlib.rc_context(own):
        assert plotted.drawn("solve") == first
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_other_results_are_another_figure(plotted):
    runs = plotted.runs_of("solve")
    same = json.loads(json.dumps(runs))
    assert plotted.digest(same) == plotted.digest(runs)
    next(run for run in same if "size" in run)["ours_over_scipy"]["lu"] += 1
    assert plotted.digest(same) != plotted.digest(runs)


def test_lines_go_through_the_numbers_of_the_table(plotted, tables):
    """Of the solvers: a row for each size, a column for each line."""
    cells = re.findall(r"^\| (float\d+) \| ([\d,]+) \|(.*)\|$", tables.table("solve"), re.M)
    for panel, dtype in enumerate(("float32", "float64")):
        drawn = lines(plotted, "solve", panel)
        for column, name in enumerate(("Cholesky", "Lapack", "LU")):
            said = [
                (int(size.replace(",", "")), rest.split("|")[2 + column].strip())
                for of, size, rest in cells
                if of == dtype
            ]
            assert [(size, f"{ratio:.2f}") for size, ratio in drawn[name]] == said


def test_problems_that_are_solved_are_those_of_the_table(plotted, tables):
    rows = re.findall(r"^\| .* \| (\d+) \| (\d+) \|$", tables.table("classics"), re.M)
    for panel in range(2):
        drawn = lines(plotted, "classics", panel)
        assert [max(count for _, count in line) for line in drawn.values()] == [
            int(row[panel]) for row in rows
        ]


def test_a_loss_of_zero_is_drawn_at_the_lower_edge(plotted):
    runs = [
        run for run in plotted.runs_of("race") if run["task"] == "digits" and "lowest_by" in run
    ]
    assert min(min(run["lowest_by"].values()) for run in runs) == 0
    drawn = lines(plotted, "race", 3)
    assert min(loss for _, loss in drawn["QNewton()"]) == 1e-13


def test_figures_of_one_panel_fit_a_phone():
    """The styles name them, since they cannot tell: others are scrolled by themselves."""
    styles = (DOCS / "stylesheets" / "site.css").read_text("utf-8")
    named = re.findall(r'\[src\$="([\w.]+)"\]', styles)
    widths = {
        path.name: float(re.search(r'<svg[^>]*? width="([\d.]+)pt"', path.read_text("utf-8"))[1])
        for path in DOCS.rglob("*.svg")
    }
    narrow = [name for name, width in widths.items() if width <= 6.4 * 72]
    assert len(narrow) > 5 and sorted(named) == sorted(2 * narrow)


def test_ours_alone_is_black(plotted):
    style = importlib.import_module("result_plots.style")
    names = ("Adam(0.001)", "Adam(0.003)", "Adam(0.01)", "SciPy L-BFGS-B", "QNewton()")
    found = {name: style.of_optimizer(name) for name in names}
    assert len({one["color"] for one in found.values()}) == len(names)
    assert [name for name, one in found.items() if one["color"] == style.OURS] == ["QNewton()"]
