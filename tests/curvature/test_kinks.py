"""Piecewise linear terms: parabolas that touch them from above, and what training makes of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import Constant, QNewton, explain
from keras_qnewton.curvature import AutoCurvature, Blocks
from keras_qnewton.curvature.outputs.kinks import _KINKS
from keras_qnewton.loss import record
from keras_qnewton.loss.convexity import _ATOMS, Coupling

B, N = 12, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, N))
Y = X @ [1.0, -2.0, 0.5] + RNG.standard_t(2, size=B)

# Of predictions z [B].
LOSSES = {
    "absolute": lambda z: tf.reduce_mean(tf.abs(z - Y)),
    "weighed": lambda z: tf.reduce_sum(tf.abs(Y - z) * np.linspace(0, 2, B)),
    "hinge": lambda z: tf.reduce_mean(tf.nn.relu(1 - np.sign(Y) * z)),
    "hinge, as a maximum": lambda z: tf.reduce_mean(tf.maximum(1 - np.sign(Y) * z, 0)),
    "quantile": lambda z: tf.reduce_mean(tf.maximum(0.9 * (Y - z), 0.1 * (z - Y))),
    "leaky": lambda z: tf.reduce_sum(tf.nn.leaky_relu(z - Y, 0.3)),
    "concave, subtracted": lambda z: -tf.reduce_sum(tf.minimum(z - Y, 3.0 * (z - Y))),
    "two of them": lambda z: tf.reduce_sum(tf.abs(z - Y)) + tf.reduce_sum(tf.nn.relu(2 * z)),
}


def block_of(loss_fn, variables):
    """The curvature that "auto" takes."""
    parts = Blocks("full").split(variables)

    @tf.function(autograph=False)
    def compute():
        loss = record(loss_fn, variables)
        return AutoCurvature().at(loss, loss.at_variables(), parts).formed(0).matrix

    return compute().numpy()


def linear(name, start):
    weights = tf.Variable(start)
    return (lambda: LOSSES[name](tf.linalg.matvec(X, weights))), weights


def test_every_kink_of_the_table_of_convex_functions_has_a_parabola():
    rows = {name for name, a in _ATOMS.items() if not a.curved and a.coupling is Coupling.NONE}
    assert rows == set(_KINKS)


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_the_parabola_is_nowhere_below_the_loss_of_a_linear_model(name, seed):
    rng = np.random.default_rng(seed)
    start = rng.normal(size=N)
    loss_fn, weights = linear(name, start)
    with tf.GradientTape() as tape:
        loss = loss_fn()
    slope, value = tape.gradient(loss, weights).numpy(), float(loss)
    matrix = block_of(loss_fn, [weights])
    for length in (1e-3, 1e-1, 1.0, 10.0):
        d = length * rng.normal(size=N)
        weights.assign(start + d)
        parabola = value + slope @ d + d @ matrix @ d / 2
        assert float(loss_fn()) <= parabola + 1e-9 * abs(value)


def test_absolute_errors_by_hand():
    loss_fn, weights = linear("absolute", np.ones(N))
    curvature = 1 / (B * np.abs(X @ np.ones(N) - Y))
    expected = X.T @ (curvature[:, None] * X)
    np.testing.assert_allclose(block_of(loss_fn, [weights]), expected, rtol=1e-10)


def test_an_undamped_step_is_one_of_reweighted_least_squares():
    loss_fn, weights = linear("absolute", np.ones(N))
    optimizer = QNewton(damping=Constant(1e-14))
    optimizer.minimize(loss_fn, [weights])
    root = 1 / np.sqrt(np.abs(X @ np.ones(N) - Y))
    expected = np.linalg.lstsq(root[:, None] * X, root * Y, rcond=None)[0]
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize(("dtype", "power"), [("float32", 100), ("float64", 980)])
def test_a_large_loss_has_finite_curvature_next_to_its_minimum(dtype, power):
    """Curvature is the loss's slope over errors, which are small there."""
    nearly = np.array([1.0, -2.0, 0.5])
    weights = tf.Variable(nearly, dtype=dtype)
    rows = np.round(64 * X) / 64
    exact = tf.constant(rows @ nearly, dtype)
    weights.assign_add(tf.constant([2.0**-20, 0.0, 0.0], dtype))

    def loss_fn():
        errors = tf.linalg.matvec(tf.constant(rows, dtype), weights) - exact
        return tf.reduce_sum(tf.abs(errors)) * tf.constant(2.0**power, dtype)

    matrix = block_of(loss_fn, [weights])
    assert np.all(np.isfinite(matrix))
    assert np.all(np.linalg.eigvalsh(matrix / np.max(matrix)) > -1e-5)
    optimizer = QNewton()
    step = tf.function(lambda: optimizer.minimize(loss_fn, [weights]), autograph=False)
    losses = [float(step()) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_an_error_of_zero_does_not_pin_its_example():
    exact = tf.Variable([1.0, -2.0, 0.5])
    x = tf.constant(X, tf.float32)
    labels = tf.linalg.matvec(x, exact) + tf.constant([0.0] + [1.0] * (B - 1))
    matrix = block_of(lambda: tf.reduce_mean(tf.abs(tf.linalg.matvec(x, exact) - labels)), [exact])
    assert np.isfinite(matrix).all() and matrix.max() < 1e4


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: tf.reduce_mean(keras.losses.huber(Y[:, None], z[:, None], 0.1)),
        lambda z: tf.reduce_mean(tf.square(tf.nn.relu(1 - np.sign(Y) * z))),
        lambda z: tf.reduce_mean(tf.square(z - Y) + tf.abs(z - Y)),
    ],
    ids=["huber", "squared hinge", "both"],
)
def test_curved_terms_of_the_same_tensor_are_left_as_they_are(loss):
    weights = tf.Variable(np.full(N, 0.3))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            value = loss(tf.linalg.matvec(X, weights))
        slope = tape.gradient(value, weights)
    expected = outer.jacobian(slope, weights).numpy()
    found = block_of(lambda: loss(tf.linalg.matvec(X, weights)), [weights])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def network(loss, **layers):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(8, activation="tanh", **layers)
    model = keras.Sequential([keras.layers.Input((2,)), hidden, keras.layers.Dense(1)])
    model.compile(optimizer=QNewton(), loss=loss)
    return model


PLANE = RNG.uniform(-1, 1, size=(200, 2)).astype("float32")
PRODUCT = PLANE[:, :1] * PLANE[:, 1:]


@pytest.mark.parametrize("loss", ["mae", "hinge"])
def test_a_network_trains(loss):
    model = network(loss)
    labels = PRODUCT if loss == "mae" else np.sign(PRODUCT)
    history = model.fit(PLANE, labels, batch_size=200, epochs=25, verbose=0).history["loss"]
    assert history[-1] < 0.12 * history[0]
    assert {d.route for d in model.optimizer.decisions} == {"cholesky"}


def test_one_head_of_two():
    inputs = keras.Input((2,))
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    heads = [keras.layers.Dense(1, name=name)(hidden) for name in ("square", "absolute")]
    model = keras.Model(inputs, heads)
    model.compile(optimizer=QNewton(), loss=["mse", "mae"])
    found = explain(model, PLANE, [PRODUCT, PRODUCT])
    assert sorted(output.rule for output in found.outputs) == ["Kinks", "Separable"]
    assert found.semidefinite


def test_an_output_that_is_made_of_a_curved_tensor_has_them():
    """As of a variational autoencoder: the exact Hessian would know nothing of the kinks."""
    found = explain(
        network("mae", activity_regularizer=keras.regularizers.L2(1e-3)), PLANE, PRODUCT
    )
    assert sorted(output.rule for output in found.outputs) == ["Kinks", "Separable"]
    assert found.curvature == "Gauss-Newton"


def test_a_penalty_on_hidden_units_beside_a_curved_loss_has_none():
    model = network("mse", activity_regularizer=keras.regularizers.L1(1e-3))
    assert [output.rule for output in explain(model, PLANE, PRODUCT).outputs] == ["Separable"]
