"""SavedModels with Newton in them: a model to serve, and a training step that goes on training.

Three processes. The first trains iris with QNewton, exports the model for serving
(`model.export`) and saves a `tf.Module` whose `train` signature takes one Newton step. The
second and third have TensorFlow only: this package cannot be imported there. One serves the
exported model, the other goes on training from where the first stopped.

    python examples/savedmodel_pipeline.py [--directory DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from newton_table import verdict
from rich.console import Console
from sklearn.datasets import load_iris

from keras_qnewton import QNewton

# Run with `python -c` in the fresh processes; importing anything but TensorFlow is made to fail.
_FRESH = """
import json, sys
sys.modules.update(dict.fromkeys(("keras_qnewton", "keras", "cirq")))
import numpy as np, tensorflow as tf
data = np.load(sys.argv[2])
x, y = tf.constant(data["x"]), tf.constant(data["y"])
module = tf.saved_model.load(sys.argv[1])
"""
_SERVE = _FRESH + "print(json.dumps(module.serve(x).numpy().tolist()))"
_TRAIN = _FRESH + "print(json.dumps([float(module.train(x, y)) for _ in range(6)]))"


class Trainer(tf.Module):
    """A model and its optimizer's state behind one signature.

    Args:
        model: A Keras model with weights.
        optimizer: A `QNewton` with a classical scheduler (its default): a circuit needs Python.
        loss: Keras loss.
    """

    def __init__(self, model: keras.Model, optimizer: QNewton, loss: keras.losses.Loss):
        super().__init__()
        optimizer.build(model.trainable_variables)
        self._model, self._optimizer, self._loss = model, optimizer, loss
        # What a SavedModel has to hold: TensorFlow finds variables in attributes.
        self.state = [v.value for v in (*model.variables, *optimizer.variables)]

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.int32)]
    )
    def train(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """One Newton step on a batch; the loss before it."""
        return self._optimizer.minimize(
            lambda: self._loss(y, self._model(x, training=True)), self._model.trainable_variables
        )


def run_fresh(script: str, *arguments: str) -> list:
    """The JSON that `script` prints last, run by a fresh interpreter."""
    out = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
    )
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    console = Console()
    directory = arguments.directory or tempfile.mkdtemp(prefix="keras_qnewton_")

    x, y = load_iris(return_X_y=True)
    x, y = ((x - x.mean(0)) / x.std(0)).astype("float32"), y.astype("int32")
    data = os.path.join(directory, "iris.npz")
    os.makedirs(directory, exist_ok=True)
    np.savez(data, x=x, y=y)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer = Trainer(model, QNewton(), loss)
    here = [float(trainer.train(x, y)) for _ in range(4)]
    console.print("trained here:            ", " ".join(f"{value:.4f}" for value in here))

    model.export(os.path.join(directory, "serving"), verbose=False)
    tf.saved_model.save(trainer, os.path.join(directory, "training"))

    served = np.array(run_fresh(_SERVE, os.path.join(directory, "serving"), data))
    error = float(np.abs(served - model(x).numpy()).max())
    console.print(
        f"served in a fresh process: {served.shape[0]} rows, largest difference {error:.1e}"
    )
    there = run_fresh(_TRAIN, os.path.join(directory, "training"), data)
    console.print("trained on, fresh process:", " ".join(f"{value:.4f}" for value in there))

    falling = all(b < a for a, b in zip([*here, *there], [*here[1:], *there], strict=False))
    verdict(
        console,
        error < 1e-5 and falling,
        f"loss {here[0]:.4f} → {here[-1]:.4f} here, {there[0]:.4f} → {there[-1]:.4f} in a process "
        "without keras_qnewton",
    )


if __name__ == "__main__":
    main()
