"""A training that is killed goes on from Keras's backup as Adam's does."""

import json
import pathlib
import re
import signal

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def kills():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import kills

        yield kills


@pytest.mark.parametrize(
    ("save_freq", "times"),
    [
        ("epoch", 2),
        pytest.param("epoch", 10, marks=pytest.mark.slow),
        pytest.param(3, 10, marks=pytest.mark.slow),
    ],
)
def test_killed_trainings_end_as_adams_do(kills, save_freq, times):
    rows = list(kills.compared(save_freq, lambda backups: kills.drawn(backups, times, seed=0)))
    assert len(rows) == times and {row["in"] for row in rows} == {"step", "backup"}
    assert all(row["QNewton"] == row["Adam"] for row in rows)
    assert all(row["QNewton"] == "equal" for row in rows if row["in"] == "step")


@pytest.mark.slow
def test_a_backup_that_is_cut_off_is_as_unreadable_as_adams(kills):
    """Of the first backup Keras has no other; of later ones it goes on from the one before."""
    rows = list(kills.compared("epoch", lambda backups: kills.within(backups, 1)))
    assert all(row["QNewton"] == row["Adam"] for row in rows)
    first, second = (
        [row["QNewton"] for row in rows if row["moment"].startswith(f"backup {k}")] for k in (1, 2)
    )
    assert first[0] == "equal" and "unreadable" in first
    # Where the file of the epoch is cut off, or still that of the last one.
    assert second[0] == "equal" and "unreadable" in second


def test_calls_are_counted_and_a_process_is_killed_among_them(kills, monkeypatch):
    """The count is of calls inside of each call that a function makes itself."""

    def inner():
        return len([]) + len([])

    def outer():
        inner()
        min(1, 2)
        inner()

    with kills.Calls(outer.__code__, None, 0) as calls:
        outer()
    assert calls.found == [("inner", 2), ("min", 0), ("inner", 2)]

    sent = []
    monkeypatch.setattr(kills.os, "kill", lambda process, number: sent.append(number))
    with kills.Calls(outer.__code__, kills.InBackup(1, 2, 0.5, "inner"), 2) as calls:
        inner()
        inner()
        outer()
    # At the first of two calls inside of the third; alive, it is killed at the next one again.
    assert sent == [signal.SIGKILL] * 2


def test_the_backup_before_is_taken_as_the_questions_have_it(tmp_path):
    """Keras's own way round sees weights that cannot be read, and no file of the epoch."""
    page = (ROOT / "docs" / "faq.md").read_text("utf-8")
    (code,) = (c for c in re.findall("```python\n(.*?)```", page, re.S) if "*.bkp" in c)
    names = {}
    exec(code, names)
    x = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")

    def trained(stop=None):
        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == stop:
                    raise KeyboardInterrupt

        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        backup = keras.callbacks.BackupAndRestore(folder, double_checkpoint=True)
        options = {"batch_size": 16, "epochs": 4, "shuffle": False, "verbose": 0}
        model.fit(x, x[:, :1], callbacks=[backup, Stop()], **options)
        return model.get_weights()

    folder = tmp_path / "unbroken"
    expected = trained()
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        trained(stop=2)
    (folder / "training_metadata.json").write_text("")
    with pytest.raises(json.JSONDecodeError):
        trained()
    names["take_the_backup_before"](folder)
    for found, of in zip(trained(), expected, strict=True):
        np.testing.assert_allclose(found, of, rtol=1e-5)
