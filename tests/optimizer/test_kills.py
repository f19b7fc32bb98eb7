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
    # A kill may cut off the file that says which epoch was saved, of which Keras keeps no other.
    assert ours["unreadable"] <= 1
    if save_freq == "epoch":
        assert not ours["other"] and not adams["other"]
    else:  # goes on at the beginning of an epoch that had begun, from the same backup
        assert ours["equal"] + ours["unreadable"] >= adams["equal"]


@pytest.mark.slow
def test_a_backup_that_is_cut_off_is_as_unreadable_as_adams():
    """Of the first backup Keras has no other; of later ones it goes on from the one before."""
    found = kills.count_within(6)
    assert found["QNewton"][:2] == found["Adam"][:2] == ["=xxxxx", "======"]
    # Where the file of the epoch is cut off, or still that of the last one.
    assert all("x" in found[name][2] for name in kills.OPTIMIZERS)
