"""The benchmark on DeepXDE's examples, as its smallest run, and the solution it compares with.

DeepXDE is in no environment but that of `make test-deepxde`.
"""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
OURS = ("QNewton", "quasi-Newton")
METHODS = [*OURS, "adam", "L-BFGS", "adam, L-BFGS"]


@pytest.fixture(scope="module", autouse=True)
def deepxde():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDE_BACKEND", "tensorflow")
        patch.syspath_prepend(str(BENCHMARKS))
        yield pytest.importorskip("deepxde", reason="DeepXDE is not installed: make test-deepxde")


@pytest.mark.slow
def test_deepxde_examples(tmp_path):
    path = tmp_path / "deepxde.json"
    # Of the processor, whatever else the machine does.
    seconds = ["--seconds", "24", "--processor", "--jobs", "2"]
    options = ["--problems", "poisson", "inverse", *seconds, "--json", str(path)]
    command = [sys.executable, str(BENCHMARKS / "deepxde_examples.py"), *options]
    result = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads(path.read_text())["runs"]
    assert [row["optimizer"] for row in rows] == METHODS * 2
    for row in rows:
        assert row["steps"] > 0 and row["budget"] == 24 and row["seconds_of"] == "processor"
        assert math.isfinite(row["loss"]) and [row["loss"], row["l2"]] == row["looks"][-1][2:]
        assert len(row["unknowns"]) == len(row["true_values"]) == (row["problem"] == "inverse")
    ours = [row for row in rows if row["optimizer"] in OURS]
    assert all(row["loss"] < 0.1 * row["looks"][0][2] for row in ours)
    assert all(row["formed_by"] in result.stdout for row in ours)


@pytest.mark.slow
def test_deepxdes_burgers_reference_solves_the_equation():
    """By central differences, away from the front, whose width is their step's."""
    from deepxde_problems import VISCOSITY, cole_hopf

    rng, h = np.random.default_rng(0), 1e-3
    x = np.stack([rng.uniform(0.2, 0.9, 200), rng.uniform(0.05, 0.9, 200)], 1)
    u = cole_hopf(x)

    def moved(place, time):
        return cole_hopf(x + np.array([place, time]))

    in_place = (moved(h, 0) - moved(-h, 0)) / (2 * h)
    in_time = (moved(0, h) - moved(0, -h)) / (2 * h)
    twice = (moved(h, 0) - 2 * u + moved(-h, 0)) / h**2
    residual = in_time + u * in_place - VISCOSITY * twice
    assert np.abs(residual).max() < 1e-3 * np.abs(in_place).max()
    start = np.stack([np.linspace(-1, 1, 9), np.zeros(9)], 1)
    np.testing.assert_allclose(cole_hopf(start)[:, 0], -np.sin(np.pi * start[:, 0]), atol=1e-12)
