"""The examples, each as a user runs it: a process of its own, and its verdict."""

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASS" in result.stdout
    return result.stdout


def test_hybrid_iris():
    out = run("hybrid_iris.py", "--steps", "4")
    assert "qsvt" in out and "lu" in out


def test_savedmodel_pipeline(tmp_path):
    out = run("savedmodel_pipeline.py", "--directory", str(tmp_path))
    assert "trained on, fresh process" in out


def test_quantum_linear_system(tmp_path):
    picture = tmp_path / "errors.png"
    out = run("quantum_linear_system.py", "--quick", "--out", str(picture))
    assert "T-count" in out and "200,000 shots, refined" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_quantum_classifier():
    out = run("quantum_classifier.py", "--quick", "--draw")
    assert "Rx(x00)" in out and "Largest differences from" in out


@pytest.mark.slow
def test_digits_mlp():
    run("digits_mlp.py")
