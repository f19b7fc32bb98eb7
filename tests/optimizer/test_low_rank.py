"""A block of few rows is solved in their number of dimensions, and not formed; by default."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, Constant, Pruning, QNewton, Scheduler
from keras_qnewton.curvature import GaussNewton, example_rows, gauss_newton
from keras_qnewton.directions import woodbury
from tests.blocks import settings_of
from tests.derivatives import get_flat, set_precision

L, L2 = keras.layers, keras.regularizers.L2
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


def block_of(loss_fn, variables, curvature=gauss_newton):
    """G `[N, N]` and g `[N]`, of a block that is formed."""
    (block,) = curvature(loss_fn, variables)
    return block.matrix.numpy(), block.gradient.numpy()


class Quartic(keras.regularizers.Regularizer):
    """A penalty whose second derivative depends on the weights."""

    def __call__(self, weight):
        return 0.05 * keras.ops.sum(weight**4)


# One number in all weights that have a penalty, in all there are, one a layer, or one a weight.
PENALTIES = {
    "kernels": (L2(0.02), None, L2(0.02), None),
    "all": (L2(0.02), L2(0.02), L2(0.02), L2(0.02)),
    "each its own": (L2(0.02), None, L2(0.3), L2(0.1)),
    "quartic": (Quartic(), None, L2(0.02), None),
}


def two_heads(penalties, units=49):
    """A number and a class, of the same examples."""
    keras.utils.set_random_seed(0)
    kernel, bias, head, last = penalties
    inputs = L.Input((4,))
    hidden = L.Dense(units, activation="tanh", kernel_regularizer=kernel, bias_regularizer=bias)(
        inputs
    )
    number = L.Dense(1, kernel_regularizer=head, bias_regularizer=last, name="number")(hidden)
    return keras.Model(inputs, [number, L.Dense(3, name="class")(hidden)])


def data_of_two_heads(examples, dtype="float32"):
    x, y = data(examples, dtype=dtype)
    return x, [y, np.digitize(x[:, 0], [-0.5, 0.5])]


def fitted_heads(model, x, y, epochs, jit_compile=False, **arguments):
    losses = ["mse", keras.losses.SparseCategoricalCrossentropy(from_logits=True)]
    optimizer = QNewton(**arguments)
    model.compile(optimizer, loss=losses, loss_weights=[2.0, 1.0], jit_compile=jit_compile)
    history = model.fit(x, y, batch_size=len(x), epochs=epochs, shuffle=False, verbose=0)
    return model.optimizer.decisions, history.history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kernels", slow("all"), slow("each its own"), "quartic"])
def test_two_heads_with_penalties(name, double):
    """445 weights and 160 rows: against NumPy's solution."""
    model = two_heads(PENALTIES[name])
    x, y = data_of_two_heads(40, dtype="float64")
    classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss_fn():
        number, logits = model(x)
        fit = 2.0 * tf.reduce_mean(tf.square(number - y[0])) + classes(y[1], logits)
        return fit + sum(model.losses)

    variables = model.trainable_variables
    before, (matrix, gradient) = get_flat(variables), block_of(loss_fn, variables)
    (d,), _ = fitted_heads(model, x, y, epochs=1)
    assert d.route == "woodbury" and d.accepted and d.residual < 1e-9
    assert d.damping == pytest.approx(1e-2 * np.linalg.eigvalsh(matrix)[-1], rel=0.1)
    step = np.linalg.solve(matrix + d.damping * np.eye(len(before)), gradient)
    np.testing.assert_allclose(before - get_flat(variables), step, rtol=1e-7, atol=1e-9)
    damped = np.linalg.eigvalsh(matrix) + d.damping
    assert d.condition_number == pytest.approx(damped[-1] / damped[0], rel=0.1)


@pytest.mark.parametrize("curvature", ["auto", slow("fisher")])
def test_two_heads_train_as_formed_blocks_do(curvature, monkeypatch):
    x, y = data_of_two_heads(30)
    few, few_losses = fitted_heads(two_heads(PENALTIES["kernels"]), x, y, 5, curvature=curvature)
    monkeypatch.setattr(woodbury, "_WORTH_IT", 10**6)
    formed, losses = fitted_heads(two_heads(PENALTIES["kernels"]), x, y, 5, curvature=curvature)
    assert set(routes(few)) == {"woodbury"} and set(routes(formed)) == {"cholesky"}
    np.testing.assert_allclose(few_losses, losses, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [30, 80])
def test_two_heads_compiled_by_xla(examples):
    """445 weights, so up to 222 rows, three an example."""
    x, y = data_of_two_heads(examples)
    plain = fitted_heads(two_heads(PENALTIES["quartic"]), x, y, 3)
    model = two_heads(PENALTIES["quartic"])
    compiled = fitted_heads(model, x, y, 3, jit_compile=True)
    assert set(routes(plain[0])) == {"woodbury" if examples == 30 else "cholesky"}
    assert routes(compiled[0]) == routes(plain[0])
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-3)


class Physics:
    """u'' + u'² = sin inside, u = 0 on the border: 337 weights, all used several times."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        layers = [L.Dense(16, activation="tanh"), L.Dense(16, activation="tanh"), L.Dense(1)]
        self.model = keras.Sequential([L.Input((1,)), *layers])
        self.variables = self.model.trainable_variables

    def loss(self, inside, border):
        with tf.GradientTape() as outer:
            outer.watch(inside)
            with tf.GradientTape() as inner:
                inner.watch(inside)
                u = self.model(inside)
            slope = inner.gradient(u, inside)
        residual = outer.gradient(slope, inside) + slope**2 - tf.sin(inside)
        count = tf.cast(tf.maximum(tf.shape(border)[0], 1), border.dtype)
        penalty = 1e-3 * tf.add_n([tf.reduce_sum(v.value**2) for v in self.variables])
        on_border = tf.reduce_sum(self.model(border) ** 2) / count
        return tf.reduce_mean(residual**2) + 10.0 * on_border + penalty

    def step(self, **arguments):
        optimizer = QNewton(**arguments)
        optimizer.build(self.variables)

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float64)] * 2)
        def step(inside, border):
            return optimizer.minimize(lambda: self.loss(inside, border), self.variables)

        return step, optimizer


@pytest.mark.slow
def test_two_terms_with_batches_of_their_own(double):
    """A block that is not formed; the second batch may be empty. Against NumPy's solution."""
    problem = Physics()
    step, optimizer = problem.step(blocks=Blocks(max_size=300), damping=Adaptive(memory=1))
    rng = np.random.default_rng(0)
    for examples, at_border in ((60, 4), (90, 0), (3, 2)):
        inside = tf.constant(rng.uniform(0, 1, (examples, 1)))
        border = tf.constant(rng.uniform(0, 1, (at_border, 1)))
        before = get_flat(problem.variables)
        # Called before the loop goes on.
        matrix, gradient = block_of(lambda: problem.loss(inside, border), problem.variables)  # noqa: B023
        step(inside, border)
        d = optimizer.decisions[-1]
        assert d.route == "woodbury" and d.accepted and d.residual < 1e-9
        expected = np.linalg.solve(matrix + d.damping * np.eye(len(before)), gradient)
        moved = before - get_flat(problem.variables)
        np.testing.assert_allclose(moved, d.length * expected, rtol=1e-6, atol=1e-8)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_rows_of_a_large_table_may_take_what_memory_there_is():
    """What passes take at once, `memory`, is no limit of the rows that are kept."""
    keras.utils.set_random_seed(0)
    table = [L.Embedding(300, 8), L.GlobalAveragePooling1D(), L.Dense(1)]
    model = keras.Sequential([L.Input((5,), dtype="int32"), *table])
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 300, (12, 5)), rng.normal(size=(12, 1)).astype("float32")
    decisions, losses = trained(model, x, y, curvature=GaussNewton(memory=1.0))
    assert set(routes(decisions)) == {"woodbury"}
    assert losses[-1] < 1e-2 * losses[0]


@pytest.mark.slow
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
    before = get_flat(model.trainable_variables)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"The Hessian block .* has NaN"):
        trained(model, *data(10), epochs=2)
    np.testing.assert_array_equal(get_flat(model.trainable_variables), before)


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


def squared_mean(z, y):
    del y
    return tf.square(tf.reduce_mean(z) - 1.0)


def of_pooled_tokens(z, y):
    return tf.reduce_mean(tf.square(tf.reduce_mean(tf.reshape(z, [-1, 4, 1]), 1) - y[:5]))


COUPLED = {
    "norm": lambda z, y: tf.norm(z - y),
    "squared mean": squared_mean,
    "both": lambda z, y: squared_mean(z, y) + tf.reduce_mean(tf.square(z - y)),
    "tokens": of_pooled_tokens,
}


@pytest.mark.parametrize("coupled", COUPLED)
def test_rows_of_losses_that_couple_examples_are_sums(double, coupled):
    """An example of such an output has as many rows of a layer as the batch has."""
    x, y = map(tf.constant, data(20, dtype="float64"))

    def losses(**settings):
        model = network()
        optimizer = QNewton(curvature="gauss_newton", **settings)

        @tf.function(autograph=False)
        def step():
            def loss():
                return COUPLED[coupled](model(x), y)

            return optimizer.minimize(loss, model.trainable_variables)

        found = [float(step()) for _ in range(4)]
        return found, routes(optimizer.decisions)

    few, route = losses()
    formed, other = losses(scheduler=Scheduler("lu", quantum=None))
    assert "woodbury" in route and "woodbury" not in other
    np.testing.assert_allclose(few, formed, rtol=1e-6)
