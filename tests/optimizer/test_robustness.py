"""λ, constraints, changed models and odd input: where a training run could quietly go wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, Constant, NewtonLog, QNewton
from keras_qnewton.curvature import hessian
from tests.blocks import variable
from tests.derivatives import flat_gradient
from tests.optimizer.models import L, compiled, fit, regression_data, regression_model


@pytest.mark.slow
def test_damping_does_not_run_away_on_a_converged_model():
    model = keras.Sequential([L.Input((3,)), L.Dense(1)])
    x, y = regression_data()
    model.compile(QNewton(), "mse")
    fit(model, 12)
    damping = model.optimizer.decisions[-1].damping
    assert damping <= model.optimizer.decisions[0].damping
    for _ in range(6):
        model.train_on_batch(x, y + 1)
    shifted = model.evaluate(x, y + 1, batch_size=len(x), verbose=0)
    best = np.mean((y - np.c_[x, np.ones(len(x))] @ np.linalg.lstsq(
        np.c_[x, np.ones(len(x))], y, rcond=None)[0]) ** 2)  # fmt: skip
    np.testing.assert_allclose(shifted, best, rtol=1e-3)


def test_damping_too_large_to_measure_anything_falls_again():
    optimizer = QNewton()
    model = compiled(optimizer)
    fit(model, 1)
    variable(optimizer, "damping").assign(1e9)
    losses = fit(model, 25)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "scale", [1e-12, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-6, 1e6, 1e15))]
)
def test_the_scale_of_the_loss_changes_nothing(scale):
    def final(factor):
        model = regression_model()
        model.compile(QNewton(), lambda a, b: factor * keras.ops.mean((a - b) ** 2, -1))
        return fit(model, 8)[-1] / factor

    np.testing.assert_allclose(final(scale), final(1.0), rtol=0.05)


@pytest.mark.parametrize("curvature", ["quasi_newton", "fisher"])
@pytest.mark.parametrize(
    "dtype, powers", [("float32", (-84, -40, 60, 96)), ("float64", (-900, -60, 500, 960))]
)
def test_powers_of_two_that_are_taken_out_change_nothing(curvature, dtype, powers):
    """These routes have a scale of their own; see docs/decisions/scale_of_the_loss.md."""
    rng = np.random.default_rng(0)
    x, start = rng.normal(size=(24, 3)), rng.normal(size=(3, 2))
    labels = tf.one_hot(rng.integers(0, 2, 24), 2, dtype=dtype)
    batches = tf.Variable(x, dtype=dtype, shape=[None, 3]), tf.Variable(labels, shape=[None, 2])
    w, scale = tf.Variable(start, dtype=dtype), tf.Variable(1, dtype=dtype)
    optimizer = QNewton(curvature=curvature)
    optimizer.build([w])
    fresh = [v.numpy() for v in optimizer.variables]

    def loss():
        logits = tf.matmul(tf.convert_to_tensor(batches[0]), w)
        each = tf.nn.softmax_cross_entropy_with_logits(tf.convert_to_tensor(batches[1]), logits)
        return scale * tf.reduce_mean(each)

    step = tf.function(lambda: optimizer.minimize(loss, [w]), autograph=False)

    def trained(power):
        for state, value in zip([w, *optimizer.variables], [start, *fresh], strict=True):
            state.assign(tf.cast(value, state.dtype))
        scale.assign(np.ldexp(np.ones([], dtype), power))
        for k in range(6):
            rows = slice(12 * (k % 2), 12 * (k % 2) + 12)
            batches[0].assign(tf.cast(x[rows], dtype))
            batches[1].assign(labels[rows])
            step()
        return w.numpy()

    first, *others = (trained(power) for power in powers)
    assert np.any(first != start.astype(dtype))
    for other in others:
        np.testing.assert_allclose(other, first, rtol=100 * np.finfo(dtype).eps)


@pytest.mark.slow
def test_warm_up_from_zero_learning_rate():
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 50, warmup_target=1.0, warmup_steps=3)
    optimizer = QNewton(schedule)
    losses = fit(compiled(optimizer), 12)
    assert losses[-1] < 0.3 * losses[0]
    assert optimizer.decisions[2].damping < 10 * optimizer.decisions[0].damping


@pytest.mark.parametrize(
    "constraint", [pytest.param("non_neg", marks=pytest.mark.slow), "unit_norm"]
)
def test_steps_are_judged_with_their_constraints(constraint):
    model = keras.Sequential(
        [
            L.Input((3,)),
            L.Dense(5, activation="tanh", kernel_constraint=constraint),
            L.Dense(1),
        ]
    )
    model.compile(QNewton(), "mse")
    x, y = regression_data()
    fit(model, 1)  # brings the weights into the set
    previous = model.evaluate(x, y, batch_size=len(x), verbose=0)
    for _ in range(6):
        fit(model, 1)
        now = model.evaluate(x, y, batch_size=len(x), verbose=0)
        assert now <= previous * (1 + 1e-6)
        previous = now


@pytest.mark.parametrize("update_every", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_layers_frozen_after_the_state_was_built(update_every):
    model = compiled(QNewton(update_every=update_every))
    fit(model, 3)
    model.get_layer("hidden").trainable = False
    model.compile(optimizer=model.optimizer, loss="mse")
    losses = fit(model, 3)
    assert losses[-1] <= losses[0]
    assert model.optimizer.decisions[-1].size == 6


def test_newton_log_says_what_it_could_not_read():
    model = keras.Sequential([L.Input((3,)), L.Dense(1)])
    optimizer = QNewton(blocks="variable", damping=Constant())
    model.compile(optimizer, "mse", steps_per_execution=600)
    x, y = regression_data()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10).repeat().take(600)
    log = NewtonLog()
    with pytest.warns(UserWarning, match="176 decisions were overwritten"):
        model.fit(data, verbose=0, shuffle=False, callbacks=[log])
    assert len(log.decisions) == 1024
    assert log.decisions[-1].step == 599


def test_a_stop_gradient_that_only_looks_like_moments_is_kept():
    rng = np.random.default_rng(0)
    x, w = tf.constant(rng.normal(size=(6, 4))), tf.Variable(rng.normal(size=(4, 3)))

    def loss_fn():  # a target from another batch order, as in temporal-difference learning
        target = tf.stop_gradient(tf.reduce_mean(tf.tanh(x[::-1] @ w), 1))
        return tf.reduce_mean(tf.math.squared_difference(tf.tanh(x @ w)[:, 0], target))

    (block,) = hessian(loss_fn, [w])
    np.testing.assert_allclose(
        block.gradient, flat_gradient(loss_fn, [w])(), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda: 3.0, "`loss_fn` must return the loss as one tensor"),
        (lambda: None, "`loss_fn` must return the loss as one tensor"),
        (lambda: (tf.constant(1.0), 1), "`loss_fn` must return the loss as one tensor"),
        (lambda: tf.constant(3.0), "The loss does not depend on any of `variables`"),
        (3.0, "`loss_fn` must be a function"),
    ],
    ids=["number", "nothing", "pair", "constant", "not callable"],
)
def test_minimize_with_a_wrong_loss(loss_fn, message):
    w = tf.Variable([1.0])
    with pytest.raises(ValueError, match=message):
        QNewton().minimize(loss_fn, [w])
    assert w.numpy() == [1.0]


@pytest.mark.parametrize("lengths", [[None, 2], [1, None], None])
def test_a_variable_whose_size_may_change_is_refused_by_its_name(lengths):
    w = tf.Variable([[1.0, 2.0]], shape=tf.TensorShape(lengths), name="grows")
    optimizer = QNewton()
    for take in (
        lambda: optimizer.minimize(lambda: tf.reduce_sum(w**2), [w]),
        lambda: optimizer.build([w]),
    ):
        with pytest.raises(ValueError, match=r"variables of known shapes.*'grows.*of shape"):
            take()
    assert not optimizer.built


def test_variables_without_elements_are_refused_by_their_names():
    none = tf.Variable(np.zeros((0, 3), "float32"), name="nothing")
    with pytest.raises(ValueError, match=r"a variable with elements.*'nothing.*\(0, 3\)"):
        QNewton().minimize(lambda: tf.reduce_sum(none**2), [none])
    # Beside others they are no harm.
    w = tf.Variable([1.0, 2.0])
    QNewton().minimize(lambda: tf.reduce_sum(none**2) + tf.reduce_sum(w**2), [none, w])
    assert np.abs(w.numpy()).max() < 0.1


def test_minimize_with_a_variable_twice():
    w = tf.Variable([1.0])
    with pytest.raises(ValueError, match="must not hold a variable twice"):
        QNewton().minimize(lambda: tf.reduce_sum(w**2), [w, w])


@pytest.mark.parametrize(
    "arguments",
    [{"blocks": 5}, {"damping": 0.1}, {"curvature": None}, {"damping": Adaptive}],
    ids=str,
)
def test_policies_that_are_none(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` must be one of '.*', or a.* object"):
        QNewton(**arguments)


def test_numpy_scalars_are_numbers():
    optimizer = QNewton(sparsity=np.int64(2), update_every=np.int32(3), seed=np.int64(1))
    assert optimizer.get_config()["sparsity"] == 2 and optimizer.update_every == 3
    assert QNewton(sparsity=np.float32(0.5)).sparsity == 0.5


def test_gather_nd_of_a_variable():
    w = tf.Variable([1.0, 2.0, 3.0])
    (block,) = hessian(lambda: tf.reduce_sum(tf.gather_nd(w, [[0], [2]]) ** 3), [w])
    np.testing.assert_allclose(block.matrix, np.diag([6.0, 0.0, 18.0]))


def test_a_batch_without_a_finite_hessian_is_forgotten():
    """|z|^1.5 has no second derivative at 0: the averaged curvature must not keep the NaN."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3)).astype("float32")
    y = np.abs(x[:, :1])
    w = tf.Variable(0.5 * np.ones((3, 1), "float32"))
    optimizer = QNewton(curvature="hessian")

    @tf.function
    def step(x, y):
        return optimizer.minimize(lambda: tf.reduce_mean((tf.abs(x @ w) ** 1.5 - y) ** 2), [w])

    def run(rows):
        step(tf.constant(x[rows]), tf.constant(y[rows]))

    for k in range(3):
        run(slice(8 * k, 8 * k + 8))
    bad, before = x[:8].copy(), w.numpy()
    bad[2] = 0.0
    with pytest.raises(tf.errors.InvalidArgumentError, match="The Hessian block"):
        step(tf.constant(bad), tf.constant(y[:8]))
    np.testing.assert_array_equal(w.numpy(), before)
    for k in range(3):
        run(slice(8 * k, 8 * k + 8))
    assert (w.numpy() != before).any()


def test_layers_of_several_precisions():
    layers = [L.Dense(4, activation="tanh"), L.Dense(1, dtype="float64")]
    model = keras.Sequential([L.Input((3,)), *layers])
    model.compile(optimizer=QNewton(), loss="mse")
    x = np.random.default_rng(0).normal(size=(32, 3))
    losses = model.fit(x, x[:, :1] ** 2, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_no_damping_on_a_block_that_is_not_formed():
    model = keras.Sequential([L.Input((3,)), L.Dense(1)])
    optimizer = QNewton(blocks=Blocks("full", max_size=2), damping=Constant(0.0))
    model.compile(optimizer=optimizer, loss="mse")
    x = np.random.default_rng(0).normal(size=(32, 3))
    losses = model.fit(x, x[:, :1], batch_size=32, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < 1e-6 * losses[0]


def test_fisher_of_an_output_without_examples_is_an_error():
    w = tf.Variable([1.0, 2.0])
    with pytest.raises(ValueError, match="an axis of examples"):
        QNewton(curvature="fisher").minimize(lambda: (tf.reduce_sum(w) - 3.0) ** 2, [w])


@pytest.mark.parametrize("definite, falls", [(False, False), (True, True)])
def test_constant_damping_goes_downhill_where_it_is_asked_to(definite, falls):
    """At a saddle: H = diag(2, -6), and g.H^-1 g < 0."""
    x = tf.Variable([0.1, 1.0])
    damping = Constant(epsilon=1e-3, definite=definite)
    optimizer = QNewton(1e-5, curvature="hessian", damping=damping)
    before = optimizer.minimize(lambda: x[0] ** 2 - 3 * x[1] ** 2, [x])
    after = x[0] ** 2 - 3 * x[1] ** 2
    assert (float(after) < float(before)) == falls
    assert Constant.from_config(damping.get_config()).definite == definite
