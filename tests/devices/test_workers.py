"""Two workers of `MultiWorkerMirroredStrategy` and one device take the same steps."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests import hangs
from tests.devices.test_mirrored import agree

ROOT = pathlib.Path(__file__).parents[2]
SLOW = (
    "classes",
    "hessian",
    "two blocks",
    "few rows",
    "few rows, not formed",
    "products",
    "convolutions",
    "quasi-Newton",
    "ragged",
    "equation",
    "fisher",
    "accumulated, minimize",
)
ROUNDED = (
    "minimize",
    "two blocks",
    "few rows, not formed",
    "products",
    "quasi-Newton",
    "kept blocks",
    "accumulated, minimize",
)


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("localhost", 0))
        return [str(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()


def both_workers(*names: str) -> list[dict[str, Any]]:
    """What each of the two prints."""
    ports = free_ports(2)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.devices.worker", str(number), *ports, *names],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(2)
    ]
    try:
        said = [worker.communicate(timeout=hangs.SECONDS) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [w.returncode for w in workers] == [0, 0], "".join(err[-3000:] for _, err in said)
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def same_steps(names: tuple[str, ...], *options: str) -> None:
    first, second = both_workers(*options, *names)
    for name in names:
        agree(first[name], name)
        # To the bit: what one decides, the other does.
        assert first[name]["weights"] == second[name]["weights"]
        assert first[name]["two"] == second[name]["two"]


def test_two_workers_are_one_device():
    same_steps(("minimize",))


@pytest.mark.slow
def test_more_trainings_of_two_workers():
    same_steps(SLOW)


@pytest.mark.slow
def test_each_worker_factorises_its_blocks():
    first, second = (said["two blocks"]["factorised"] for said in both_workers("two blocks"))
    assert len(first) == len(second) == 1
    assert first != second


@pytest.mark.slow
def test_workers_that_round_differently_agree():
    same_steps(ROUNDED, "--rounding")


@pytest.mark.slow
def test_two_hundred_steps_of_two_workers():
    first, second = both_workers("two hundred steps")
    one, other = first["two hundred steps"]["two"], second["two hundred steps"]["two"]
    assert one == other and len(one["accepted"]) == 200
    assert one["accepted"].count(False) > 3 < one["attempts"].count(2)
    assert max(one["lengths"]) > 1
