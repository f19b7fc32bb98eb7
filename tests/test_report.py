"""`NewtonLog`'s files and logs, and the page made of them."""

import dataclasses
import html.parser
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import keras
import numpy as np
import pytest

from keras_qnewton import NewtonLog, QNewton, Scheduler, project
from keras_qnewton.__main__ import main
from keras_qnewton.decision_log import Decisions
from keras_qnewton.report import page_of, report
from keras_qnewton.report.drawing import COLOURS
from keras_qnewton.run_file import Epoch, write_decisions, write_epoch, write_run
from keras_qnewton.solvers import QSVT
from keras_qnewton.types import Decision
from tests import hangs
from tests.optimizer.models import compiled, regression_data

pytest.importorskip("matplotlib")


SCHEDULER = Scheduler(quantum=QSVT(backend="emulator"), gate_time=1e-18)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained model's history, callback, and files."""
    folder = tmp_path_factory.mktemp("run")
    x, y = regression_data()
    log = NewtonLog(folder / "run.jsonl", tensorboard=folder / "tb")
    optimizer = QNewton(blocks="layer", scheduler=SCHEDULER)
    history = compiled(optimizer).fit(x, y, batch_size=len(x), epochs=4, verbose=0, callbacks=[log])
    return history.history, log, folder


def test_epoch_logs(run):
    history, log, _ = run
    steps = [log.decisions[k] for k in range(0, 8, 2)]
    assert history["damping"] == [d.damping for d in steps]
    assert history["trust_ratio"] == [d.trust_ratio for d in steps]
    assert history["accepted_steps"] == [float(d.accepted) for d in steps]


def test_jsonl_round_trip(run):
    _, log, folder = run
    read = Decisions.from_jsonl(folder / "run.jsonl")
    assert list(read) == list(log.decisions)
    assert all(d.step_seconds > 0 for d in read)
    unknown = Decision("lu", "r", {"lu": math.nan}, 3, math.nan, 3, trust_ratio=math.nan)
    back = Decision.from_dict(json.loads(json.dumps(unknown.to_dict(), allow_nan=False)))
    assert math.isnan(back.trust_ratio) and math.isnan(back.condition_number)
    assert math.isnan(back.predicted["lu"]) and back.step is None


@pytest.mark.parametrize("line", ["not json", "[]", "{}", '{"route": 1, "colour": 2}'])
def test_a_line_that_is_no_decision_is_named(tmp_path, line, run):
    good = (run[2] / "run.jsonl").read_text().splitlines()[0]
    (tmp_path / "bad.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=r"Argument `path` must be .*line 2"):
        Decisions.from_jsonl(tmp_path / "bad.jsonl")


def test_tensorboard_has_the_numbers(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    _, log, folder = run
    events = EventAccumulator(str(folder / "tb"), size_guidance={"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    blocks = {d.block for d in log.decisions}
    of_steps = ("loss", "loss_after", "damping", "trust_ratio", "attempts", "length")
    assert {f"qnewton/{name}" for name in (*of_steps, "step_seconds")} <= tags
    for block in blocks:
        own = [d for d in log.decisions if d.block == block]
        found = [
            (e.step, float(tensor_util.make_ndarray(e.tensor_proto)))
            for e in events.Tensors(f"qnewton/{block}/condition_number")
        ]
        assert [step for step, _ in found] == [d.step for d in own]
        np.testing.assert_allclose(
            [kappa for _, kappa in found], [d.condition_number for d in own], rtol=1e-6
        )
        assert f"qnewton/{block}/predicted_qsvt" in tags
    assert "_hparams_/session_start_info" in events.summary_metadata


class Page(html.parser.HTMLParser):
    """Tags that are opened and closed, attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.tables, self.attributes = [], [], 0, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tables += tag == "table"
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def written(run):
    report(run[2] / "run.jsonl", run[2] / "page.html")
    return (run[2] / "page.html").read_text()


def test_page_is_whole(run, written):
    _, log, _ = run
    parsed = Page(written)
    assert not parsed.open and parsed.tables == 5
    figures = re.findall(r"<svg.*?</svg>", written, re.S)
    assert len(figures) == 11
    for figure in figures:
        curves = ET.fromstring(figure).iter("{http://www.w3.org/2000/svg}path")
        assert sum(len(curve.get("d")) for curve in curves) > 500
    text = " ".join(parsed.words)
    assert log.decisions[-1].reason in text
    assert log.decisions[-1].formed_by in text
    assert f"{log.decisions[0].loss:.3g}" in text and "qsvt" in text
    for said in ("4 steps", "The first step took", "The final loss is", keras.__version__):
        assert said in text


def nothing_from_elsewhere(page):
    """No script, and no address but links to itself and the names of XML's vocabularies."""
    for tag, name, value in Page(page).attributes:
        assert tag != "script" and not name.startswith("on")
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith("#") or value == "data:,"
        elif not name.startswith("xmlns"):
            assert "//" not in value
    style = "".join(re.findall(r"<style.*?</style>", page, re.S))
    assert not re.search(r"@import|url\(|//", style)
    assert not re.search(r"url\((?!#)", page)


def test_nothing_is_fetched_from_elsewhere(written):
    nothing_from_elsewhere(written)


def test_figures_say_what_they_show_and_suit_dark_pages(written):
    parsed = Page(written)
    labels = [
        value for tag, name, value in parsed.attributes if (tag, name) == ("svg", "aria-label")
    ]
    figures = re.findall(r"<svg.*?</svg>", written, re.S)
    assert len(labels) == len(figures) == len(set(labels)) and min(map(len, labels)) > 20
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = {value[1:] for _, name, value in parsed.attributes if name == "xlink:href"}
    assert named <= set(ids)
    palette = {colour.lower() for colour in COLOURS} | {"#000000", "#ffffff", "none"}
    for figure in figures:
        assert "currentColor" in figure and "var(--grid)" in figure
        assert {c.lower() for c in re.findall(r"#[0-9a-fA-F]{6}\b", figure)} <= palette
        assert "width" not in ET.fromstring(figure).attrib  # but as wide as its place
        assert "fill: #ffffff" not in figure
    assert "prefers-color-scheme: dark" in written and 'name="viewport"' in written


# With a character that no XML has, and one that turns the order of letters round.
HOSTILE = "<script>alert('$x$')</script>\" onload=\"alert(1)\x00\u202e"


def test_text_of_a_log_is_escaped(tmp_path):
    decision = Decision("lu", f"a < b & c {HOSTILE}", {HOSTILE: 1.0}, 3, 2.0, 3)
    steps = [
        dataclasses.replace(
            decision, step=k, block=HOSTILE, loss=1.0, loss_after=0.5, residual=1e-9, solved_by=name
        )
        for k, name in enumerate(("lu", HOSTILE))
    ]
    layers = [{"name": HOSTILE, "class": HOSTILE, "weights": HOSTILE}]
    about = {"id": HOSTILE, "date": HOSTILE, "model": {"name": HOSTILE, "layers": layers}}
    about |= {"settings": {HOSTILE: HOSTILE}, "python": [HOSTILE], "fit": {HOSTILE: HOSTILE}}
    with open(tmp_path / "run.jsonl", "w", encoding="utf-8") as file:
        write_run(file, about)
        write_decisions(file, steps)
        write_epoch(file, Epoch(0, 1, {HOSTILE: 1.0, "loss": 1.0}))
    report(tmp_path / "run.jsonl", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "a &lt; b &amp; c" in page
    assert "\x00" not in page and "\u202e" not in page
    for figure in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(figure)
    nothing_from_elsewhere(page)


def test_a_log_without_seconds_or_epochs_says_so():
    steps = [Decision("lu", "r", {}, 3, 2.0, 3, step=k, block="b", loss=1.0) for k in range(3)]
    page = page_of(steps)
    assert "The log has no seconds of its steps" in page and "The log has no epochs" in page
    assert "seconds after the first step" not in page
    assert page_of([Decision("lu", "r", {}, 3, math.nan, 3)])  # as before its step is taken


def test_a_long_run_has_a_page_of_a_few_megabytes():
    step = Decision("lu", "r", {"lu": 1e-3}, 3, 2.0, 3, block="b", accepted=False, residual=1e-9)
    steps = [
        dataclasses.replace(step, step=k, loss=2 + math.sin(k), loss_after=3.0, damping=1 / (1 + k))
        for k in range(5000)
    ]
    page = page_of(steps)
    assert len(page) < 3e6
    assert "refused (some)" in page  # as many crosses would hide the line


def test_extreme_numbers_are_drawn_without_a_warning():
    extremes = (0.0, -0.0, 1e308, -1e308, 5e-324, 1e-300, math.nan, math.inf, None, 1.0)
    steps = [
        Decision(
            "lu",
            "r",
            {"lu": price or 0.0},
            3,
            math.nan if kappa is None else kappa,
            3,
            step=2**62 if k == 9 else k,
            block="漢字" if k % 2 else "",
            solved_by="_" if k % 3 else None,
            **dict.fromkeys(("damping", "step_seconds", "residual", "length"), price),
            **dict.fromkeys(("loss", "loss_after", "trust_ratio"), kappa),
        )
        for k, (price, kappa) in enumerate(zip(extremes, extremes[3:] + extremes[:3], strict=True))
    ]
    page = page_of(steps)
    assert page.count("<svg") >= 5 and not Page(page).open


def test_runs_of_a_file_are_apart(run, tmp_path):
    text = (run[2] / "run.jsonl").read_text()
    (tmp_path / "two.jsonl").write_text(text + text)
    report(tmp_path / "two.jsonl", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Run 2 of 2" in page and page.count("<svg") == 22
    ids = [value for _, name, value in Page(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_command(run, tmp_path, capsys):
    source, target = run[2] / "run.jsonl", tmp_path / "out.html"
    assert main(["report", str(source), "-o", str(target)]) == 0
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert main(["report", str(tmp_path / "missing.jsonl"), "-o", str(target)]) == 1
    assert "there is no file or folder" in (told := capsys.readouterr().err)
    assert "missing.jsonl" in told
    assert main(["report", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["report", str(tmp_path / "empty.jsonl")]) == 1
    assert "at least one decision" in capsys.readouterr().err


def test_a_page_does_not_replace_its_log(run, tmp_path, capsys):
    log = tmp_path / "run.jsonl"
    log.write_text(text := (run[2] / "run.jsonl").read_text())
    assert main(["report", str(log), "-o", str(log)]) == 1
    assert "another file than the log" in capsys.readouterr().err and log.read_text() == text


def test_without_a_command_and_with_help_the_commands_are_listed(capsys):
    assert main([]) == 2
    out = capsys.readouterr().out
    assert all(f"\n    {command} " in out for command in ("doctor", "report", "project"))
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code and "keras_qnewton 0" in capsys.readouterr().out


def test_a_command_prices_a_log_at_another_gate_time(run, tmp_path, capsys):
    log = run[2] / "run.jsonl"
    assert main(["project", str(log), "--gate-time", "1e-12"]) == 0
    assert capsys.readouterr().out == project(log, gate_time=1e-12).summary() + "\n"
    assert main(["project", str(log), "--gate-time", "-1"]) == 1
    assert "`gate_time` must be" in capsys.readouterr().err
    assert main(["project", str(log), "--run", "7"]) == 1
    assert "`run` must be" in capsys.readouterr().err


def test_a_reader_may_stop_reading(run):
    """As `head` does: that is no error."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "keras_qnewton", "project", str(run[2] / "run.jsonl")]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and "pipe" not in done.stderr.lower()


# What a page that holds the report in a frame of a given width finds in it.
PROBE = """<!DOCTYPE html><html><body><iframe id="frame" width="{width}" height="900"></iframe>
<script>
const frame = document.getElementById("frame");
frame.onload = () => {{
  const doc = frame.contentDocument, inner = frame.contentWindow;
  const wider = (one, by) => one.getBoundingClientRect().width > by.clientWidth + 0.5;
  const named = one => one.getAttribute("aria-label") || one.getAttribute("alt");
  const pictures = [...doc.querySelectorAll("svg, img")];
  const spills = svg => [...svg.querySelectorAll("text")].some(text => {{
    const own = text.getBoundingClientRect(), box = svg.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1;
  }});
  document.title = JSON.stringify({{
    scrolls: doc.documentElement.scrollWidth > inner.innerWidth,
    pictures: pictures.length,
    unnamed: pictures.filter(one => !named(one)).length,
    empty: pictures.filter(one => one.getBoundingClientRect().width < 250).length,
    wide: pictures.filter(one => wider(one, one.parentElement)).length,
    cut: pictures.filter(spills).length,
    boxes: [...doc.querySelectorAll(".wide")].filter(one => wider(one, doc.body)).length,
    fetched: inner.performance.getEntriesByType("resource").length,
    background: inner.getComputedStyle(doc.body).backgroundColor,
  }});
}};
frame.srcdoc = {page};
</script></body></html>"""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync "
    "--disable-component-update --enable-logging=stderr --window-size=1300,1000 --dump-dom"
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no `chromium` on the path")
@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser(written, tmp_path, width, scheme):
    # In a frame: a window of its own is never narrower than 500 px.
    page = json.dumps(written).replace("</", "<\\/")
    (tmp_path / "probe.html").write_text(PROBE.format(width=width, page=page))
    command = ["chromium", *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
    done = subprocess.run(
        [*command, (tmp_path / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=hangs.SECONDS,
    )
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout).group(1)))
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}[scheme]
    wrong = ("unnamed", "empty", "wide", "cut", "boxes", "fetched")
    assert found == dict.fromkeys(wrong, 0) | {
        "scrolls": False,
        "pictures": 11,
        "background": paper,
    }
    assert "CONSOLE" not in done.stderr


def test_module_runs_as_a_command(run, tmp_path, monkeypatch):
    """As `python -m keras_qnewton` does, in this process."""
    arguments = ["report", str(run[2] / "run.jsonl"), "-o", str(tmp_path / "page.html")]
    monkeypatch.setattr(sys, "argv", ["keras_qnewton", *arguments])
    monkeypatch.delitem(sys.modules, "keras_qnewton.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("keras_qnewton", run_name="__main__")
    assert not ended.value.code
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_newton_log_outside_of_qnewton_is_refused():
    model = compiled(keras.optimizers.SGD())
    with pytest.raises(ValueError, match="compiled with `QNewton`"):
        model.fit(*regression_data(), verbose=0, callbacks=[NewtonLog()])
