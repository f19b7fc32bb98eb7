"""Trains by two replicas and on one device, in a process of its own, and prints what differs.

    python -m tests.devices.compare squares "two blocks"

Logical devices are made before TensorFlow is used, which tests in one process with others cannot.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tests.devices.models import Run, train


def two_cpus() -> tf.distribute.Strategy:
    """A strategy of two logical CPUs, made anew."""
    if len(tf.config.list_logical_devices("CPU")) < 2:
        raise RuntimeError("Make two logical CPUs first.")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def make_two_cpus() -> None:
    """Has TensorFlow see two CPUs; before anything else of it is used."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def told(run: Run) -> dict[str, Any]:
    """What a run decided, one entry a step and block."""
    return {
        "routes": [d.solved_by for d in run.decisions],
        "accepted": [d.accepted for d in run.decisions],
        "attempts": [d.attempts for d in run.decisions],
        "lengths": [d.length for d in run.decisions],
        "formed": [d.formed_by for d in run.decisions],
        "losses": [d.loss for d in run.decisions],
    }


def compared(name: str) -> dict[str, Any]:
    """Both trainings of that name, and how far their weights are apart."""
    one, two = train(name, None), train(name, two_cpus())
    return {
        "apart": float(np.abs(one.weights - two.weights).max()),
        "moved": float(np.abs(one.weights).max()),
        "copies": two.copies,
        "one": told(one),
        "two": told(two),
    }


if __name__ == "__main__":
    make_two_cpus()
    keras.backend.set_floatx("float64")
    print(json.dumps({name: compared(name) for name in sys.argv[1:]}))
