"""Two replicas of `MirroredStrategy` and one device take the same steps of the same batch."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests import hangs

ROOT = pathlib.Path(__file__).parents[2]
# In one process, which are to be fast.
FAST = ("two blocks", "few rows", "accumulated")
SLOW = (
    "squares",
    "minimize",
    "classes",
    "hessian",
    "few rows, not formed",
    "products",
    "convolutions",
    "quasi-Newton",
    "mini-batches",
    "penalties",
    "clipped, decayed",
    "kept blocks",
    "batch normalisation",
    "ragged",
    "ragged last batch",
    "equation",
    "fisher",
    "fisher, few rows",
    "fisher, ragged",
    "accumulated, decayed",
    "accumulated, minimize",
    "accumulated fisher",
)
# Where rounding is told apart from what a longer training makes of it.
BEFORE_ROUNDING_COUNTS = 100


def compare(*names: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.devices.compare", *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=hangs.SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def fast() -> dict[str, Any]:
    return compare(*FAST)


@pytest.fixture(scope="module")
def slow() -> dict[str, Any]:
    return compare(*SLOW)


def agree(found: dict[str, Any], name: str) -> None:
    """Asserts that both trainings took the same steps."""
    one, two = found["one"], found["two"]
    assert found["apart"] < 1e-6 < 1e-2 < found["moved"], name
    assert len(set(one["losses"])) > 3
    for what in ("routes", "accepted", "attempts"):
        assert one[what] == two[what]
    assert two["lengths"] == pytest.approx(one["lengths"], rel=1e-6)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)


@pytest.mark.parametrize("name", FAST)
def test_two_replicas_are_one_device(fast, name):
    agree(fast[name], name)
    assert fast[name]["copies"] == 0.0
    assert fast[name]["one"]["formed"] == fast[name]["two"]["formed"]


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.slow
def test_more_trainings_of_two_replicas(slow, name):
    agree(slow[name], name)
    assert slow[name]["copies"] == 0.0


def test_routes_are_the_ones_meant(fast):
    assert set(fast["few rows"]["two"]["routes"]) == {"woodbury"}
    assert set(fast["two blocks"]["two"]["routes"]) == {"cholesky"}
    assert min(fast["two blocks"]["two"]["lengths"]) < 1  # cut back, by products with all of H


@pytest.mark.slow
def test_slow_routes_are_the_ones_meant(slow):
    assert set(slow["few rows, not formed"]["two"]["routes"]) == {"woodbury"}
    assert set(slow["products"]["two"]["routes"]) == {"cg"}
    assert set(slow["quasi-Newton"]["two"]["routes"]) == {"quasi_newton"}
    assert max(slow["classes"]["two"]["lengths"]) > 1  # doubled


SAVED = """
import pathlib, tempfile, keras, numpy as np, tensorflow as tf
from tests.devices.compare import make_two_cpus, two_cpus
from tests.devices.models import curve, dense
from keras_qnewton import QNewton

make_two_cpus()
keras.backend.set_floatx("float64")
(x, y), options = curve(), {"batch_size": 64, "epochs": 3, "shuffle": False, "verbose": 0}
strategy = two_cpus()
with strategy.scope():
    model = dense()
    model.compile(QNewton(), "mse")
model.fit(x, y, **options)
file = pathlib.Path(tempfile.mkdtemp()) / "model.keras"
model.save(file)
model.fit(x, y, **options)
on_one = keras.models.load_model(file)
with strategy.scope():
    on_two = keras.models.load_model(file)
for other in (on_one, on_two):
    other.fit(x, y, **options)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    print(max(np.abs(a - b).max() for a, b in pairs))
"""


@pytest.mark.slow
def test_what_two_replicas_saved_goes_on_on_one_device_and_on_two():
    command = [sys.executable, "-c", SAVED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=hangs.SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (float(line) for line in done.stdout.splitlines()[-2:])
    assert one < 1e-10 and two == 0.0


@pytest.mark.slow
def test_two_hundred_steps_of_all_kinds():
    found = compare("two hundred steps")["two hundred steps"]
    one, two = found["one"], found["two"]
    assert len(two["accepted"]) == 200 and found["copies"] == 0.0
    assert two["accepted"].count(False) > 3 < two["attempts"].count(2)
    assert max(two["lengths"]) > 1
    for what in ("accepted", "attempts", "lengths"):
        assert one[what][:BEFORE_ROUNDING_COUNTS] == two[what][:BEFORE_ROUNDING_COUNTS]


REFUSED = {
    "outside of run": (
        "optimizer.minimize(loss, variables)",
        "inside of `strategy.run`",
    ),
    "in the scope": (
        "exec('with strategy.scope(): optimizer.minimize(loss, variables)')",
        "inside of `strategy.run`",
    ),
    "made elsewhere": (
        "optimizer = QNewton(); outer(minimize)",
        "in the strategy's scope",
    ),
    "eagerly": (
        "strategy.run(lambda: optimizer.minimize(loss, variables))",
        "Decorate the function",
    ),
    "inner function": (
        "outer(lambda: tf.cond(tf.constant(one) > 0, minimize, lambda: tf.constant(0.0)))",
        "not in a branch",
    ),
    "of examples": ("optimizer = made(curvature=OfExamples()); outer(minimize)", "of_replicas"),
    "edited gradients": ("outer(edited)", "are not those of the recorded loss"),
    "no examples": ("fit(17)", "batch has no examples"),
    "no number": ("fit(16, float('nan'))", "has NaN or Inf"),
}

# What is seen when a whole step was traced.
WITH_A_STEP = ("edited gradients", "no examples", "no number")

SCRIPT = """
import json, keras, numpy as np, tensorflow as tf
from keras_qnewton import QNewton
from keras_qnewton.curvature import GaussNewton
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = np.float32(1)
x = np.linspace(-1, 1, 34).reshape(17, 2).astype("float32")
class OfExamples(GaussNewton):
    of_examples = True
said = {}
for name, call in json.loads(CALLS).items():
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        optimizer = QNewton()
        model.compile(optimizer, "mse")
    def made(**options):
        with strategy.scope():
            return QNewton(**options)
    variables = model.trainable_variables
    loss = lambda: tf.reduce_mean(tf.square(model(x) - 1.0)) / 2
    minimize = lambda: optimizer.minimize(loss, variables)
    def edited():
        with tf.GradientTape() as tape:
            value = optimizer.scale_loss(loss())
        gradients = tape.gradient(value, variables)
        optimizer.apply([2.0 * g for g in gradients], variables)
        return value
    @tf.function
    def outer(function):
        return strategy.run(function)
    def fit(examples, target=1.0):
        y = np.full((examples, 1), target, "float32")
        model.fit(x[:examples], y, batch_size=16, verbose=0, shuffle=False)
    before = model.get_weights()
    try:
        exec(call)
        said[name] = "nothing"
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        said[name] = str(error)
    same = all((a == b).all() for a, b in zip(before, model.get_weights()))
    said[name] += "" if same or name == "no examples" else " WEIGHTS CHANGED"
    finite = all(np.isfinite(w).all() for w in model.get_weights())
    said[name] += "" if finite else " WEIGHTS NOT FINITE"
print(json.dumps(said))
"""


def said_of(names: Sequence[str]) -> dict[str, str]:
    calls = {name: REFUSED[name][0] for name in names}
    script = f"CALLS = {json.dumps(calls)!r}\n{SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=hangs.SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def refuses(names: Sequence[str]) -> None:
    said = said_of(names)
    for name in names:
        _, words = REFUSED[name]
        assert words in said[name]
        assert "WEIGHTS" not in said[name]


def test_what_is_refused_changes_no_weight():
    refuses([name for name in REFUSED if name not in WITH_A_STEP])


@pytest.mark.slow
def test_what_a_step_refuses_changes_no_weight():
    refuses(WITH_A_STEP)
