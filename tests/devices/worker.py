"""One of two workers of `MultiWorkerMirroredStrategy`, each a process with one replica.

    python -m tests.devices.worker 0 23456 23457 minimize "two blocks"

Both are given the same words but for their number. The first one prints what differs from one
device. With `--rounding` before the names the second one rounds otherwise; see `rounding`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def begin(number: int, ports: list[str]) -> None:
    """Says who the workers are, before TensorFlow is imported."""
    workers = [f"localhost:{port}" for port in ports]
    task = {"type": "worker", "index": number}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})


@contextlib.contextmanager
def factorised() -> Iterator[set[str]]:
    """The names of blocks whose matrix this worker's graph prepares for a solver."""
    from keras_qnewton.directions.scheduled import Scheduled

    names: set[str] = set()
    init = Scheduled.init

    def watched(self: Any, problem: Any) -> Any:
        names.add(problem.part.name)
        return init(self, problem)

    Scheduled.init = watched  # type: ignore[method-assign]
    try:
        yield names
    finally:
        Scheduled.init = init  # type: ignore[method-assign]


def compared(names: list[str], first: bool, rounds_otherwise: bool) -> dict[str, Any]:
    """Trains with the other worker; the first one on one device, too."""
    import keras
    import numpy as np
    import tensorflow as tf

    # Collective operations are set up when the strategy is made.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.backend.set_floatx("float64")
    from tests.devices.compare import told
    from tests.devices.models import train
    from tests.devices.rounding import round_otherwise

    if rounds_otherwise:
        round_otherwise()
    found = {}
    for name in names:
        with factorised() as blocks:
            together = train(name, strategy, fits=False)
        found[name] = {"weights": together.weights.tolist(), "two": told(together)}
        found[name]["factorised"] = sorted(blocks)
    for name in names if first else ():
        one = train(name, None)
        apart = float(np.abs(one.weights - np.array(found[name]["weights"])).max())
        moved = float(np.abs(one.weights).max())
        found[name] |= {"apart": apart, "moved": moved, "one": told(one)}
    return found


if __name__ == "__main__":
    number, *ports = sys.argv[1:4]
    names = [name for name in sys.argv[4:] if name != "--rounding"]
    otherwise = "--rounding" in sys.argv and number == "1"
    begin(int(number), ports)
    print(json.dumps(compared(names, number == "0", otherwise)))
