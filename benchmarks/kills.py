"""Trainings that are killed and go on from Keras's own backup: QNewton's beside Adam's.

A training is a process of its own: 5 epochs of 4 batches, not shuffled, deterministic operations,
`BackupAndRestore`. It is killed once (SIGKILL), and started again until it ends. Counted are the
trainings that ended with the very weights of one that was never killed, and those that could not
go on.

Keras writes a backup in place, so that a kill while it does so may leave nothing that can be read,
whatever the optimizer. So both optimizers are killed at the same moments of their trainings:

    in a step     of a batch, after a share of the seconds that the batch before took. The process
                  goes on to no other step, and to no backup, before it is killed.
    in a backup   by the process itself, at one of the calls that `BackupAndRestore._save_model`
                  makes, after a share of the calls that are made inside of that one

Half of the moments are of each kind, and a seed draws them. `--within 2` takes all calls of the
first two backups in turn, at two shares each.

With an integer `save_freq` Keras writes backups in the midst of an epoch, and goes on from them at
that epoch's beginning, so that no training ends as an unbroken one. There a training has to end as
one that went on from the same backup, taken of a process that was not killed.

    python benchmarks/kills.py [--kills 50] [--save-freq epoch 3] [--seed 0] [--within 0]
        [--json FILE] [--append]

`--append` keeps the rows that the file has of other ways of saving. The file is written after each
kill: a run that is ended leaves those that there were.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import common

OPTIMIZERS = ("QNewton", "Adam")
EPOCHS, BATCHES, BATCH = 5, 4, 16
# Beyond this a training hangs.
_SECONDS = 3600.0
# Of the first batch, which has none before it.
_FIRST_SECONDS = 0.01


class InStep(NamedTuple):
    """A kill in the step of a batch.

    Attributes:
        batch: Which one, from 0.
        share: Of the seconds of the batch before, after which it is killed.
    """

    batch: int
    share: float

    def __str__(self) -> str:
        return f"batch {self.batch}"


class InBackup(NamedTuple):
    """A kill while a backup is written.

    Attributes:
        backup: Which one, from 1.
        call: Which of the calls of `_save_model`, from 0.
        share: Of the calls inside of that one, after which it is killed.
        name: Of the function that is called.
    """

    backup: int
    call: int
    share: float
    name: str

    def __str__(self) -> str:
        return f"backup {self.backup}, call {self.call}, {self.name}"


class Call(NamedTuple):
    """One of the calls that `_save_model` makes.

    Attributes:
        name: Of the function.
        inside: How many calls are made inside of it.
    """

    name: str
    inside: int


class Trained(NamedTuple):
    """What a process sends when its training has ended.

    Attributes:
        weights: The bytes of all weights.
        error: Of the training, if it ended by one: that of a backup that cannot be read.
        backups: The calls of each backup, if they were counted.
    """

    weights: bytes
    error: str
    backups: list[list[Call]]


# --- in a training's process --------------------------------------------------------------


class Calls:
    """Counts the calls that writing a backup makes, and kills the process after some of them.

    Args:
        code: Of the function that writes it.
        at: The moment; None for no kill.
        inside: How many calls `at.share` is of.
    """

    def __init__(self, code: Any, at: InBackup | None, inside: int):
        self._code, self._at = code, at
        self._after = 0 if at is None else int(at.share * inside)
        self.found: list[Call] = []

    def __enter__(self) -> Calls:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: Any, event: str, function: Any) -> None:
        if event == "return" and frame.f_code is self._code:
            sys.setprofile(None)
        if event not in ("call", "c_call"):
            return
        by = frame.f_back if event == "call" else frame
        if by is not None and by.f_code is self._code:
            name = function.__name__ if event == "c_call" else _name(frame)
            self.found.append(Call(name, 0))
        elif self.found:
            self.found[-1] = self.found[-1]._replace(inside=self.found[-1].inside + 1)
        if self._at is None or not self.found:
            return
        if (len(self.found) - 1, self.found[-1].inside) >= (self._at.call, self._after):
            os.kill(os.getpid(), signal.SIGKILL)


def _name(frame: Any) -> str:
    """Of the function that runs in the frame."""
    # What Keras wraps to shorten its tracebacks.
    wrapped = frame.f_locals.get("fn")
    return getattr(wrapped, "__name__", frame.f_code.co_name)


def train(
    optimizer: str,
    folder: str,
    save_freq: str | int,
    kept: str | None,
    moment: InStep | InBackup | None,
    inside: int,
    pipe: Connection,
) -> None:
    """Trains, and sends a `Trained`; before a step in which it is to be killed, the seconds.

    Args:
        optimizer: One of `OPTIMIZERS`.
        folder: Of the backups.
        save_freq: Of `BackupAndRestore`.
        kept: Where a copy of each backup is put, and calls are counted; None for neither.
        moment: When it is killed; None if it is not.
        inside: How many calls are made inside of that at which it is killed.
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

    class Steps(keras.callbacks.Callback):
        batches, seconds, began = 0, _FIRST_SECONDS, 0.0

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self.began = time.monotonic()
            if isinstance(moment, InStep) and self.batches == moment.batch:
                pipe.send(moment.share * self.seconds)

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.seconds = time.monotonic() - self.began
            if isinstance(moment, InStep) and self.batches == moment.batch:
                signal.pause()
            self.batches += 1

    class Backup(keras.callbacks.BackupAndRestore):
        def __init__(self) -> None:
            super().__init__(folder, save_freq=save_freq, double_checkpoint=True)
            self.backups: list[list[Call]] = []

        def _save_model(self) -> None:
            code = keras.callbacks.BackupAndRestore._save_model.__code__
            number = len(self.backups) + 1
            in_this = isinstance(moment, InBackup) and moment.backup == number
            with Calls(code, moment if in_this else None, inside) as calls:
                super()._save_model()
            self.backups.append(calls.found)
            if kept is not None:
                shutil.copytree(folder, pathlib.Path(kept) / f"{number}")

    backup = Backup()
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    try:
        # A step ends before its backup is written.
        model.fit(x, x[:, :1] * x[:, 1:2], callbacks=[Steps(), backup], **options)
    except Exception as error:  # what a backup that is cut off may raise is Keras's affair
        files = {f.name: f.stat().st_size for f in pathlib.Path(folder).glob("*")}
        pipe.send(Trained(b"", f"{type(error).__name__}: {error} (files: {files})", []))
    else:
        weights = b"".join(w.tobytes() for w in model.get_weights())
        pipe.send(Trained(weights, "", backup.backups))


# --- outside of it ------------------------------------------------------------------------


def run(
    optimizer: str,
    folder: pathlib.Path,
    save_freq: str | int,
    kept: pathlib.Path | None = None,
    moment: InStep | InBackup | None = None,
    inside: int = 0,
) -> Trained:
    """A training that is killed at that moment, if there is one, and goes on to its end."""
    # Imports once for all processes, and computes nothing before it forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_qnewton"])
    for at in [None] if moment is None else [moment, None]:
        ours, theirs = context.Pipe()
        copies = None if kept is None else str(kept)
        arguments = (optimizer, str(folder), save_freq, copies, at, inside, theirs)
        process = context.Process(target=train, args=arguments)
        process.start()
        theirs.close()
        try:
            trained = _followed(ours)
        finally:
            process.kill()
            process.join()
        if at is None and trained is not None:
            return trained
        assert at is not None and trained is None and process.exitcode == -signal.SIGKILL
    raise AssertionError("not reached")


def _followed(pipe: Connection) -> Trained | None:
    """What the training came to; None once it is time to kill it, or it killed itself."""
    if not pipe.poll(_SECONDS):
        raise TimeoutError(f"nothing within {_SECONDS:.0f} s")
    try:
        received = pipe.recv()
    except EOFError:
        return None
    if isinstance(received, Trained):
        return received
    time.sleep(received)
    return None


class Unbroken(NamedTuple):
    """Trainings of an optimizer that are not killed.

    Attributes:
        weights: Those that they end with, from the beginning and from each backup.
        backups: Calls of each backup.
    """

    weights: set[bytes]
    backups: list[list[Call]]


def unbroken(optimizer: str, folder: pathlib.Path, save_freq: str | int) -> Unbroken:
    """A training, and, where backups are written in the midst of epochs, one from each of them."""
    kept = folder / "kept"
    whole = run(optimizer, folder / "unbroken", save_freq, kept)
    found = [whole]
    if save_freq != "epoch":
        found += [run(optimizer, backup, save_freq) for backup in sorted(kept.iterdir())]
    for trained in found:
        assert trained.weights, trained.error
    return Unbroken({trained.weights for trained in found}, whole.backups)


def drawn(backups: Sequence[Sequence[Call]], kills: int, seed: int) -> list[InStep | InBackup]:
    """Moments, by turns in a step and in a backup, for all optimizers alike."""
    moments: list[InStep | InBackup] = []
    draw = random.Random(seed)
    for k in range(kills):
        if k % 2:
            moments.append(InStep(draw.randrange(EPOCHS * BATCHES), draw.random()))
            continue
        backup = draw.randrange(len(backups))
        call = draw.randrange(len(backups[backup]))
        moments.append(InBackup(backup + 1, call, draw.random(), backups[backup][call].name))
    return moments


def within(backups: Sequence[Sequence[Call]], shares: int) -> list[InStep | InBackup]:
    """All calls of the first two backups, so many shares of each that has calls inside."""
    return [
        InBackup(number, k, share / shares, call.name)
        for number, calls in enumerate(backups[:2], 1)
        for k, call in enumerate(calls)
        for share in range(shares if call.inside else 1)
    ]


def compared(
    save_freq: str | int,
    moments_of: Callable[[Sequence[Sequence[Call]]], Sequence[InStep | InBackup]],
    tell: Callable[[str], object] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """What became of trainings that were killed, a row for each moment.

    Both optimizers' are "equal", "other" or "unreadable" in the end.

    Args:
        save_freq: Of `BackupAndRestore`.
        moments_of: From the calls of each backup to moments.
        tell: Is called with the error of each that could not go on.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        whole = {o: unbroken(o, folder / o, save_freq) for o in OPTIMIZERS}
        ours, adams = ([[c.name for c in b] for b in whole[o].backups] for o in OPTIMIZERS)
        assert ours == adams, "backups are not written by the same calls"
        for k, moment in enumerate(moments_of(whole[OPTIMIZERS[0]].backups)):
            row: dict[str, Any] = {"save_freq": save_freq, "moment": str(moment)}
            row |= {"in": "step" if isinstance(moment, InStep) else "backup", "share": moment.share}
            for optimizer in OPTIMIZERS:
                backups, inside = whole[optimizer].backups, 0
                if isinstance(moment, InBackup):
                    inside = backups[moment.backup - 1][moment.call].inside
                at = folder / optimizer / f"killed {k}"
                ended = run(optimizer, at, save_freq, moment=moment, inside=inside)
                row[optimizer] = "equal" if ended.weights in whole[optimizer].weights else "other"
                if ended.error:
                    row[optimizer] = "unreadable"
                    tell(f"{optimizer}, killed in {moment}: {ended.error}")
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="for each way of saving")
    parser.add_argument("--save-freq", nargs="+", default=["epoch", "3"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=int, default=0, help="shares of each call of a backup")
    parser.add_argument("--append", action="store_true", help="to rows of other ways of saving")
    common.add_output_options(parser, "kills")
    options = parser.parse_args()
    ways = [f if f == "epoch" else int(f) for f in options.save_freq]
    rows: list[dict[str, Any]] = []
    if options.append:
        there = options.json.exists()
        earlier = json.loads(options.json.read_text("utf-8"))["runs"] if there else []
        rows = [row for row in earlier if row["save_freq"] not in ways]

    def moments_of(backups: Sequence[Sequence[Call]]) -> list[InStep | InBackup]:
        if options.within:
            return within(backups, options.within)
        return drawn(backups, options.kills, options.seed)

    for save_freq in ways:
        for row in compared(save_freq, moments_of, print):
            rows.append(row)
            ends = ", ".join(f"{o} {row[o]}" for o in OPTIMIZERS)
            print(f"{save_freq}  {row['moment']:<40} {row['share']:.2f}  {ends}", flush=True)
            common.save("kills", rows, options.json, tell=False)
        of_these = [row for row in rows if row["save_freq"] == save_freq]
        for optimizer in OPTIMIZERS:
            ends = [row[optimizer] for row in of_these]
            told = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends)))
            print(f"save_freq={save_freq!r}, {optimizer}: {told}", flush=True)
    common.save("kills", rows, options.json)


if __name__ == "__main__":
    main()
