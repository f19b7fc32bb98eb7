"""The package from outside: what it runs without, and where it refuses to."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(code, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, **kwargs
    )


def test_trains_without_tensorflow_quantum():
    code = (
        "import sys; sys.modules['tensorflow_quantum'] = None\n"
        "from keras_qnewton import QNewton, Scheduler\n"
        "import tensorflow as tf\n"
        "w = tf.Variable([1.0, 2.0])\n"
        "o = QNewton(scheduler=Scheduler(gate_time=1e-20))\n"
        "def loss(): return tf.reduce_sum(tf.cosh(w))\n"
        "step = tf.function(lambda: o.minimize(loss, [w]), autograph=False)\n"
        "for _ in range(3): step()\n"
        "print({d.solved_by for d in o.decisions}, float(tf.norm(w)) < 0.1)"
    )
    assert run(code).stdout.splitlines()[-1] == "{'qsvt'} True"


def test_another_keras_backend_is_refused():
    pytest.importorskip("jax")
    out = run(
        "import os; os.environ['KERAS_BACKEND'] = 'jax'\nimport keras_qnewton",
    )
    assert out.returncode != 0
    assert "set the environment variable KERAS_BACKEND=tensorflow" in out.stderr
