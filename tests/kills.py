"""Trainings that are killed at random moments and go on from Keras's own backup.

A training is a process of its own: 5 epochs of 4 batches, not shuffled, deterministic operations,
`BackupAndRestore`. It is killed (SIGKILL) some batches later, after a wait as long as up to two
batches, so that kills fall into steps and into the writing of backups alike, and is started again
until it ends. `python -m tests.kills --kills 50` counts, for QNewton and Adam by turns, how many
trainings ended with the very weights of one that was never killed, and how many could not go on.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import pathlib
import random
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

OPTIMIZERS = ("QNewton", "Adam")
EPOCHS, BATCHES, BATCH = 5, 4, 16
# Beyond this a training hangs.
_SECONDS = 300.0


class Trained(NamedTuple):
    """What a process sends when its training has ended.

    Attributes:
        weights: The bytes of all weights.
        error: Of the training, if it ended by one: that of a backup that cannot be read.
    """

    weights: bytes
    error: str


def train(optimizer: str, folder: str, save_freq: str | int, pipe: Connection) -> None:
    """Trains, sends the seconds of each batch as it ends, and then a `Trained`."""
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
            pipe.send(time.monotonic())

    backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq, double_checkpoint=True)
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    try:
        # The backup is written before a batch is told: kills after it fall into the next one.
        model.fit(x, x[:, :1] * x[:, 1:2], callbacks=[backup, Tell()], **options)
    except Exception as error:  # what a backup that is cut off may raise is Keras's affair
        pipe.send(Trained(b"", f"{type(error).__name__}: {error}"))
    else:
        pipe.send(Trained(b"".join(w.tobytes() for w in model.get_weights()), ""))


def run(optimizer: str, folder: pathlib.Path, save_freq: str | int, kills: list[float]) -> Trained:
    """A training that is killed as often as `kills` has numbers, if it lasts so long.

    Args:
        optimizer: One of `OPTIMIZERS`.
        folder: Of the backups.
        save_freq: Of `BackupAndRestore`.
        kills: After how many batches of its process each kill falls; a fraction of a batch is
            waited for.
    """
    # Imports once for all processes, and computes nothing before it forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_qnewton"])
    for kill in [*kills, float("inf")]:
        ours, theirs = context.Pipe()
        arguments = (optimizer, str(folder), save_freq, theirs)
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
    """What the training came to; None once it is time to kill it."""
    told: list[float] = []
    while pipe.poll(_SECONDS):
        received = pipe.recv()
        if isinstance(received, Trained):
            return received
        told.append(received)
        if len(told) > kill:
            each = told[-1] - told[-2] if len(told) > 1 else 0.01
            time.sleep(2 * (kill % 1) * each)
            return None
    raise TimeoutError(f"no batch within {_SECONDS:.0f} s")


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
            unbroken = run(optimizer, folder / "unbroken", save_freq, [])
            assert unbroken.weights, unbroken.error
            for k, moment in enumerate(moments):
                ended = run(optimizer, folder / f"{k}", save_freq, [moment])
                if ended.error:
                    counts["unreadable"] += 1
                    tell(f"{optimizer}, killed after {moment:.2f} batches: {ended.error}")
                else:
                    counts["equal" if ended.weights == unbroken.weights else "other"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="for each way of saving")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for save_freq in ("epoch", 3):
        found = count(save_freq, options.kills, options.seed, print)
        for optimizer, counts in found.items():
            told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            print(f"save_freq={save_freq!r}, {optimizer}: {told}", flush=True)


if __name__ == "__main__":
    main()
