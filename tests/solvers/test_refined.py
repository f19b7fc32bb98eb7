"""Runs combined, and where they are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.solvers import QSVT, Shots
from keras_qnewton.solvers.quantum import refined

from .systems import symmetric, vector


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 6), seed=st.integers(0, 50))
def test_noise_is_not_solved_by_combining_as_many_runs_as_unknowns(size, seed):
    rng = np.random.default_rng([seed, size])
    matrix, rhs = symmetric(size, 3), rng.normal(size=size)

    def run(gap, number):
        x = np.linalg.solve(matrix, gap)
        return x + 0.05 * np.linalg.norm(x) * rng.normal(size=size) / np.sqrt(size)

    found = refined.refine(matrix, rhs, run, 0.0, size - 1)
    assert found.combined < size
    error = np.linalg.norm(found.x - np.linalg.solve(matrix, rhs)) / np.linalg.norm(rhs)
    assert error > 1e-4 * 0.05**size


@pytest.mark.parametrize("size", [2, 3, 12])
def test_details_say_how_many_runs_were_combined(size):
    solver = QSVT(backend="emulator", readout=Shots(200_000, seed=1), tolerance=1e-4)
    details = solver.solve(symmetric(size, 3), vector(size)).details
    expected = details["refinements"] + 1
    assert details["combined"] == (
        expected if expected < size else min(expected, size - 1) * (size > 2)
    )
