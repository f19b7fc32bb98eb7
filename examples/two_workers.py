"""Two workers train one model, each on half of the data; one is killed, and both go on.

A supervisor starts two processes on this machine, with `MultiWorkerMirroredStrategy` and one
replica each. Both take the same Newton steps, of the sum of their losses. At one step a worker
kills itself. The other one waits for a sum that never comes, so the supervisor ends it, and starts
both again from the last checkpoint. The loss at the end is that of a run that nobody broke.

    python examples/two_workers.py [--steps 24] [--dies-at 13] [--directory checkpoints]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

EXAMPLES = 200
EVERY = 5  # steps between two checkpoints
MOST_STARTS = 3
RESULT = "loss.json"


def train(number: int, steps: int, dies_at: int, directory: pathlib.Path) -> None:
    """One worker, from the last checkpoint to the last step."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_qnewton import QNewton

    # Before anything else of TensorFlow: it finds the other worker.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.layers.Input((2,)), *layers])
        optimizer = QNewton()
        optimizer.build(model.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, done=done)
    manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=2)
    manager.restore_or_initialize()

    x = np.random.default_rng(0).normal(size=(EXAMPLES, 2)).astype("float32")
    y = np.sin(2 * x).sum(1, keepdims=True)
    half = slice(number, None, 2)
    inputs, targets = tf.constant(x[half]), tf.constant(y[half])

    @tf.function
    def step() -> tf.Tensor:
        def by_replica() -> tf.Tensor:
            def loss() -> tf.Tensor:
                # A sum over workers, so it is divided by the examples of all.
                return tf.reduce_sum(tf.square(model(inputs) - targets)) / EXAMPLES

            return optimizer.minimize(loss, model.trainable_variables)

        return strategy.run(by_replica)

    began = int(done)
    for k in range(began, steps):
        if k == dies_at and number == 1 and began == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        before = float(step())
        done.assign_add(1)
        # All have the same state, so one of them saves it.
        if number == 0 and (k + 1) % EVERY == 0:
            manager.save()
    if number == 0:
        result = {"loss": before, "steps": int(optimizer.iterations.numpy()), "began": began}
        (directory / RESULT).write_text(json.dumps(result), "utf-8")


def start(arguments: argparse.Namespace, directory: pathlib.Path) -> list[subprocess.Popen[bytes]]:
    """Both workers, on ports that are free."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    workers = []
    for number in range(2):
        task = {"type": "worker", "index": number}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, __file__, "--worker", str(number)]
        command += ["--steps", str(arguments.steps), "--dies-at", str(arguments.dies_at)]
        command += ["--directory", str(directory)]
        workers.append(subprocess.Popen(command, env={**os.environ, "TF_CONFIG": config}))
    return workers


def supervise(arguments: argparse.Namespace, directory: pathlib.Path) -> dict[str, float]:
    """Trains to the last step, however often it takes; the loss there."""
    directory.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, MOST_STARTS + 1):
        workers = start(arguments, directory)
        try:
            while any(w.poll() is None for w in workers) and not any(w.poll() for w in workers):
                time.sleep(0.1)
            if all(worker.poll() == 0 for worker in workers):
                found: dict[str, float] = json.loads((directory / RESULT).read_text("utf-8"))
                return found
            print(f"a worker is gone in run {attempt}: both start again", flush=True)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    raise RuntimeError(f"The workers did not get to their last step in {MOST_STARTS} runs.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--dies-at", type=int, default=13, help="step at which a worker is killed")
    parser.add_argument("--directory", type=pathlib.Path, help="of checkpoints; a temporary one")
    parser.add_argument("--worker", type=int, help="set by the supervisor")
    arguments = parser.parse_args()
    if arguments.worker is not None:
        train(arguments.worker, arguments.steps, arguments.dies_at, arguments.directory)
        return
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or pathlib.Path(temporary)
        broken = supervise(arguments, directory / "broken")
        arguments.dies_at = -1
        whole = supervise(arguments, directory / "whole")
    print(f"unbroken: loss {whole['loss']:.6e} before step {whole['steps']}")
    print(
        f"broken:   loss {broken['loss']:.6e} before step {broken['steps']}, "
        f"its second run began after {broken['began']} steps"
    )
    same = abs(broken["loss"] - whole["loss"]) <= 1e-6 * abs(whole["loss"])
    passed = same and broken["steps"] == whole["steps"] and broken["began"] > 0
    print("PASS: a killed worker cost no digit" if passed else "FAIL: the losses differ")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
