"""Benchmarks of training, each as its smallest run: they run, and write what they say."""

import json
import math
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.slow


def run(name, path, *arguments):
    """The benchmark's output, and its results."""
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--json", str(path), *arguments],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, json.loads(path.read_text())["runs"]


@pytest.mark.parametrize("resample", [False, True])
def test_pinn(tmp_path, resample):
    figure = tmp_path / "pinn.png"
    options = ["--problems", "heat1d", "--seconds", "1", "--seeds", "0", "--figure", str(figure)]
    out, rows = run(
        "pinn.py", tmp_path / "pinn.json", *options, *(["--resample"] if resample else [])
    )
    by_method = {row["method"]: row for row in rows}
    methods = {"QNewton()", "JAX LM", "Adam(0.001)"}
    others = {"QNewton(), memory=1"} if resample else {"SciPy L-BFGS-B"}
    assert set(by_method) == methods | others
    for row in rows:
        assert row["steps"] > 0 and row["seconds"] == 1
        assert math.isfinite(row["final_loss"]) and row["final_l2"] == row["errors"][-1][2]
    assert by_method["QNewton()"]["formed_by"] in out
    assert by_method["QNewton()"]["ms_ours_over_jax"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_kinks(tmp_path):
    options = ["--tasks", "hinge", "--batches", "512", "--epochs", "3"]
    out, (row,) = run("kinks.py", tmp_path / "kinks.json", *options)
    assert row["qnewton"] < row["hessian"] and math.isfinite(row["adam"])
    assert f"{row['qnewton']:.2e}" in out


def test_models(tmp_path):
    out, rows = run("models.py", tmp_path / "models.json", "--models", "dense", "--seconds", "1")
    assert [row["optimizer"] for row in rows] == ["Adam", "QNewton"]
    assert all(row["weights"] == 1482 and row["steps"] >= 2 for row in rows)
    assert rows[1]["route"] and rows[1]["formed_by"] in out


def test_many_models(tmp_path):
    out, rows = run("many_models.py", tmp_path / "many.json", "--models", "3", "2")
    assert [(row["optimizer"], row["models"]) for row in rows] == [
        ("Adam", 2),
        ("Adam", 3),
        ("QNewton", 2),
        ("QNewton", 3),
    ]
    assert all(row["weights"] == 39 for row in rows)
    assert all(len(row["resident_megabytes"]) == row["models"] + 1 for row in rows)
    assert rows[3]["operations_a_model"] == 0
    assert f"{rows[3]['megabytes_a_model']:.2f}" in out


def test_models_that_take_too_long_get_a_note(tmp_path):
    out, rows = run("models.py", tmp_path / "models.json", "--models", "dense", "--limit", "0")
    assert "not done within 0 s" in out
    assert rows == [{"model": "dense", "optimizer": "Adam", "skipped": "not done within 0 s"}]


def test_whole_wait(tmp_path):
    figure, path = tmp_path / "wait.svg", tmp_path / "wait.json"
    _, rows = run(
        "whole_wait.py", path, "--problems", "curve", "--seconds", "0.5", "--figure", str(figure)
    )
    assert {row["method"] for row in rows} > {"QNewton()", "SciPy L-BFGS-B"}
    for row in rows:
        seconds, losses = zip(*(map(float, point.split()) for point in row["line"]), strict=True)
        assert row["first_seconds"] > 0 and row["steps"] > 0
        assert list(seconds) == sorted(seconds)
        assert list(losses) == sorted(losses, reverse=True)
    about = json.loads(path.read_text())["about"]
    assert "whole_wait.py" in about["command"] and {"date", "machine", "versions"} <= set(about)
    assert figure.stat().st_size > 0


def test_small_batches(tmp_path):
    options = ["--batches", "256", "--seeds", "1", "--methods", "QNewton()"]
    out, (row,) = run("small_batches.py", tmp_path / "small.json", *options)
    assert row["accuracy"] > 0.8 and f"{row['accuracy']:.4f}" in out


def test_encodings(tmp_path):
    """A dilation divides by the largest singular value; pruning leaves fewer gates."""
    out, rows = run("encodings.py", tmp_path / "encodings.json", "--seeds", "1")
    costs = {(row["encoding"], row["kept"]): row for row in rows}
    assert costs["dilation", 16]["normalisation"] == pytest.approx(1)
    assert all(row["normalisation"] >= 1 - 1e-9 and row["ancillas"] > 0 for row in rows)
    gates = [costs["sparse", kept]["gates"] for kept in (2, 4, 8, 16)]
    assert gates == sorted(gates) and f"gates {gates[-1]}" in out


def test_quantum_training(tmp_path):
    """All systems of digits by layer go to circuits, and the losses are LU's."""
    path = tmp_path / "quantum.json"
    _, (qsvt, lu, apart) = run("quantum_training.py", path, "--steps", "3")
    assert qsvt["solved_by"] == {"qsvt": 9} and lu["solved_by"] == {"lu": 9}
    assert qsvt["fallbacks"] == 0 and apart["largest_difference"] < 1e-6
    assert qsvt["losses"][-1] < qsvt["losses"][0] - 0.2
