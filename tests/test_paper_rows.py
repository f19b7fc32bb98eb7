"""The study's price of the Jacobian's circuit: beside real runs, closed forms and real rows."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("sklearn")
from examples.paper import by_rows, training
from examples.paper.settings import study
from keras_qnewton.curvature import fisher
from keras_qnewton.solvers import QSVT, DampedLeastSquares, Shortcut
from keras_qnewton.solvers.quantum.readout import Exact

SETTINGS = {
    "backend": "emulator",
    "encoding": by_rows.ENCODING,
    "epsilon": by_rows.EPSILON,
    "tolerance": by_rows.TOLERANCE,
    "max_degree": 10**6,
}


class Recorded(Exact):
    """p of each run: of the solution's amplitudes alone, as the shortcut's counts."""

    def __init__(self, size):
        self.size, self.successes = size, []

    def probabilities(self, run):
        """Of the search for a length, which the price leaves out."""
        return np.square(super().read(run).amplitudes), 0

    def read(self, run):
        reading = super().read(run)
        self.successes.append(float(np.sum(np.square(reading.amplitudes[: self.size]))))
        return reading


def problem(rows, size, seed=0):
    """U, c, λ, as they are in training: g among the large singular values, and beside them."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(rows, size)) * np.geomspace(1, 0.02, size) / math.sqrt(rows)
    c = np.full(rows, rows**-0.5) + 0.05 * rng.normal(size=rows)
    return u, c, 5e-3 * np.abs(u.T @ u).max()


def simulated(name, u, c, damping, length):
    """The package's own solution, and p of its runs."""
    size = u.shape[1]
    # Rows beyond the solution's have amplitudes of their own: |c⟩ has more elements than x.
    readout = Recorded(size)
    settings = SETTINGS | {"readout": readout}
    matrix, g = u.T @ u + damping * np.eye(size), u.T @ c
    if name == "QSVT":
        found = QSVT(**settings).solve(matrix, g)
    elif name == "shortcut":
        found = Shortcut(**settings).solve(matrix, g, norm=length)
    elif name == "Jacobian, from gradient":
        found = DampedLeastSquares(**settings).solve(u, g, damping)
    else:
        found = DampedLeastSquares(**settings).solve_residuals(u, c, damping)
    return found, readout.successes


@pytest.mark.parametrize("name", by_rows.CIRCUITS)
@pytest.mark.parametrize("rows, size", [(24, 13), (9, 16)])
def test_price_is_that_of_the_runs(name, rows, size):
    """Degree, α, p, runs and layers, beside the circuit's own count of the first run."""
    u, c, damping = problem(rows, size)
    matrix, g = u.T @ u, u.T @ c
    of = (damping, rows, float(np.linalg.norm(c)))
    found = by_rows.priced(by_rows.System.of(matrix, g, *of))[name]
    length = float(np.linalg.norm(np.linalg.solve(matrix + damping * np.eye(size), g)))
    solution, successes = simulated(name, u, c, damping, length)
    details = solution.details
    assert float(solution.residual) <= 1.01 * by_rows.TOLERANCE
    assert found["residual"] <= by_rows.TOLERANCE
    assert found["degree"] == pytest.approx(details["degree"], abs=2)
    assert found["alpha"] == pytest.approx(details["alpha"], rel=1e-6)
    assert found["success"] == pytest.approx(successes[0], rel=1e-3)
    assert found["runs"] == len(successes)
    # The real one's count has the preparation of the start, too, once.
    one = details["resources"].depth
    assert found["layers"] == pytest.approx(one * sum(1 / p for p in successes), rel=0.1)


def test_degrees_are_those_of_the_closed_forms():
    u, c, damping = problem(40, 24)
    system = by_rows.System.of(u.T @ u, u.T @ c, damping, 40, float(np.linalg.norm(c)))
    found = by_rows.priced(system)
    root = math.sqrt(damping) / np.linalg.norm(u)
    needed = math.acosh(1 / by_rows.EPSILON) / math.asinh(root)
    degree = 2 * math.ceil(needed / 2) - 2
    assert found["Jacobian, from gradient"]["degree"] == degree
    assert found["Jacobian, from residuals"]["degree"] == degree + 1
    # √κ in the place of κ.
    assert degree < found["shortcut"]["degree"] / 5 < found["QSVT"]["degree"] / 5


def test_reading_costs_what_noise_leaves():
    """p of the runs that follow a reading, from noise that was drawn."""
    u, c, damping = problem(40, 24)
    rng = np.random.default_rng(1)
    system = by_rows.System.of(u.T @ u, u.T @ c, damping, 40, 1.0)
    for make in (by_rows._qsvt, lambda s: by_rows._jacobian(s, from_residuals=False)):
        circuit = make(system)
        drawn = [circuit.run(system.values * rng.normal(size=24), 1).success for _ in range(2000)]
        # What is paid for is 1/p.
        assert np.mean(1 / np.array(drawn)) == pytest.approx(1 / circuit.of_noise, rel=0.1)


def test_without_known_residuals_there_is_no_start_from_them():
    u, c, damping = problem(12, 6)
    found = by_rows.priced(by_rows.System.of(u.T @ u, u.T @ c, damping, 12))
    assert set(found) == set(by_rows.CIRCUITS[:3])


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_rows_are_the_gradients_of_answers(name):
    """UᵀU is the block and Uᵀc its gradient, with as many rows as the probe supposes."""
    family = next(f for f in study("offline").families if f.name == name)
    data = family.data()
    keras.utils.set_random_seed(0)
    model = family.model(data, 4)
    x, y = tf.constant(data.x[:3]), tf.constant(data.y[:3])
    weights = model.trainable_variables
    apart = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    with tf.GradientTape(persistent=True) as tape:
        losses = tf.reshape(apart(y, model(x)), [-1])
        each = tf.unstack(losses)
    rows = []
    for loss in each:
        found = tape.gradient(loss, [w.value for w in weights], unconnected_gradients="zero")
        rows.append(np.concatenate([tf.convert_to_tensor(g).numpy().ravel() for g in found]))
    count = int(tf.size(y))
    u = np.array(rows, float) / math.sqrt(count)
    c = np.full(count, count**-0.5)
    assert len(u) == count and np.linalg.norm(c) == pytest.approx(1)
    blocks = fisher(lambda: training.LOSS(y, model(x)), weights, blocks="layer")
    start = 0
    for block in blocks:
        of = u[:, start : start + len(block.gradient)]
        start += len(block.gradient)
        scale = np.abs(of.T @ of).max()
        np.testing.assert_allclose(block.matrix, of.T @ of, atol=1e-5 * scale)
        np.testing.assert_allclose(block.gradient, of.T @ c, atol=1e-5 * scale**0.5)
    assert start == u.shape[1]


def test_by_block_takes_medians_and_both_classical_routes():
    def circuit(layers, read):
        return {"degree": 4, "success": 0.5, "runs": 2, "layers": layers, "layers_read": read}

    probes = [
        {
            "block": "a",
            "size": 8,
            "rows": 3,
            "kappa": 10.0,
            "classical": {"lu": 4.0, "woodbury": 1.0},
            "circuits": {"QSVT": circuit(layers, 10 * layers), "shortcut": circuit(None, None)},
        }
        for layers in (1.0, 2.0, 8.0)
    ]
    by_hessian = {"block": "b", "size": 4, "kappa": 2.0}
    qsvt, shortcut = by_rows.by_block([*probes, by_hessian])
    assert (qsvt["circuit"], qsvt["best"], qsvt["rows"]) == ("QSVT", "woodbury", 3)
    assert (qsvt["break_even"], qsvt["break_even_best"]) == (2.0, 0.5)
    assert (qsvt["break_even_read"], qsvt["break_even_read_best"]) == (0.2, 0.05)
    assert shortcut["layers"] is None and shortcut["break_even"] is None
    assert by_rows.by_block([by_hessian]) == []


def test_woodburys_formula_is_timed_and_right():
    u, c, _ = problem(5, 12)
    g = u.T @ c
    found = by_rows.woodbury(tf.constant(u), tf.constant(g)).x
    np.testing.assert_allclose(found, np.linalg.solve(u.T @ u + np.eye(12), g), atol=1e-12)
    seconds = by_rows.classical(12, 1e3, 5)
    assert set(seconds) == {"lu", "cholesky", "cg", "woodbury"} and min(seconds.values()) > 0
