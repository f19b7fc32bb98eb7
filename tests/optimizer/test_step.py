"""What a step does: by hand, against the curvature, and when something is wrong with it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, Constant, Decision, NewtonLog, QNewton, Scheduler
from keras_qnewton.curvature import hessian
from keras_qnewton.solvers import QSVT
from keras_qnewton.state import KeptBlock
from tests.blocks import variable
from tests.derivatives import get_flat
from tests.optimizer.models import (
    BrokenBackend,
    NoisyBackend,
    compiled,
    fit,
    regression_data,
    regression_model,
)

L = keras.layers


def quadratic(n=4, seed=0, dtype="float64"):
    """loss = w.A w/2 - b.w with A positive definite; (variable, loss_fn, A, b)."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    matrix, b = root @ root.T + np.eye(n), rng.normal(size=n)
    w = tf.Variable(rng.normal(size=n), dtype=dtype)

    def loss_fn():
        return tf.tensordot(w, tf.linalg.matvec(matrix.astype(dtype), w), 1) / 2 - tf.tensordot(
            b.astype(dtype), w, 1
        )

    return w, loss_fn, matrix, b


def assert_never_rises(decisions):
    assert decisions
    for d in decisions:
        if d.accepted:
            assert d.loss_after <= d.loss


@pytest.mark.parametrize(
    "arguments", [{}, {"blocks": "layer", "curvature": "hessian", "update_every": 2}]
)
def test_nothing_is_traced_again_after_the_first_step(arguments):
    traces = []

    class Counted(QNewton):
        def apply(self, *given):
            traces.append(self.iterations)
            super().apply(*given)

    model = compiled(Counted(**arguments))
    x, y = regression_data()
    model.train_on_batch(x, y)
    after_first = len(traces)
    assert after_first >= 1
    for scale in (1.0, 1.5, 0.5, 1.0):
        model.train_on_batch(x, scale * y)
    assert len(traces) == after_first
    assert len(model.optimizer.decisions) >= 5


def test_one_undamped_step_solves_a_quadratic():
    w, loss_fn, matrix, b = quadratic()
    QNewton(damping=Constant(0.0)).minimize(loss_fn, [w])
    np.testing.assert_allclose(w.numpy(), np.linalg.solve(matrix, b), rtol=1e-10)


def test_learning_rate_scales_the_step():
    w, loss_fn, matrix, b = quadratic()
    start, solution = w.numpy(), np.linalg.solve(matrix, b)
    QNewton(0.25, damping=Constant(0.0)).minimize(loss_fn, [w])
    np.testing.assert_allclose(w.numpy(), start + 0.25 * (solution - start), rtol=1e-10)


@pytest.mark.parametrize("kind", ["absolute", "shift"])
def test_adaptive_step_by_hand(kind):
    """One step from the definition, with NumPy's own eigendecomposition, on an indefinite H."""
    w = tf.Variable([0.3, -0.4, 0.8], dtype=tf.float64)

    def loss_fn():
        return tf.reduce_sum(tf.cos(w)) + tf.reduce_sum(w**3) * w[0] - w[1] * w[2]

    start = w.numpy()
    (block,) = hessian(loss_fn, [w])
    values, vectors = np.linalg.eigh(block.matrix.numpy())
    assert values[0] < 0 < values[-1]
    optimizer = QNewton(damping=Adaptive(initial=0.5, negative_curvature=kind, retries=0))
    optimizer.minimize(loss_fn, [w])
    (decision,) = optimizer.decisions
    damping = 0.5 * np.abs(values).max()
    np.testing.assert_allclose(decision.damping, damping, rtol=1e-9)
    if kind == "absolute":
        scaling = 1 / np.sqrt(values**2 + damping**2)
    else:
        scaling = 1 / (values + damping - values[0])
    expected = start - vectors @ (scaling * (vectors.T @ block.gradient.numpy()))
    assert decision.accepted
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-9)


def test_trust_ratio_and_losses_are_those_of_the_step_taken():
    w = tf.Variable([0.9, -0.7], dtype=tf.float64)

    def loss_fn():
        return tf.reduce_sum(w**4) + 0.1 * tf.reduce_sum(w)

    start, before = w.numpy(), loss_fn().numpy()
    (block,) = hessian(loss_fn, [w])
    optimizer = QNewton()
    returned = optimizer.minimize(loss_fn, [w])
    (decision,) = optimizer.decisions
    d = w.numpy() - start
    model = block.gradient.numpy() @ d + d @ block.matrix.numpy() @ d / 2
    np.testing.assert_allclose([decision.loss, returned.numpy()], before)
    np.testing.assert_allclose(decision.loss_after, loss_fn().numpy())
    np.testing.assert_allclose(decision.trust_ratio, (before - loss_fn().numpy()) / -model)


def test_a_step_that_raises_the_loss_is_not_taken():
    w = tf.Variable([2.0], dtype=tf.float64)

    def loss_fn():  # Newton overshoots to the other side, ever further away
        return tf.reduce_sum(tf.sqrt(1 + w**2))

    optimizer = QNewton(damping=Adaptive(initial=1e-9, retries=0))
    optimizer.minimize(loss_fn, [w])
    (decision,) = optimizer.decisions
    assert not decision.accepted and decision.loss_after > decision.loss
    assert w.numpy() == [2.0]
    optimizer = QNewton(damping=Adaptive(initial=1e-9, retries=12))
    optimizer.minimize(loss_fn, [w])
    (decision,) = optimizer.decisions
    assert decision.accepted and decision.loss_after < decision.loss
    assert decision.damping > 1e-9  # tried again at larger λ within the step


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": "layer"},
        {"sparsity": 3, "damping": Adaptive(negative_curvature="shift")},
        {"update_every": 3},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {},
                {"clipnorm": 0.1},
                {"weight_decay": 1e-4},
                {"blocks": "variable", "damping": Adaptive(negative_curvature="shift")},
                {"sparsity": 0.5},
                {"learning_rate": 0.5},
                {"use_ema": True},
                {"scheduler": Scheduler(quantum=None)},
            )
        ),
    ],
    ids=str,
)
def test_fit_lowers_the_loss_in_every_accepted_step(options):
    optimizer = QNewton(**options)
    losses = fit(compiled(optimizer), 8)
    assert losses[-1] < 0.5 * losses[0]
    assert_never_rises(optimizer.decisions)
    if "sparsity" not in options:
        return
    limit = options["sparsity"]
    for d in optimizer.decisions:
        assert d.sparsity <= (limit if isinstance(limit, int) else round(limit * d.size))


def test_decisions_tell_what_happened():
    optimizer = QNewton(blocks="layer")
    assert optimizer.decisions == [] and optimizer.decision_count == 0
    fit(compiled(optimizer), 3)
    decisions = optimizer.decisions
    assert [d.step for d in decisions] == [0, 0, 1, 1, 2, 2]
    assert [d.size for d in decisions] == [20, 6] * 3
    assert [d.block.split("/")[-1] for d in decisions] == ["hidden", "out"] * 3
    for d in decisions:
        assert isinstance(d, Decision)
        assert d.route == d.solved_by == "cholesky" and not d.fallback
        assert d.condition_number >= 1 and 1 <= d.sparsity <= d.size
        assert d.reason == "cholesky is the only solver: quantum=None"
    json.dumps([d.to_dict() for d in decisions], allow_nan=False)


def test_log_keeps_the_last_rows(tmp_path):
    optimizer = QNewton(blocks="layer")
    model = compiled(optimizer)
    fit(model, 1)
    rows = variable(optimizer, "log")
    rows.assign(np.zeros(rows.shape))
    # As after 341 steps of three blocks: the end is between the two blocks of a step.
    variable(optimizer, "log_count").assign(1023)
    log = NewtonLog(tmp_path / "run.jsonl")
    fit(model, 2, callbacks=[log])
    assert optimizer.decision_count == 1027
    decisions = optimizer.decisions
    assert len(decisions) == 1024
    assert [d.step for d in decisions[-4:]] == [1, 1, 2, 2]
    assert log.decisions == decisions[-4:]
    # The first line is of the run, and one follows each epoch.
    _, *lines = (tmp_path / "run.jsonl").read_text().splitlines()
    lines = [line for line in lines if "epoch" not in json.loads(line)]
    assert [json.loads(line)["step"] for line in lines] == [1, 1, 2, 2]
    log.decisions.to_jsonl(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text().splitlines() == lines


def test_newton_log_needs_qnewton():
    with pytest.raises(ValueError, match="`NewtonLog` needs a model compiled with `QNewton`"):
        fit(compiled("adam"), 1, callbacks=[NewtonLog()])


def hybrid(backend="cirq", gate_time=1e-18, **options):
    scheduler = Scheduler(quantum=QSVT(backend=backend), gate_time=gate_time, classical_cost=FAST)
    return QNewton(blocks="layer", scheduler=scheduler, **options)


@keras.saving.register_keras_serializable(package="keras_qnewton_tests")
class FixedTime:
    """A classical price that does not depend on the machine."""

    def seconds(self, size, condition_number, sparsity, gate_time):
        return tf.constant(1e-5, tf.float64)

    def get_config(self):
        return {}


FAST = FixedTime()


@pytest.fixture(scope="module")
def classical_run():
    """The losses and decisions of two steps where gates take too long for a circuit."""
    optimizer = hybrid(gate_time=1e-6)
    return fit(compiled(optimizer), 2), optimizer.decisions


@pytest.mark.slow
def test_gate_time_decides_between_circuit_and_lu(classical_run):
    quantum, (reference, classical) = hybrid(gate_time=1e-18), classical_run
    losses = fit(compiled(quantum), 2)
    assert {d.route for d in quantum.decisions} == {"qsvt"}
    assert {d.route for d in classical} == {"lu"}
    np.testing.assert_allclose(losses, reference, rtol=1e-5)
    for d in quantum.decisions:
        assert d.residual < 1e-9 and d.predicted["qsvt"] < d.predicted["lu"]
        assert d.reason.startswith("qsvt: ")


@pytest.mark.slow
@pytest.mark.parametrize("backend", [NoisyBackend(), BrokenBackend()], ids=["noisy", "broken"])
@pytest.mark.filterwarnings("ignore:Solver 'qsvt' failed:RuntimeWarning")
def test_failed_circuit_falls_back_to_lu(backend, classical_run):
    optimizer = hybrid(backend)
    model = compiled(optimizer)
    losses = fit(model, 2)
    assert backend.runs > 0
    np.testing.assert_allclose(losses, classical_run[0], rtol=1e-5)
    assert np.isfinite(get_flat(model.trainable_variables)).all()
    for d in optimizer.decisions:
        assert d.route == "qsvt" and d.solved_by == "lu" and d.fallback and d.accepted
        assert d.residual < 1e-9
        assert "qsvt failed its residual check, lu took over" in d.reason


def test_default_graph_has_no_host_call_and_the_quantum_one_has():
    def operations(optimizer):
        model = compiled(optimizer)
        x, y = (tf.constant(a) for a in regression_data())
        optimizer.build(model.trainable_variables)
        step = tf.function(
            lambda: optimizer.minimize(
                lambda: tf.reduce_mean((model(x) - y) ** 2), model.trainable_variables
            )
        ).get_concrete_function()
        library = step.graph.as_graph_def().library.function
        return {n.op for n in step.graph.as_graph_def().node} | {
            node.op for function in library for node in function.node_def
        }

    assert not {op for op in operations(QNewton()) if "PyFunc" in op}
    assert {op for op in operations(hybrid()) if "PyFunc" in op}
    # Too many qubits: the circuit could never be chosen.
    narrow = Scheduler(max_qubits=3, classical_cost=FAST)
    assert not {op for op in operations(QNewton(scheduler=narrow)) if "PyFunc" in op}


@pytest.mark.parametrize(
    ("curvature", "negative_curvature", "route"),
    [
        ("gauss_newton", "auto", "woodbury"),
        pytest.param("hessian", "shift", "cg", marks=pytest.mark.slow),
        ("hessian", "absolute", "cg"),
    ],
)
def test_block_over_the_cap_is_logged_and_every_weight_moves(curvature, negative_curvature, route):
    optimizer = QNewton(
        curvature=curvature,
        blocks=Blocks("layer", max_size=10),
        damping=Adaptive(negative_curvature=negative_curvature),
    )
    model = compiled(optimizer)
    before = get_flat(model.trainable_variables)
    losses = fit(model, 6)
    assert (get_flat(model.trainable_variables) != before).all()
    assert losses[-1] < 0.5 * losses[0]
    assert_never_rises(optimizer.decisions)
    large = [d for d in optimizer.decisions if d.size == 20]
    assert {d.route for d in large} == {route}
    because = "of low rank" if route == "woodbury" else "too large a block to be formed"
    assert all(because in d.reason for d in large)


@pytest.mark.parametrize(
    ("curvature", "rtol"),
    [
        ("gauss_newton", 1e-4),
        pytest.param("fisher", 1e-4, marks=pytest.mark.slow),
        ("hessian", 1e-2),
    ],
)
def test_step_that_forms_nothing_equals_the_dense_one(curvature, rtol):
    losses = []
    for size in (10, 100):
        optimizer = QNewton(
            curvature=curvature,
            blocks=Blocks("full", max_size=size),
            damping=Adaptive(0.1, negative_curvature="shift"),
        )
        model = regression_model()
        model.compile(optimizer=optimizer, loss="mse")
        losses.append(fit(model, 4))
    np.testing.assert_allclose(losses[0], losses[1], rtol=rtol)


def test_blocks_that_cannot_fit_are_refused_before_the_first_step():
    optimizer = QNewton(blocks=Blocks("full", max_size=10**7))
    model = keras.Sequential([L.Input((1000,)), L.Dense(1000)])
    model.compile(optimizer=optimizer, loss="mse")
    with pytest.raises(ValueError, match=r"N = 1,001,000 weights .* max_size=\d+\)"):
        model.fit(np.zeros((4, 1000)), np.zeros((4, 1000)), verbose=0)


@pytest.mark.parametrize("bad", ["nan input", "infinite curvature"])
def test_not_finite_is_an_error_before_any_weight_changes(bad):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((3,)), L.Dense(1, activation="tanh")])
    x, y = regression_data()
    if bad == "nan input":
        x[3, 1] = np.nan
        model.compile(optimizer=QNewton(), loss="mse")
        message = "The loss has NaN or Inf"
    else:
        model.compile(optimizer=QNewton(), loss=lambda y, p: tf.sqrt(tf.abs(p - p[:1])) + 1.0)
        message = "has NaN or Inf"
    before = get_flat(model.trainable_variables)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        model.fit(x, y, batch_size=len(x), verbose=0)
    np.testing.assert_array_equal(get_flat(model.trainable_variables), before)


def test_update_every_reuses_the_hessian():
    w = tf.Variable([0.9], dtype=tf.float64)
    optimizer = QNewton(damping=Constant(0.0), update_every=2)

    def loss_fn():
        return tf.reduce_sum(w**4)

    take_step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    expected = 0.9
    curvature = 12 * 0.9**2
    for step in range(4):
        if step % 2 == 0:
            curvature = 12 * expected**2
        expected -= 4 * expected**3 / curvature
        take_step()
        np.testing.assert_allclose(w.numpy(), [expected], rtol=1e-12)


def test_update_every_reuses_the_eigendecomposition(monkeypatch):
    """Of a saddle-free step, whatever λ has become; and it changes no step."""
    w = tf.Variable([0.9, -0.4, 0.2], dtype=tf.float64)

    def loss_fn():
        return tf.reduce_sum(tf.cos(3 * w)) + w[0] * w[1] * w[2]

    now = tf.function(lambda: hessian(loss_fn, [w])[0].matrix, autograph=False)

    def train(after_step):
        w.assign([0.9, -0.4, 0.2])
        optimizer = QNewton(curvature="hessian", update_every=3)
        step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
        for _ in range(5):
            before = now().numpy()
            step()
            after_step(optimizer, before)
        assert {d.solved_by for d in optimizer.decisions} == {"eigen"}

    hessians, kept, weights, expected = [], [], [], []

    def look(optimizer, before):
        _, values, vectors = [v for v in optimizer.variables if v.name == "factor"]
        hessians.append(before)
        kept.append((vectors.numpy() * values.numpy()) @ vectors.numpy().T)
        weights.append(w.numpy())

    train(look)
    for step, matrix in enumerate(kept):
        np.testing.assert_allclose(matrix, hessians[step - step % 3], atol=1e-12)
    assert np.abs(hessians[1] - hessians[0]).max() > 1e-3
    monkeypatch.setattr(KeptBlock, "factor", lambda self, unchanged, kind, shift, make: make())
    train(lambda *_: expected.append(w.numpy()))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_a_kept_hessian_keeps_its_spectrum():
    w, loss_fn, matrix, _ = quadratic()
    optimizer = QNewton(update_every=3, damping=Adaptive(negative_curvature="shift"))
    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    for _ in range(6):
        step()
    seconds = [d.conditioning_seconds for d in optimizer.decisions]
    assert [s > 0 for s in seconds] == [True, False, False] * 2
    for d in optimizer.decisions:
        # λ_max and λ_min of the matrix itself, all Lanczos steps taken.
        shifted = np.linalg.eigvalsh(matrix) + d.damping
        assert d.condition_number == pytest.approx(shifted[-1] / shifted[0], rel=1e-6)


def test_minimize_in_a_tf_function_equals_eager():
    results = []
    for compile_step in (False, True):
        w, loss_fn, _, _ = quadratic()
        optimizer = QNewton()

        def step(optimizer=optimizer, w=w, loss_fn=loss_fn):
            return optimizer.minimize(loss_fn, [w])

        run = tf.function(step) if compile_step else step
        results.append(([float(run()) for _ in range(2)], w.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1])


@pytest.mark.slow
def test_minimize_reads_python_values_afresh():
    w = tf.Variable([1.0])
    optimizer = QNewton(damping=Constant(0.0))  # of a quadratic, each step is the last
    target = 3.0

    def loss_fn():
        return tf.reduce_sum((w - target) ** 2)

    for target in (5.0, -2.0):
        optimizer.minimize(loss_fn, [w])
        np.testing.assert_allclose(w.numpy(), [target], atol=1e-3)


def test_trust_ratio_where_rounding_hides_the_reduction():
    """Of a loss that is mostly a constant: the gradients at both ends still tell."""
    x = tf.Variable([1.0, -2.0])
    curvature = tf.constant([1e-5, 3e-5])

    def loss_fn():
        return 1e4 + 0.5 * tf.reduce_sum(curvature * x**2)

    optimizer = QNewton(curvature="hessian", damping=Adaptive(initial=0.1))
    take_step = tf.function(lambda: optimizer.minimize(loss_fn, [x]), autograph=False)
    for _ in range(6):
        take_step()
    decisions = optimizer.decisions
    # A quadratic: every model is exact, though no loss differs from any other.
    assert all(d.loss == d.loss_after == 1e4 for d in decisions)
    assert [d.trust_ratio for d in decisions] == pytest.approx([1.0] * 6, abs=1e-3)
    assert [d.damping for d in decisions] == pytest.approx(
        [0.1 * 3e-5 * 0.25**k for k in range(6)], rel=1e-3
    )
    np.testing.assert_allclose(x.numpy(), 0, atol=1e-4)
