"""Functions, loops and conditions in a loss: exact derivatives, or a clear refusal."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import hessian, hvp
from keras_qnewton.loss import LossNotReplayableError, control_flow, record
from tests.derivatives import fd_hessian, fd_product, relative_error

X = np.random.default_rng(0).normal(size=(5, 3))


def weights():
    return tf.Variable(np.random.default_rng(1).normal(size=(3, 3)) / 2)


def turn(h, w):
    return tf.tanh(tf.matmul(h, w) + X[:, :3])


def static_loop(w):
    _, h = tf.while_loop(lambda i, h: i < 4, lambda i, h: (i + 1, turn(h, w)), [0, tf.constant(X)])
    return tf.reduce_sum(h**2)


def dynamic_loop(w):
    """The number of turns is a tensor that is not known while tracing."""
    n = tf.cast(tf.reduce_sum(tf.abs(tf.random.stateless_uniform([3], [1, 2]))), tf.int32) + 2
    _, h = tf.while_loop(lambda i, h: i < n, lambda i, h: (i + 1, turn(h, w)), [0, tf.constant(X)])
    return tf.reduce_sum(h**2)


def loop_until_small(w):
    """The number of turns depends on the weights."""
    h = tf.while_loop(
        lambda h: tf.reduce_sum(h**2) > 1.0,
        lambda h: (0.7 * tf.tanh(tf.matmul(h, w)),),
        [tf.constant(X)],
    )[0]
    return tf.reduce_sum(tf.sin(h))


def long_loop(w):
    """More turns than are unrolled."""
    n = control_flow.MAX_UNROLLED + 3
    _, h = tf.while_loop(lambda i, h: i < n, lambda i, h: (i + 1, turn(h, w)), [0, tf.constant(X)])
    return tf.reduce_sum(h**2)


def nested_loop(w):
    def outer(i, h):
        _, h = tf.while_loop(lambda j, h: j <= i, lambda j, h: (j + 1, turn(h, w)), [0, h])
        return i + 1, h

    return tf.reduce_sum(tf.while_loop(lambda i, h: i < 3, outer, [0, tf.constant(X)])[1] ** 2)


def scan(w):
    return tf.reduce_sum(tf.scan(lambda h, x: tf.tanh(tf.linalg.matvec(w, h) + x), X) ** 2)


def dynamic_scan(w):
    """Lists of tensors in a loop whose length is not known while tracing."""
    rows = tf.boolean_mask(X, tf.random.stateless_uniform([5], [1, 2]) > -1.0)
    return tf.reduce_sum(tf.scan(lambda h, x: tf.tanh(tf.linalg.matvec(w, h) + x), rows) ** 2)


def map_rows(w):
    return tf.reduce_sum(tf.map_fn(lambda x: tf.sin(tf.linalg.matvec(w, x)), tf.constant(X)))


def condition_on_data(w):
    positive = tf.random.stateless_uniform([], [1, 2]) > 2.0
    return tf.cond(positive, lambda: tf.reduce_sum(w), lambda: tf.reduce_sum(tf.sin(X @ w) ** 2))


def condition_on_weights(w):
    h = tf.sin(X @ w)
    return tf.cond(
        tf.reduce_sum(h) > 0, lambda: tf.reduce_sum(h**3), lambda: tf.reduce_sum(h**2 * w[0])
    )


def known_condition(w):
    return tf.cond(
        tf.constant(1) > 0, lambda: tf.reduce_sum(tf.sin(X @ w) ** 2), lambda: tf.reduce_sum(w)
    )


def case(w):
    index = tf.cast(tf.random.stateless_uniform([], [1, 2]), tf.int32) + 1
    branches = [lambda: tf.reduce_sum(w), lambda: tf.reduce_sum(tf.sin(X @ w) ** 2)]
    return tf.switch_case(index, branches)


def known_case(w):
    # Out of range: TensorFlow runs the last branch.
    branches = [lambda: tf.reduce_sum(w), lambda: tf.reduce_sum(tf.sin(X @ w) ** 2)]
    return tf.switch_case(tf.constant(7), branches)


def condition_in_loop(w):
    def body(i, h):
        return i + 1, tf.cond(tf.reduce_sum(h) > 0, lambda: turn(h, w), lambda: tf.sin(h @ w))

    return tf.reduce_sum(tf.while_loop(lambda i, h: i < 4, body, [0, tf.constant(X)])[1] ** 2)


def function_in_loop(w):
    step = tf.function(turn)
    _, h = tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, step(h, w)), [0, tf.constant(X)])
    return tf.reduce_sum(h**2)


def gradient_of_a_loop(w):
    """A penalty on a gradient: the loss contains a loop's backward pass."""
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, h = tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, tf.sin(h @ w)), [0, x])
        value = tf.reduce_sum(h**2)
    return value + tf.reduce_sum(tape.gradient(value, x) ** 2)


IN_LINE = [static_loop, scan, map_rows, known_condition, known_case, function_in_loop]
DYNAMIC = [
    nested_loop,  # runs in line, too; that its inner loop can is not known beforehand
    dynamic_loop,
    loop_until_small,
    long_loop,
    dynamic_scan,
    condition_on_data,
    condition_on_weights,
    case,
    condition_in_loop,
]


@pytest.mark.parametrize("f", [*IN_LINE, *DYNAMIC, gradient_of_a_loop], ids=lambda f: f.__name__)
def test_hessian_equals_finite_differences(f):
    w = weights()
    (block,) = hessian(lambda: f(w), [w])
    reference = fd_hessian(lambda: f(w), [w])
    assert np.linalg.norm(reference) > 1e-3
    assert relative_error(block.matrix, reference) < 1e-9


@pytest.mark.parametrize("f", [dynamic_loop, condition_on_weights, scan], ids=lambda f: f.__name__)
def test_product_equals_finite_differences(f):
    w = weights()
    v = np.random.default_rng(2).normal(size=w.shape)
    (product,) = hvp(lambda: f(w), [w], [v])
    expected = fd_product(lambda: f(w), [w], v.ravel())
    assert relative_error(product.numpy().ravel(), expected) < 1e-9


@pytest.mark.parametrize("f", [*IN_LINE, *DYNAMIC], ids=lambda f: f.__name__)
def test_replay_at_other_weights(f):
    """Other branches may be taken there, and loops turn more often."""
    w = weights()

    @tf.function
    def replayed():
        loss = record(lambda: f(w), [w])
        assert loss.vectorizable == (f in IN_LINE)
        other = [-1.3 * w]
        return (
            loss.value, loss([w]), loss(other), loss.value_at(other), loss.bytes_per_evaluation()
        )  # fmt: skip

    value, same, other, as_loop, size = replayed()
    assert size >= X.nbytes
    np.testing.assert_allclose(same, value, rtol=1e-14)
    w.assign(-1.3 * w)
    np.testing.assert_allclose(other, f(w), rtol=1e-12)
    np.testing.assert_allclose(as_loop, other, rtol=1e-14)


def test_bytes_count_every_turn():
    w = weights()

    def bytes_of(turns):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float64)])
        def measured(x):
            def loss():
                end = tf.while_loop(
                    lambda i, h: i < turns, lambda i, h: (i + 1, tf.tanh(h @ w)), [0, x]
                )
                return tf.reduce_sum(end[1])

            return record(loss, [w]).bytes_per_evaluation()

        return float(measured(np.zeros((1000, 3))))

    # Each turn makes three results of 1000 x 3 float64: MatMul, Tanh, Identity.
    assert bytes_of(9) - bytes_of(4) == pytest.approx(5 * 3 * 24_000, rel=0.01)


@pytest.mark.parametrize("name", ["loop", "condition", "function"])
def test_masks_drawn_in_a_body_are_refused(name):
    """Run again, the body would draw another mask."""
    w = weights()
    generator = keras.random.SeedGenerator(3)

    def masked(h):
        return keras.random.dropout(tf.sin(h @ w), 0.5, seed=generator)

    positive = tf.Variable(1.0)
    called = tf.function(masked)
    losses = {
        "loop": lambda: tf.while_loop(
            lambda i, h: i < 3, lambda i, h: (i + 1, masked(h)), [0, tf.constant(X)]
        )[1],
        "condition": lambda: tf.cond(positive > 0, lambda: masked(X), lambda: tf.constant(X)),
        "function": lambda: called(X),
    }
    with pytest.raises(LossNotReplayableError, match=r"reads a variable and assigns it"):
        hessian(lambda: tf.reduce_sum(losses[name]()), [w])


def test_stateful_random_numbers_in_a_loop_are_refused():
    w = weights()

    def loss():
        def body(i, h):
            return i + 1, h * tf.random.uniform([], dtype=tf.float64)

        return tf.reduce_sum(tf.while_loop(lambda i, h: i < 3, body, [0, w * 1.0])[1])

    with pytest.raises(LossNotReplayableError, match=r"'RandomUniform'.*has a state"):
        hessian(loss, [w])


def test_cudnn_is_refused_and_the_remedy_named():
    w = tf.Variable(tf.zeros([500]))

    def loss():
        zeros = tf.zeros((1, 2, 5))
        out = tf.raw_ops.CudnnRNNV3(
            input=tf.zeros((4, 2, 3)),
            input_h=zeros,
            input_c=zeros,
            params=w * 1.0,
            sequence_lengths=[4, 4],
        )
        return tf.reduce_sum(out[0])

    with pytest.raises(LossNotReplayableError, match="use_cudnn=False"):
        hessian(loss, [w])
