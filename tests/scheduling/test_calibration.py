"""The classical calibration: what is measured, and the file that remembers it."""

import json
import math
import os
import stat

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.scheduling import LUTime, SolverTime, calibration


def moved(cache, monkeypatch):
    """The cache file in another folder, of which the process remembers nothing."""
    folder = cache.parent.parent.with_name(cache.parent.parent.name + "_moved")
    cache.parent.parent.rename(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return calibration.cache_file()


def test_fit_recovers_a_cubic():
    truth = (3e-11, 5e-9, 2e-5)
    times = {n: truth[0] * n**3 + truth[1] * n**2 + truth[2] for n in calibration.SIZES}
    assert calibration.fit(times) == pytest.approx(truth, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=6))
def test_fit_of_any_noise_grows(seconds):
    a, b, c = calibration.fit(dict(zip(calibration.SIZES, seconds, strict=False)))
    assert a > 0 and b >= 0 and c >= 0


class Clock:
    """Seconds that readings take, one after the other; the last goes on for ever.

    A reading looks at the clock before and after; the first of each size is a warm-up.
    """

    def __init__(self, *readings):
        self.now, self.looks, self.readings = 0.0, 0, readings

    def __call__(self):
        if self.looks % 2:
            self.now += self.readings[min(self.looks // 2, len(self.readings) - 1)]
        self.looks += 1
        return self.now


# Solves a reading, at the sizes of the tests below.
COUNT = 200


@pytest.mark.parametrize("solver", ["lu", "cholesky", "lapack", "eigen"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_measures_the_shortest_reading_of_every_size(solver, dtype):
    clock = Clock(9.0, 3.0, 1.0, 2.0, 9.0, 4.0, 8.0, 6.0)
    seconds = calibration.measure(solver, dtype, (4, 32), clock=clock, longest=math.inf)
    assert seconds == pytest.approx({4: 1.0 / COUNT, 32: 4.0 / COUNT})


def test_sizes_that_would_take_too_long_are_left_out():
    # 1 s a solve at N = 4, read three times and then five times more.
    clock = Clock(COUNT * 1.0)
    seconds = calibration.measure(
        "cholesky", "float64", (4, 8, 16), clock=clock, longest=7.9, least_sizes=1
    )
    assert seconds == pytest.approx({4: 1.0})
    assert clock.looks == 2 * (1 + 3 + 5)


def test_one_slow_reading_leaves_no_size_out():
    slow, quick = COUNT * 100.0, COUNT * 1e-3
    clock = Clock(slow, slow, slow, slow, slow, quick)  # all of N = 4's, but the second again
    seconds = calibration.measure(
        "cholesky", "float64", (4, 8, 16), clock=clock, longest=1.0, least_sizes=1
    )
    assert seconds == pytest.approx({4: 1e-3, 8: 1e-3, 16: 1e-3})


@pytest.mark.parametrize("least_sizes", [1, 2, 3])
def test_a_slow_reading_later_on_changes_nothing(least_sizes):
    quick = COUNT * 1e-3
    clock = Clock(quick, quick, quick, COUNT * 100.0, quick)
    seconds = calibration.measure(
        "cholesky", "float64", (4, 8, 16), clock=clock, longest=1.0, least_sizes=least_sizes
    )
    assert seconds == pytest.approx({4: 1e-3, 8: 1e-3, 16: 1e-3})


def test_smallest_sizes_are_measured_however_slow_and_it_is_said():
    with pytest.warns(UserWarning) as said:
        seconds = calibration.measure(
            "cholesky", "float64", (2, 4, 8, 16, 32), clock=Clock(COUNT * 100.0), longest=1.0
        )
    assert list(seconds) == [2, 4, 8, 16] and calibration.LEAST_SIZES == 4
    message = str(said.pop().message)
    assert message.startswith("Solver 'cholesky' in float64 was too slow")
    assert "1e+02 s at N = 2, 1e+02 s at N = 4" in message
    assert "call `keras_qnewton.scheduling.calibration.forget()`" in message
    assert "`SolverTime('cholesky', table={size: seconds, ...})`" in message


def test_what_was_forgotten_is_measured_again(cache, measurements):
    LUTime().seconds(10)
    stored = json.loads(cache.read_text())
    cache.write_text(json.dumps({"another machine": {"lu float64": [1, 0, 0]}, **stored}))
    calibration.forget()
    assert list(json.loads(cache.read_text())) == ["another machine"]
    LUTime().seconds(10)
    assert measurements == ["lu float64"] * 2


def test_nothing_to_forget_writes_no_file(cache):
    calibration.forget()
    assert not cache.exists()


def test_each_solver_is_calibrated_once(cache, measurements, monkeypatch):
    for name in ("cholesky", "lapack", "cholesky"):
        assert float(SolverTime(name).seconds(100)) > 0
    assert measurements == ["cholesky float64", "lapack float64"]
    assert float(LUTime().seconds(100)) == float(SolverTime("lu").seconds(100))
    stored = json.loads(cache.read_text())[calibration.fingerprint()]
    assert sorted(stored) == ["cholesky float64", "lapack float64", "lu float64"]
    moved(cache, monkeypatch)
    SolverTime("lapack").seconds(100)
    assert len(measurements) == 3


def test_calibrated_once_and_remembered_in_the_file(cache, measurements, monkeypatch):
    seconds = float(LUTime().seconds(200))
    assert seconds == pytest.approx(2e-11 * 200**3 + 3e-9 * 200**2 + 4e-5, rel=1e-6)
    LUTime().seconds(100)
    assert measurements == ["lu float64"]
    LUTime(dtype="float32").seconds(100)
    assert measurements == ["lu float64", "lu float32"]
    stored = json.loads(cache.read_text())
    assert sorted(stored[calibration.fingerprint()]) == ["lu float32", "lu float64"]

    cache = moved(cache, monkeypatch)
    assert float(LUTime().seconds(200)) == seconds
    assert len(measurements) == 2
    assert os.listdir(cache.parent) == [cache.name]  # no temporary file left

    moved(cache, monkeypatch)
    monkeypatch.setattr(calibration, "fingerprint", lambda: "another machine")
    LUTime().seconds(200)
    assert len(measurements) == 3


BROKEN = ["", "{", "[1]", '{"a": {"float64": [1, 2]}}', "null", "[" * 100_000, '{"a": [[1, 2]]}']


@pytest.mark.parametrize("content", [*BROKEN, b"\xff\x00"], ids=range(len(BROKEN) + 1))
def test_broken_cache_file_is_replaced(cache, measurements, content):
    cache.parent.mkdir()
    cache.write_bytes(content if isinstance(content, bytes) else content.encode())
    LUTime().seconds(10)
    assert measurements == ["lu float64"]
    assert calibration.fingerprint() in json.loads(cache.read_text())


ENTRIES = {
    "negative": [0, -1, 0],
    "too few": [1e-10, 0],
    "text": ["1e-10", "0", "0"],
    "a text of three": "123",
    "flags": [True, False, False],
    "beyond double precision": [10**400, 0, 0],
    "not a list": {"1e-10": 1, "2": 2, "3": 3},
    "nested": [[1e-10], [0], [0]],
    "nothing": None,
    "not finite": [float("inf"), 0, 0],
}


@pytest.mark.parametrize("name", ENTRIES)
def test_cache_entry_that_is_no_calibration_is_measured_again(cache, measurements, name):
    cache.parent.mkdir()
    cache.write_text(json.dumps({calibration.fingerprint(): {"lu float64": ENTRIES[name]}}))
    assert 0 < float(LUTime().seconds(1000)) < 100 and measurements == ["lu float64"]


def test_a_cache_path_that_is_a_folder_leaves_no_temporary_files(cache, measurements):
    cache.mkdir(parents=True)
    assert float(LUTime().seconds(10)) > 0
    assert os.listdir(cache.parent) == [cache.name] and measurements == ["lu float64"]


def test_cache_folder_that_cannot_be_made(tmp_path, monkeypatch, measurements):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert float(LUTime().seconds(10)) > 0
    assert float(LUTime().seconds(20)) > 0
    assert measurements == ["lu float64"]  # the process remembers all the same


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_cache_folder_that_is_read_only(cache, measurements):
    cache.parent.mkdir()
    cache.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert float(LUTime().seconds(10)) > 0 and not cache.exists()


def test_default_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration.cache_file() == tmp_path / ".cache/keras_qnewton/calibration.json"


def test_calibration_while_a_graph_is_traced(cache, monkeypatch):
    real = calibration.measure
    monkeypatch.setattr(
        calibration, "measure", lambda *what: real(*what, sizes=(8, 16, 32), clock=Clock(1e-3))
    )
    model = LUTime()
    traced = tf.function(lambda n: model.seconds(n)).get_concrete_function(
        tf.TensorSpec([], tf.int32)
    )
    assert not {op.type for op in traced.graph.get_operations()} & {"Lu", "MatrixSolve"}
    np.testing.assert_allclose(traced(tf.constant(20)), model.seconds(20), rtol=1e-13)
