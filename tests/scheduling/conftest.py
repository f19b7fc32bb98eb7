"""A calibration of a test's own."""

import pytest

from keras_qnewton.scheduling import calibration


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache file that is not there yet, in a folder of its own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return calibration.cache_file()


@pytest.fixture
def measurements(monkeypatch):
    """Counts the measurements, and makes them a known cubic."""
    made = []

    def measure(solver, dtype, sizes=calibration.SIZES):
        made.append(f"{solver} {dtype}")
        return {n: 2e-11 * n**3 + 3e-9 * n**2 + 4e-5 for n in sizes}

    monkeypatch.setattr(calibration, "measure", measure)
    return made
