from __future__ import annotations

import json
import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

from tests.slow_variants import SLOW_VARIANTS

# The examples of a test are the same at each run, for a change is not to fail by luck; without
# the profile (`make test-all`) Hypothesis looks for new ones.
hypothesis.settings.register_profile("same_examples", derandomize=True)

# Seconds as on two cores of a 2020s server, a·N³ + b·N² + c; for "sparse_lu" see `SparseLUTime`.
CALIBRATION = {
    "cholesky float64": (1e-11, 2e-9, 2e-5),
    "eigen float64": (2e-10, 1e-8, 5e-5),
    "lapack float64": (1.2e-11, 1e-9, 5e-5),
    "ldl float64": (2e-11, 4e-9, 5e-5),
    "lu float64": (3e-11, 3e-9, 1e-5),
    "sparse_lu float64": (5e-9, 1e-4, -25.0, 2.2, 3.0, -0.25),
}


@pytest.fixture(scope="session", autouse=True)
def calibration_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, in which solvers are calibrated already.

    No route depends on how busy the machine is, and nothing enters the user's cache folder.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        from keras_qnewton.scheduling import calibration

        path = calibration.cache_file()
        path.parent.mkdir()
        path.write_text(json.dumps({calibration.fingerprint(): CALIBRATION}), "utf-8")
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the variants that `slow_variants` lists."""
    for item in items:
        name, _, variant = item.nodeid.partition("[")
        begins = SLOW_VARIANTS.get(name.removeprefix("tests/"), [])
        if variant.startswith(tuple(begins)) and begins:
            item.add_marker(pytest.mark.slow)
