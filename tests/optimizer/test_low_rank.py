"""A block of few rows is solved in their number of dimensions, and not formed; by default."""

import dataclasses

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Adaptive, Blocks, Constant, Pruning, QNewton, Scheduler
from keras_qnewton.curvature import example_rows, gauss_newton
from keras_qnewton.curvature.low_rank import FormedRows, LowRank, RowFactors
from keras_qnewton.directions import BlockProblem, direction, woodbury
from tests.blocks import settings_of
from tests.derivatives import get_flat, set_precision

L = keras.layers
# 4-49-1: 295 weights, so up to 147 rows.
SIZE, MOST = 295, 147


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture
def double():
    set_precision("float64")
    yield
    set_precision("float32")


def network(outputs=1, **arguments):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            L.Input((4,)),
            L.Dense(49, activation="tanh", **arguments),
            L.Dense(outputs),
        ]
    )


def data(examples, outputs=1, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, 4))
    y = np.tanh(x @ rng.normal(size=(4, outputs)))
    return x.astype(dtype), y.astype(dtype)


def trained(model, x, y, epochs=4, batch_size=None, jit_compile=False, loss="mse", **arguments):
    """The decisions of a run, and its losses."""
    optimizer = QNewton(**arguments)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile)
    history = model.fit(
        x, y, batch_size=batch_size or len(x), epochs=epochs, shuffle=False, verbose=0
    )
    return optimizer.decisions, history.history["loss"]


def routes(decisions):
    return [d.route for d in decisions]


@pytest.mark.parametrize("examples", [slow(1), slow(40), MOST, MOST + 1, slow(400)])
def test_half_as_many_rows_as_weights_are_few(examples):
    model, route = network(), "woodbury" if examples <= MOST else "cholesky"
    assert model.count_params() == SIZE
    decisions, losses = trained(model, *data(examples))
    assert set(routes(decisions)) == {route}
    assert losses[-1] < 0.2 * losses[0]
    for d in decisions:
        assert d.loss_after <= d.loss and d.residual < 1e-6
        assert ("not formed" in d.formed_by) == (route == "woodbury")
        assert ("of low rank" in d.reason) == (route == "woodbury")


def test_a_few_weights_are_not_worth_it():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((4,)), L.Dense(16, activation="tanh"), L.Dense(1)])
    decisions, _ = trained(model, *data(3))
    assert set(routes(decisions)) == {"cholesky"}


@pytest.mark.parametrize(
    ("outputs", "examples"), [pytest.param(1, 30, marks=pytest.mark.slow), (3, 40)]
)
def test_step_is_that_of_the_formed_system(outputs, examples, double):
    """Against NumPy's solution of (G + λI) x = g, in double precision."""
    model = network(outputs)
    x, y = data(examples, outputs, dtype="float64")
    before = get_flat(model.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x) - y))
    gradient = get_flat(tape.gradient(loss, model.trainable_variables))
    (block,) = gauss_newton(
        lambda: tf.reduce_mean(tf.square(model(x) - y)), model.trainable_variables
    )
    matrix = block.matrix.numpy()
    ((d,), _) = trained(model, x, y, epochs=1)
    assert d.route == "woodbury" and d.accepted
    shift = d.damping
    assert shift == pytest.approx(1e-2 * np.linalg.eigvalsh(matrix)[-1], rel=0.1)
    step = np.linalg.solve(matrix + shift * np.eye(len(gradient)), gradient)
    np.testing.assert_allclose(
        before - get_flat(model.trainable_variables), step, rtol=1e-7, atol=1e-9
    )
    damped = np.linalg.eigvalsh(matrix) + shift
    assert d.condition_number == pytest.approx(damped[-1] / damped[0], rel=0.1)


@pytest.mark.parametrize("curvature", [slow("gauss_newton"), "fisher"])
def test_losses_are_those_of_formed_blocks(curvature, monkeypatch):
    x, y = data(30)
    few = trained(network(), x, y, epochs=6, curvature=curvature)
    monkeypatch.setattr(woodbury, "_WORTH_IT", 10**6)
    formed = trained(network(), x, y, epochs=6, curvature=curvature)
    assert set(routes(few[0])) == {"woodbury"} and set(routes(formed[0])) == {"cholesky"}
    np.testing.assert_allclose(few[1][:4], formed[1][:4], rtol=1e-3)


SEEN = {
    "scheduler": {"scheduler": Scheduler(classical=("cholesky", "lu"), quantum=None)},
    "circuits": {"scheduler": Scheduler()},
    "pruning": {"pruning": Pruning(0.5)},
    "kept": {"update_every": 2},
    "constant": {"damping": Constant()},
    "magnitudes": {"damping": Adaptive(negative_curvature="absolute")},
}


@pytest.mark.parametrize("policies", SEEN.values(), ids=SEEN)
def test_no_rows_where_somebody_has_to_see_the_block(policies):
    (part,) = Blocks("full").split([tf.Variable(tf.zeros(SIZE))])
    assert woodbury.max_rank(part, settings_of()) == MOST
    assert woodbury.max_rank(part, settings_of(**policies)) == 0


# The others, from the optimizer's arguments on, are for the slow suite.
@pytest.mark.parametrize(
    "arguments",
    [
        {"update_every": 2},
        {"curvature": "hessian"},
        slow({"scheduler": SEEN["scheduler"]["scheduler"]}),
        slow({"scheduler": Scheduler()}),
        slow({"sparsity": 0.5}),
        slow({"damping": Constant()}),
        slow({"damping": Adaptive(negative_curvature="absolute")}),
    ],
    ids=["kept", "exact", "scheduler", "circuits", "pruning", "constant", "magnitudes"],
)
def test_formed_where_somebody_has_to_see_it(arguments):
    decisions, losses = trained(network(), *data(10), epochs=3, **arguments)
    assert "woodbury" not in routes(decisions)
    assert all(d.formed_by != "not formed" for d in decisions)
    assert losses[-1] < losses[0]


def test_formed_where_a_penalty_has_full_rank():
    decisions, losses = trained(network(kernel_regularizer="l2"), *data(10))
    assert set(routes(decisions)) == {"cholesky"}
    assert losses[-1] < losses[0]


def test_formed_where_examples_interact():
    keras.utils.set_random_seed(0)
    coupled = [L.Dense(16), L.BatchNormalization(), L.Activation("tanh"), L.Dense(1)]
    model = keras.Sequential([L.Input((16,)), *coupled])
    x = np.random.default_rng(0).normal(size=(20, 16)).astype("float32")
    decisions, losses = trained(model, x, np.sin(x[:, :1]), blocks="layer")
    first = [d for d in decisions if d.size == 272]
    assert set(routes(first)) == {"cholesky"}
    assert all("examples interact" in d.formed_by for d in first)
    assert losses[-1] < losses[0]


def test_averages_over_batches_are_formed():
    x, y = data(120)
    decisions, losses = trained(network(), x, y, epochs=4, batch_size=20)
    assert routes(decisions)[0] == "woodbury"  # nobody knows yet that the data will change
    assert set(routes(decisions)[1:]) == {"cholesky"}
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("seed", [0, slow(1)])
def test_rounding_is_not_followed_where_a_batch_knows_nothing(seed):
    """Batches that fit one by one, and λ falls: what rounding leaves of g beside the rows of U,
    divided by λ, would be most of the step, and spoil what was learnt of the other batches."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(23, 12)).astype("float32"), rng.normal(size=(23, 2)).astype("float32")
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([L.Input((12,)), L.Dense(30, activation="tanh"), L.Dense(2)])
    damping = Adaptive(memory=1)
    decisions, losses = trained(model, x, y, epochs=8, batch_size=7, damping=damping)
    assert set(routes(decisions)) == {"woodbury"}
    assert min(d.damping for d in decisions) < 1e-3 * decisions[0].damping
    assert losses[-1] < 0.6


def test_examples_that_a_model_is_certain_of_and_wrong(double):
    """Their curvature is lost, exp(-1000), their gradient is not."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((200,)), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(20, 200))
    certain = np.arange(20) < 4
    x[certain] *= 1e4
    labels = (np.argmax(model.predict(x, verbose=0), 1) + certain) % 2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables
    (block,) = gauss_newton(lambda: loss(labels, model(x)), variables)
    before, gradient = get_flat(variables), block.gradient.numpy()
    ((d,), _) = trained(model, x, labels, epochs=1, loss=loss, damping=Adaptive(1e6))
    assert d.route == "woodbury" and d.residual < 1e-10 and d.accepted and d.loss > 100
    matrix = block.matrix.numpy()
    step = np.linalg.solve(matrix + d.damping * np.eye(len(before)), gradient)
    np.testing.assert_allclose(before - get_flat(variables), d.length * step, rtol=1e-6, atol=1e-12)
    # Not what the rows alone would make of it.
    values, vectors = np.linalg.eigh(matrix)
    beside = vectors[:, values <= 1e-9 * values[-1]].T @ gradient
    assert np.linalg.norm(beside) > 0.9 * np.linalg.norm(gradient)


def test_batches_of_any_size_share_one_graph():
    """The sizes of the batches are known when the step runs."""
    model = network()
    model.compile(optimizer=QNewton(damping=Adaptive(memory=1)), loss="mse")
    step = tf.function(
        lambda x, y: model.train_step((x, y)),
        input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 1])],
    )
    model.optimizer.build(model.trainable_variables)
    for examples in (10, 200, MOST, MOST + 1, 1):
        step(*data(examples))
    assert step.experimental_get_tracing_count() == 1
    few, many = "woodbury", "cholesky"
    assert routes(model.optimizer.decisions) == [few, many, few, many, few]


def test_each_layer_has_a_limit_of_its_own():
    """Of 272 and 306 weights one has at most 136 rows, the other 153; the others are too few."""
    keras.utils.set_random_seed(0)
    layers = [L.Dense(16, activation="tanh"), L.Dense(18, activation="tanh"), L.Dense(1)]
    model = keras.Sequential([L.Input((16,)), *layers])
    x = np.random.default_rng(0).normal(size=(150, 16)).astype("float32")
    decisions, losses = trained(model, x, np.sin(x[:, :1]), blocks="layer")
    assert {d.size: d.route for d in decisions} == {
        272: "cholesky",
        306: "woodbury",
        19: "cholesky",
    }
    assert losses[-1] < losses[0]
    assert all(d.loss_after <= d.loss for d in decisions if d.accepted)


def test_a_blocks_limit_applies_where_the_largest_is_a_block_that_is_not_formed():
    keras.utils.set_random_seed(0)
    layers = [L.Dense(16, activation="tanh"), L.Dense(40, activation="tanh"), L.Dense(1)]
    model = keras.Sequential([L.Input((16,)), *layers])
    x = np.random.default_rng(0).normal(size=(137, 16)).astype("float32")
    blocks = Blocks("layer", max_size=300)
    decisions, losses = trained(model, x, np.sin(x[:, :1]), blocks=blocks)
    assert {d.size: d.route for d in decisions} == {
        272: "cholesky",
        680: "woodbury",
        41: "cholesky",
    }
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("examples", [slow(3), 12])
def test_rows_that_are_sums_over_positions(examples):
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(8, 3, activation="tanh"), L.Conv2D(4, 3), L.GlobalAveragePooling2D()]
    model = keras.Sequential([L.Input((8, 8, 1)), *layers, L.Dense(3)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(examples, 8, 8, 1)).astype("float32"), rng.integers(0, 3, examples)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    decisions, losses = trained(model, x, y, loss=loss)
    assert set(routes(decisions)) == {"woodbury"}
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("examples", [10, slow(160)])
def test_compiled_by_xla(examples):
    x, y = data(examples)
    plain = trained(network(), x, y, epochs=3)
    compiled = trained(network(), x, y, epochs=3, jit_compile=True)
    assert routes(compiled[0]) == routes(plain[0])
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-3)


def test_a_curvature_that_is_not_finite_changes_no_weight(monkeypatch):
    """Derivatives of examples that are NaN where the gradient is finite."""
    derivatives = example_rows.ExampleRows.derivatives

    def broken(self, tensors):
        return [d * np.nan for d in derivatives(self, tensors)]

    monkeypatch.setattr(example_rows.ExampleRows, "derivatives", broken)
    model = network()
    decisions, losses = trained(model, *data(10), epochs=2)
    # It fails its check, and the block is formed by products with vectors.
    assert set(routes(decisions)) == {"cholesky"}
    assert np.isfinite(get_flat(model.trainable_variables)).all() and losses[1] < losses[0]


def test_a_block_without_curvature():
    """Units that never fire: rows of zeros, and a gradient that is zero, too."""
    keras.utils.set_random_seed(0)
    dead = L.Dense(60, activation="relu", bias_initializer=keras.initializers.Constant(-100.0))
    model = keras.Sequential([L.Input((4,)), dead, L.Dense(1)])
    before = get_flat(dead.trainable_variables)
    decisions, _ = trained(model, *data(10), blocks="layer")
    assert next(d for d in decisions if d.size == 300).route == "woodbury"
    np.testing.assert_array_equal(get_flat(dead.trainable_variables), before)
    assert np.isfinite(get_flat(model.trainable_variables)).all()


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 12], tf.float64),
        tf.TensorSpec([12], tf.float64),
        tf.TensorSpec([], tf.float64),
    ]
)
def by_woodbury(rows, gradient, damping):
    factors = RowFactors(tf.constant(True), lambda: LowRank([FormedRows(rows[:, None])]), 40)
    identity = tf.eye(12, dtype=tf.float64)
    problem = BlockProblem.of_matrix(identity, gradient, semidefinite=True)
    problem = dataclasses.replace(problem, low_rank=factors)
    by_rows = direction(problem, settings_of())
    assert isinstance(by_rows, woodbury.Woodbury)
    return by_rows.solve(problem, by_rows.init(problem), damping).x


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 2**20),
    st.floats(-6, 1),
    st.sampled_from([0.0, 1e-12, 1.0]),
    st.floats(-8, 8),
)
def test_solution_against_scipy(count, rank, seed, log_damping, beside, log_scale):
    """Rows of any rank, a gradient that is their sum, or nearly, or not at all."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, 12)) * 10**log_scale
    gradient = rng.normal(size=count) @ rows
    gradient += beside * np.linalg.norm(gradient) * rng.normal(size=12)
    matrix = rows.T @ rows
    shift = 10**log_damping * np.linalg.norm(matrix, 2)
    found = by_woodbury(rows, gradient, tf.constant(shift, tf.float64)).numpy()
    exact = scipy.linalg.solve(matrix + shift * np.eye(12), gradient, assume_a="pos")
    # What is no more than rounding of the gradient is left out, and had been divided by the shift.
    error = np.linalg.norm(found - exact) - 1e-13 * np.linalg.norm(gradient) / shift
    assert error <= (1e-6 if beside == 1e-12 else 1e-8) * np.linalg.norm(exact)
