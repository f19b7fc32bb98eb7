"""`python -m keras_qnewton doctor`: what it finds, and what it says of what is wrong."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from keras_qnewton import doctor
from keras_qnewton.__main__ import main


def finding(title):
    (found,) = (f for f in doctor.examine(quick=True) if f.title == title)
    return found


def test_nothing_is_wrong_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("No problem found.\n")
    titles = ("Versions", "Keras", "Devices", "Calibration", "What would run where", "Training")
    assert all(f"\n{title}\n" in f"\n{printed}" for title in titles)


def test_versions_are_those_that_are_installed():
    facts = finding("Versions").facts
    assert f"numpy {importlib.metadata.version('numpy')}." in facts


@pytest.mark.parametrize(
    ("needed", "problem"),
    [
        ("numpy<1", 'not <1. Run: python -m pip install "numpy<1"'),
        ("no-such-thing>=2", 'no-such-thing is not installed. Run: python -m pip install "no-'),
    ],
)
def test_a_version_that_does_not_do_comes_with_the_command(monkeypatch, needed, problem):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [needed])
    (told,) = finding("Versions").problems
    assert problem in told


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    (told,) = finding("Calibration").problems
    assert "XDG_CACHE_HOME" in told


def test_a_check_that_fails_does_not_keep_the_others_from_being_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    findings = list(doctor.examine(quick=True))
    (devices,) = (f for f in findings if f.title == "Devices")
    assert "ModuleNotFoundError" in devices.problems[0]
    assert findings[-1].title == "Calibration"


def test_another_backend_is_a_problem_with_its_remedy():
    pytest.importorskip("jax")
    out = subprocess.run(
        [sys.executable, "-m", "keras_qnewton", "doctor", "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert out.returncode == 1
    assert "PROBLEM: The package needs Keras on TensorFlow" in out.stdout


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2 s"), (1.5e-3, "1.5 ms"), (4e-13, "400 fs"), (1e-20, "1.0e-20 s")]
)
def test_times_have_units(seconds, text):
    assert doctor._time(seconds) == text


def test_a_package_that_is_not_installed_is_said(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    (told,) = finding("Versions").problems
    assert "python -m pip install ." in told
