"""Trainings that are killed at random moments and go on from Keras's own backup.

A training is a process of its own: 5 epochs of 4 batches, not shuffled, deterministic operations,
`BackupAndRestore`. It is killed (SIGKILL) some batches later, after a wait as long as up to two
batches, so that kills fall into steps and into the writing of backups alike, and is started again
until it ends. `python -m tests.kills --kills 50` counts, for QNewton and Adam by turns, how many
trainings ended with the very weights of one that was never killed, and how many could not go on.

With an integer `save_freq` Keras writes backups in the midst of an epoch, and goes on from them at
that epoch's beginning, so that no training ends as an unbroken one. There a training has to end as
one that went on from the same backup, taken of a process that was not killed.

A random kill seldom falls into the writing of a backup. `--within 12` has the process kill itself
there: in the first backup and in the second, after each twelfth of the calls that writing it makes,
and after each of the last twelve.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

OPTIMIZERS = ("QNewton", "Adam")
EPOCHS, BATCHES, BATCH = 5, 4, 16
# Beyond this a training hangs.
_SECONDS = 300.0


class Within(NamedTuple):
    """A kill while a backup is written.

    Attributes:
        backup: Which one, from 1.
        calls: After how many calls of writing it; None for no kill, and they are counted.
    """

    backup: int
    calls: int | None = None


class Trained(NamedTuple):
    """What a process sends when its training has ended.

    Attributes:
        weights: The bytes of all weights.
        error: Of the training, if it ended by one: that of a backup that cannot be read.
        calls: That writing a backup made, if they were counted.
    """

    weights: bytes
    error: str
    calls: int = 0


def train(
    optimizer: str,
    folder: str,
    save_freq: str | int,
    kept: str | None,
    within: Within | None,
    pipe: Connection,
) -> None:
    """Trains, sends the seconds of each batch as it ends, and then a `Trained`.

    Args:
        optimizer: One of `OPTIMIZERS`.
        folder: Of the backups.
        save_freq: Of `BackupAndRestore`.
        kept: Where a copy of each backup is put; None for no copies.
        within: Where the process kills itself; None if it does not.
        pipe: Takes what is sent.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_qnewton import QNewton

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(BATCHES * BATCH, 3)).astype("float32")
    layers = [keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    model.compile(QNewton() if optimizer == "QNewton" else "adam", "mse")

    class Tell(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            written = pathlib.Path(folder) / "training_metadata.json"
            if kept is not None and written.exists():
                place = pathlib.Path(kept) / f"{written.stat().st_mtime_ns}"
                if not place.exists():
                    shutil.copytree(folder, place)
            pipe.send(time.monotonic())

    class Backup(keras.callbacks.BackupAndRestore):
        written = calls = 0

        def _save_model(self) -> None:
            self.written += 1
            watched = within is not None and self.written == within.backup
            if watched:
                sys.setprofile(self._called)
            try:
                super()._save_model()
            finally:
                if watched:
                    sys.setprofile(None)

        def _called(self, frame: object, event: str, argument: object) -> None:
            self.calls += event in ("call", "c_call")
            if within is not None and self.calls == within.calls:
                os.kill(os.getpid(), signal.SIGKILL)

    backup = Backup(folder, save_freq=save_freq, double_checkpoint=True)
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    try:
        # The backup is written before a batch is told: kills after it fall into the next one.
        model.fit(x, x[:, :1] * x[:, 1:2], callbacks=[backup, Tell()], **options)
    except Exception as error:  # what a backup that is cut off may raise is Keras's affair
        files = {f.name: f.stat().st_size for f in pathlib.Path(folder).glob("*")}
        pipe.send(Trained(b"", f"{type(error).__name__}: {error} (files: {files})"))
    else:
        weights = b"".join(w.tobytes() for w in model.get_weights())
        pipe.send(Trained(weights, "", backup.calls))


def run(
    optimizer: str,
    folder: pathlib.Path,
    save_freq: str | int,
    kills: Sequence[float] = (),
    kept: pathlib.Path | None = None,
    within: Within | None = None,
) -> Trained:
    """A training that is killed as often as `kills` has numbers, if it lasts so long.

    Args:
        optimizer: One of `OPTIMIZERS`.
        folder: Of the backups.
        save_freq: Of `BackupAndRestore`.
        kills: After how many batches of its process each kill falls; a fraction of a batch is
            waited for.
        kept: Where copies of all backups are put; None for none.
        within: A kill of the first process by itself.
    """
    # Imports once for all processes, and computes nothing before it forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_qnewton"])
    for process_number, kill in enumerate([*kills, float("inf"), float("inf")]):
        ours, theirs = context.Pipe()
        copies = None if kept is None else str(kept)
        by_itself = None if process_number else within
        arguments = (optimizer, str(folder), save_freq, copies, by_itself, theirs)
        process = context.Process(target=train, args=arguments)
        process.start()
        theirs.close()
        try:
            trained = _followed(ours, kill)
        finally:
            process.kill()
            process.join()
        if trained is not None:
            return trained
    raise AssertionError("a training that was not killed has ended")


def _followed(pipe: Connection, kill: float) -> Trained | None:
    """What the training came to; None once it is time to kill it, or it killed itself."""
    told: list[float] = []
    while pipe.poll(_SECONDS):
        try:
            received = pipe.recv()
        except EOFError:
            return None
        if isinstance(received, Trained):
            return received
        told.append(received)
        if len(told) > kill:
            each = told[-1] - told[-2] if len(told) > 1 else 0.01
            time.sleep(2 * (kill % 1) * each)
            return None
    raise TimeoutError(f"no batch within {_SECONDS:.0f} s")


def ends(optimizer: str, folder: pathlib.Path, save_freq: str | int) -> set[bytes]:
    """Weights that a training ends with that is not killed, and those that go on from backups."""
    kept = folder / "kept"
    unbroken = run(optimizer, folder / "unbroken", save_freq, kept=kept)
    found = [unbroken]
    if save_freq != "epoch":
        found += [run(optimizer, backup, save_freq) for backup in sorted(kept.iterdir())]
    for trained in found:
        assert trained.weights, trained.error
    return {trained.weights for trained in found}


def count(
    save_freq: str | int,
    kills: int,
    seed: int = 0,
    tell: Callable[[str], object] = lambda error: None,
) -> dict[str, collections.Counter[str]]:
    """By optimizer, how many killed trainings were "equal", "other" or "unreadable" in the end.

    `tell` is called with the error of each that could not go on.
    """
    random_kills = random.Random(seed)
    moments = [random_kills.uniform(0, EPOCHS * BATCHES - 1) for _ in range(kills)]
    found: dict[str, collections.Counter[str]] = {}
    for optimizer in OPTIMIZERS:
        counts = found[optimizer] = collections.Counter()
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            expected = ends(optimizer, folder, save_freq)
            for k, moment in enumerate(moments):
                ended = run(optimizer, folder / f"{k}", save_freq, [moment])
                if ended.error:
                    counts["unreadable"] += 1
                    tell(f"{optimizer}, killed after {moment:.2f} batches: {ended.error}")
                else:
                    counts["equal" if ended.weights in expected else "other"] += 1
    return found


def count_within(
    parts: int, tell: Callable[[str], object] = lambda error: None
) -> dict[str, list[str]]:
    """By optimizer, what became of trainings that were killed while a backup was written.

    Of the first backup, and of the second, one letter each of the `parts`, and one each of the last
    calls of the second: "=" ended with the weights of a training that was never killed, "o" with
    others, "x" could not go on.
    """
    found: dict[str, list[str]] = {}
    for optimizer in OPTIMIZERS:
        found[optimizer] = []
        for backup, at_the_end in ((1, False), (2, False), (2, True)):
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                unbroken = run(optimizer, folder / "unbroken", "epoch", within=Within(backup))
                letters = ""
                for part in range(parts):
                    calls = 1 + part * unbroken.calls // parts
                    if at_the_end:
                        calls = unbroken.calls - parts + 1 + part
                    within = Within(backup, calls)
                    ended = run(optimizer, folder / f"{part}", "epoch", within=within)
                    letters += "x" if ended.error else "=o"[ended.weights != unbroken.weights]
                    if ended.error:
                        tell(f"{optimizer}, backup {backup}, part {part}: {ended.error}")
            found[optimizer].append(letters)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="for each way of saving")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=int, default=0, help="parts of writing a backup")
    options = parser.parse_args()
    if options.within:
        for optimizer, letters in count_within(options.within, print).items():
            first, second, end = letters
            print(f"{optimizer}: first {first}, second {second}, its end {end}", flush=True)
        return
    for save_freq in ("epoch", 3):
        found = count(save_freq, options.kills, options.seed, print)
        for optimizer, counts in found.items():
            told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            print(f"save_freq={save_freq!r}, {optimizer}: {told}", flush=True)


if __name__ == "__main__":
    main()
