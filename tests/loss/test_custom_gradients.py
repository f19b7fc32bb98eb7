"""Given gradients are replayed as given, and differentiated once more."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import hessian
from keras_qnewton.loss import LossNotReplayableError, record
from tests.derivatives import fd_hessian, flat_gradient, relative_error, set_precision

D = tf.float64
START = np.array([0.7, -1.2, 1.9])
X = np.random.default_rng(0).normal(size=(7, 3))


@pytest.fixture
def double():
    set_precision("float64")
    yield
    set_precision("float32")


def vector(values=START):
    return tf.Variable(values, dtype=D)


@tf.custom_gradient
def cubed(x):
    """Not its derivative: 2x², where 3x² would be."""
    return x**3, lambda u: u * 2.0 * x**2


@tf.custom_gradient
def root(p):
    """z of z + z³ = p, by an iteration that tapes do not see."""
    z = p * 0.0
    for _ in range(30):
        z = z - (z + z**3 - p) / (1 + 3 * z**2)
    z = tf.stop_gradient(z)
    return z, lambda u: u / (1 + 3 * z**2)


@tf.custom_gradient
def root_solved(p):
    """The same, the gradient's system solved by an iteration, too: v = u - 3z²v."""
    z = root(p)

    def gradient(u):
        def turn(v):
            return v - (v * (1 + 3 * z**2) - u) / (2 + 3 * z**2)

        end = tf.while_loop(lambda v: tf.reduce_max(tf.abs(turn(v) - v)) > 1e-14, turn, [u])
        return end[0] if isinstance(end, (list, tuple)) else end

    return z, gradient


@tf.custom_gradient
def smooth_sign(x):
    """What its gradient needs is computed beside the results, on no path to them."""
    inside = tf.exp(-(x**2))
    return tf.sign(x) * 0.3, lambda u: u * inside


@tf.custom_gradient
def reversal(x):
    """Returns its argument."""
    return x, lambda u: -u * x


@tf.custom_gradient
def halves(x):
    """Two results of several arguments' one."""
    a, b = tf.sin(x), tf.cos(x)
    return (a, b), lambda u, v: u * b - v * a


@tf.custom_gradient
def sine(x):
    return tf.sin(x), lambda u: u * cosine(x)


@tf.custom_gradient
def cosine(x):
    return tf.cos(x), lambda u: -u * sine(x)


@tf.RegisterGradient("TestsSteepTanh")
def _steep(op, u):
    return u * (1.5 - op.outputs[0] ** 2)


def overridden(x):
    with tf.compat.v1.get_default_graph().gradient_override_map({"Tanh": "TestsSteepTanh"}):
        return tf.tanh(x)


def nested_tapes(loss_fn, w):
    """Gradient and Hessian by TensorFlow's own tapes over the very operations."""

    @tf.function(autograph=False)
    def both():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = loss_fn()
            gradient = inner.gradient(loss, w)
        return gradient, outer.jacobian(gradient, w, experimental_use_pfor=False)

    return [t.numpy() for t in both()]


def assert_matches_differences(loss_fn, variables):
    """Of TensorFlow's own gradient."""
    (block,) = hessian(loss_fn, variables)
    np.testing.assert_allclose(block.gradient, flat_gradient(loss_fn, variables)(), rtol=1e-12)
    assert relative_error(block.matrix, fd_hessian(loss_fn, variables)) < 1e-9


def once(function, x):
    return function(x)


def called(function, x):
    inner = tf.function(lambda z: function(z) * 2.0, autograph=False)
    return tf.function(lambda z: inner(z) * 0.5, autograph=False)(x)


def in_a_known_loop(function, x):
    return tf.while_loop(lambda i, z: i < 2, lambda i, z: (i + 1, 0.8 * function(z)), (0, x))[1]


def in_an_unknown_loop(function, x):
    turns = tf.cast(tf.reduce_sum(x) < 1e9, tf.int32) + 1
    return tf.while_loop(lambda i, z: i < turns, lambda i, z: (i + 1, 0.8 * function(z)), (0, x))[1]


def in_a_condition(function, x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: function(x * 1.0), lambda: x)


PLACES = [once, called, in_a_known_loop, in_an_unknown_loop, in_a_condition]
NAMES = [place.__name__ for place in PLACES]


def loss_of(function, w, place=once):
    return lambda: tf.reduce_sum(tf.exp(0.5 * place(function, tf.linalg.matvec(X, w))))


@pytest.mark.parametrize("place", PLACES, ids=NAMES)
def test_a_given_gradient_is_replayed_wherever_the_function_is(place):
    w = vector()
    loss_fn = loss_of(cubed, w, place)
    (block,) = hessian(loss_fn, [w])
    gradient, matrix = nested_tapes(loss_fn, w)
    np.testing.assert_allclose(block.gradient, gradient, rtol=1e-12)
    np.testing.assert_allclose(block.matrix, matrix, rtol=1e-10)


@pytest.mark.parametrize("place", PLACES, ids=NAMES)
def test_a_given_gradient_of_hidden_operations_has_its_second_derivative(place):
    w = vector()
    assert_matches_differences(loss_of(root, w, place), [w])


def test_a_given_gradient_that_iterates_has_its_second_derivative():
    w = vector()
    assert_matches_differences(loss_of(root_solved, w), [w])


@pytest.mark.parametrize("function", [smooth_sign, reversal], ids=["beside", "argument returned"])
def test_a_gradient_that_is_not_the_functions_is_differentiated_as_given(function):
    w = vector()
    loss_fn = loss_of(function, w)
    (block,) = hessian(loss_fn, [w])
    gradient, matrix = nested_tapes(loss_fn, w)
    np.testing.assert_allclose(block.gradient, gradient, rtol=1e-12)
    np.testing.assert_allclose(block.matrix, (matrix + matrix.T) / 2, rtol=1e-10)


@pytest.mark.parametrize("place", PLACES, ids=NAMES)
def test_an_override_map_counts_where_tapes_follow_it(place):
    w = vector()
    loss_fn = loss_of(overridden, w, place)
    (block,) = hessian(loss_fn, [w])
    gradient, matrix = nested_tapes(loss_fn, w)
    np.testing.assert_allclose(block.gradient, gradient, rtol=1e-12)
    np.testing.assert_allclose(block.matrix, (matrix + matrix.T) / 2, rtol=1e-10)


def test_several_results():
    w = vector()

    def loss_fn():
        a, b = halves(tf.linalg.matvec(X, w))
        return tf.reduce_sum(tf.exp(a * b))

    assert_matches_differences(loss_fn, [w])


def test_gradients_given_without_end():
    w = vector()
    assert_matches_differences(loss_of(sine, w), [w])


def test_a_variable_that_the_function_reads_itself():
    w, scale = vector(), vector(START + 1)

    @tf.custom_gradient
    def scaled(x):
        def gradient(u, variables):
            (s,) = variables
            return u * s, [u * x]

        return x * scale, gradient

    assert_matches_differences(lambda: tf.reduce_sum(tf.exp(scaled(w**2))), [w, scale])


def test_at_other_weights_the_gradient_is_the_one_there():
    w = vector()
    loss_fn = loss_of(root, w)

    @tf.function(autograph=False)
    def shifted():
        recorded = record(loss_fn, [w])
        at = recorded.at_variables()[0] + 0.3
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = recorded([at])
        return tape.gradient(value, at)

    found = shifted().numpy()
    w.assign(START + 0.3)
    np.testing.assert_allclose(found, flat_gradient(loss_fn, [w])(), rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["silu", "gelu", "mish", "sparsemax", "squareplus", "celu", "log_softmax", "relu6"]
)
def test_activations_are_as_exact_as_before(name, double):
    w, kernel = vector(), tf.Variable(np.random.default_rng(1).normal(size=(3, 4)))
    activation = getattr(keras.activations, name)
    assert_matches_differences(
        lambda: tf.reduce_sum(tf.exp(0.5 * activation(tf.matmul(X * w, kernel)))), [w, kernel]
    )


@pytest.mark.parametrize("place", PLACES, ids=NAMES)
def test_recomputed_gradients_are_exact(place):
    """TensorFlow gives `tf.recompute_grad`'s gradient a gradient that only raises an error."""
    w, kernel = vector(), tf.Variable(np.random.default_rng(1).normal(size=(7, 7)) / 7)
    layer = tf.recompute_grad(lambda x: tf.tanh(tf.linalg.matvec(kernel, x)))
    (block,) = hessian(loss_of(layer, w, place), [w, kernel])
    plain = loss_of(lambda x: tf.tanh(tf.linalg.matvec(kernel, x)), w, place)
    assert relative_error(block.matrix, fd_hessian(plain, [w, kernel])) < 1e-9


def test_a_gradient_that_leaves_the_graph_is_refused():
    w = vector()

    @tf.custom_gradient
    def squared(x):
        def gradient(u):
            return tf.ensure_shape(tf.numpy_function(lambda a, b: 2 * a * b, [x, u], D), [7])

        return x**2, gradient

    with pytest.raises(LossNotReplayableError, match="has a state or leaves the graph"):
        hessian(loss_of(squared, w), [w])


def test_a_gradient_of_what_the_loop_does_not_see_is_refused():
    w, turns = vector(), tf.Variable(2)

    def loss_fn():
        outside = tf.exp(w)

        @tf.custom_gradient
        def scaled(x):
            return x**2, lambda u: u * outside

        end = tf.while_loop(lambda i, x: i < turns, lambda i, x: (i + 1, scaled(x)), (0, w * 1.0))
        return tf.reduce_sum(end[1])

    with pytest.raises(LossNotReplayableError, match="Pass it to the function as an argument"):
        hessian(loss_fn, [w])


def test_newton_converges_through_an_implicit_layer():
    x = np.linspace(-2, 2, 30)
    w = tf.Variable([0.5, -1.0], dtype=D)
    target = root(tf.constant(1.7 * x + 0.4))

    def loss_fn():
        return tf.reduce_mean((root(w[0] * x + w[1]) - target) ** 2)

    optimizer = QNewton()
    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    for _ in range(20):
        step()
    np.testing.assert_allclose(w.numpy(), [1.7, 0.4], atol=1e-8)
