"""The examples, each from its first line to its verdict.

One of them is run as a user runs it; the others in the tests' own process, which has imported
TensorFlow already.
"""

import html
import json
import pathlib
import re
import runpy
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_qnewton import project
from keras_qnewton.decision_log import Decisions
from tests import hangs

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a file of the examples with arguments as its own program would be; what it prints."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def program(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        out = capsys.readouterr().out
        assert "PASS" in out
        return out

    return program


@pytest.mark.slow
def test_hybrid_iris():
    """In a process of its own: that it finds its imports."""
    command = [sys.executable, str(EXAMPLES / "hybrid_iris.py"), "--steps", "2"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASS" in result.stdout
    assert "qsvt" in result.stdout and "lu" in result.stdout


def test_savedmodel_pipeline(tmp_path, run):
    out = run("savedmodel_pipeline.py", "--directory", str(tmp_path))
    assert "trained on, fresh process" in out


def test_quantum_linear_system(tmp_path, run):
    picture = tmp_path / "errors.png"
    out = run("quantum_linear_system.py", "--quick", "--out", str(picture))
    assert "T-count" in out and "200,000 shots, refined" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_quantum_classifier(run):
    out = run("quantum_classifier.py", "--quick", "--draw")
    assert "Rx(x00)" in out and "Largest differences from" in out


@pytest.mark.slow
def test_two_workers(tmp_path):
    """In processes of its own, one of which is killed."""
    command = [sys.executable, str(EXAMPLES / "two_workers.py"), "--directory", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=hangs.SECONDS)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert "a worker is gone in run 1" in result.stdout and "PASS" in result.stdout


@pytest.mark.slow
def test_pinn(tmp_path, run):
    picture = tmp_path / "pinn.png"
    out = run("pinn.py", "--quick", "--out", str(picture))
    assert "after quasi-Newton" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_digits_mlp(tmp_path, run):
    picture = tmp_path / "made" / "digits.png"
    out = run("digits_mlp.py", "--out", str(picture))
    assert "Adam, as many steps (25)" in out and "Adam, as many seconds" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def quiet():
    """The study has TensorFlow say nothing but errors: after the test it speaks as before."""
    logger = tf.get_logger()
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_paper(tmp_path, monkeypatch):
    """The study's smoke profile: what it writes, and that it says what its logs say."""
    monkeypatch.setattr(sys, "argv", ["paper", "--profile", "smoke", "--out", str(tmp_path)])
    runpy.run_module("examples.paper", run_name="__main__")
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == len(list(tmp_path.glob("*.png"))) == 10
    assert not re.search(r'(src|href)="(?!data:)', page) and "width=device-width" in page

    for name, family in found["families"].items():
        log = Decisions.from_jsonl(tmp_path / f"{name}.jsonl")
        assert len(log) == family["systems"]
        # As run, at 1e-6 s a gate.
        as_run = project(log, 1e-6)
        assert all(d.predicted["qsvt"] > d.predicted["lu"] for d in log)
        assert list(as_run.routes) == [d.route for d in log]
        prices = family["prices"]["models"]["paper"]
        predicted = sum(d.predicted[d.route] for d in log)
        assert prices["seconds"]["scheduled"][0] == pytest.approx(predicted, rel=1e-9)
        assert as_run.total("lu") == pytest.approx(prices["seconds"]["lu"][0], rel=1e-9)
        # Shorter gates never cost more, nor does readout ever cost less.
        with_readout = family["prices"]["models"]["paper, with readout"]
        assert prices["saved_against_lu"] == sorted(prices["saved_against_lu"])
        for free, paid in zip(
            prices["saved_against_lu"], with_readout["saved_against_lu"], strict=True
        ):
            assert 0 <= paid <= free < 1
        for block in family["blocks"]:
            even = block["break_even"]
            readout = even["paper"] * 1e-8 / block["size"]  # N/ε² runs, ε = 1e-4
            assert even["paper, with readout"] == pytest.approx(readout, rel=1e-6)
        for record in family["probes"]:
            mass = list(record["row_mass"].values())
            assert mass == sorted(mass, reverse=True) and 0 < mass[0] <= 1 + 1e-9
    # Rows belong to the Fisher matrix: four circuits a block.
    assert found["families"]["mlp"]["rows"] == []
    rows, blocks = found["families"]["bert"]["rows"], found["families"]["bert"]["blocks"]
    assert len(rows) == 4 * len(blocks) and "<h2>By the rows</h2>" in page
    for row in rows:
        assert row["rows"] == 16 and row["runs"] >= 2 and 0 < row["success"] <= 1
        assert row["break_even_read"] < row["break_even"]
        assert row["break_even_best"] <= row["break_even"]
    digest = json.loads((tmp_path / "digest.json").read_text("utf-8"))
    assert sum(row["part"] == "rows" for row in digest["runs"]) == len(rows)
    assert set(found["sweeps"]) == {"sparsity", "epsilon", "hidden"}
    saved, routed, falls = found["claims"]
    assert saved["number"] == max(
        found["families"]["mlp"]["prices"]["models"]["paper"]["saved_against_lu"]
    )
    assert routed["above"] <= routed["systems"]
    assert falls["number"] == max(block["fall"] for block in falls["blocks"])
    for claim in found["claims"]:
        assert claim["answer"] in html.unescape(page)
