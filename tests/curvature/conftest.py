from collections.abc import Iterator

import keras
import pytest

from tests.derivatives import set_precision


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Models of float64, with the same weights every time."""
    keras.utils.set_random_seed(3)
    set_precision("float64")
    yield
    set_precision("float32")
