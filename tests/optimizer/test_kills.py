"""A training that is killed goes on from Keras's backup as Adam's does."""

import pytest

from tests import kills


@pytest.mark.parametrize(
    ("save_freq", "times"),
    [
        ("epoch", 2),
        pytest.param("epoch", 10, marks=pytest.mark.slow),
        pytest.param(3, 10, marks=pytest.mark.slow),
    ],
)
def test_killed_trainings_end_as_adams_do(save_freq, times):
    found = kills.count(save_freq, times)
    ours, adams = (found[name] for name in kills.OPTIMIZERS)
    assert ours.total() == adams.total() == times
    assert ours["equal"] >= adams["equal"]
    assert ours["unreadable"] <= adams["unreadable"]
    if save_freq == "epoch":
        assert ours["equal"] == times
