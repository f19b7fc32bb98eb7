"""`NewtonLog`'s files and logs, and the page made of them."""

import html.parser
import json
import math
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import keras
import numpy as np
import pytest

from keras_qnewton import NewtonLog, QNewton, Scheduler
from keras_qnewton.__main__ import main
from keras_qnewton.decision_log import Decisions
from keras_qnewton.report import page_of, report
from keras_qnewton.solvers import QSVT
from keras_qnewton.types import Decision
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
    """Tags that are opened and closed, and the text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.tables = [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tables += tag == "table"
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_whole(run):
    _, log, folder = run
    report(folder / "run.jsonl", folder / "page.html")
    page = (folder / "page.html").read_text()
    parsed = Page(page)
    assert not parsed.open and parsed.tables == 4
    assert "<script" not in page
    # Nothing is fetched: no address outside of SVG's own namespaces.
    assert not re.search(r"""(src|href)\s*=\s*["']?(http|//)""", page)
    figures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(figures) == 5
    for figure in figures:
        curves = ET.fromstring(figure).iter("{http://www.w3.org/2000/svg}path")
        assert sum(len(curve.get("d")) for curve in curves) > 1000
    text = " ".join(parsed.words)
    assert log.decisions[-1].reason in text
    assert log.decisions[-1].formed_by in text
    assert f"{log.decisions[0].loss:.3g}" in text and "qsvt" in text


def test_block_names_are_escaped():
    decision = Decision("lu", "a < b & c", {}, 3, 2.0, 3, step=0, block="<b>", loss=1.0)
    page = page_of([decision])
    assert "<b>" not in page and "&lt;b&gt;" in page and "a &lt; b &amp; c" in page


def test_command(run, tmp_path, capsys):
    source, target = run[2] / "run.jsonl", tmp_path / "out.html"
    assert main(["report", str(source), "-o", str(target)]) == 0
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert main(["report", str(tmp_path / "missing.jsonl"), "-o", str(target)]) == 1
    assert "missing.jsonl" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["report", str(tmp_path / "empty.jsonl")]) == 1
    assert "at least one decision" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1100])
def test_in_a_browser(run, tmp_path, width):
    report(run[2] / "run.jsonl", tmp_path / "page.html")
    probe = (
        "<script>onload = () => { const r = document.documentElement;"
        "const drawn = [...document.querySelectorAll('svg')].every(s => s.getBBox().width > 100);"
        "document.title = `${drawn} ${r.scrollWidth <= r.clientWidth}`; }</script>"
    )
    page = (tmp_path / "page.html").read_text().replace("</body>", probe + "</body>")
    (tmp_path / "page.html").write_text(page)
    # A window below 500 px is not made as narrow as asked, but by an emulated device.
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", f"--window-size={width},2000"]
    done = subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "<title>true true</title>" in done.stdout
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
