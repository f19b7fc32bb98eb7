"""Small batches on real data, against Adam at its best of five learning rates."""

import pathlib
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
from small_batches import METHODS, accuracies

SEEDS = range(5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [32, 64])
def test_at_least_as_good_as_adam_and_no_epoch_falls_back(batch_size):
    found = {
        name: np.array([accuracies(make(), seed, batch_size) for seed in SEEDS])
        for name, make in METHODS.items()
        if name != "memory=1"
    }
    ours = found.pop("QNewton()")
    adam = [of_rate[:, -1].mean() for of_rate in found.values()]
    print(f"batch {batch_size}: QNewton {ours[:, -1].mean():.4f}, Adam {np.round(adam, 4)}")
    print(f"largest fall from one epoch to the next: {(ours[:, :-1] - ours[:, 1:]).max():.4f}")
    assert ours[:, -1].mean() >= max(adam)
    assert (ours[:, :-1] - ours[:, 1:]).max() <= 0.02
