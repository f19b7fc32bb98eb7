"""Second derivatives at points, and of arguments, where TensorFlow's are NaN, zero or others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import hessian
from keras_qnewton.loss import LossNotReplayableError
from tests.derivatives import fd_hessian
from tests.loss.by_hand import D, check

# --- products of segments -------------------------------------------------------------------


def of_unknown_length(x):
    count = x.shape[0]
    return tf.boolean_mask(x, tf.random.stateless_uniform([count], [1, 2]) < 2)


def of_unknown_count(number):
    return tf.cast(tf.random.stateless_uniform([], [1, 2]) < 2, tf.int32) * number


def product(x, places):
    found = tf.ones_like(x[0])
    for place in places:
        found = found * x[place]
    return found


SEGMENTS = {
    "unsorted": (
        lambda x: tf.math.unsorted_segment_prod(x, [2, 0, 2, -1, 2], 4),
        [[1], [], [0, 2, 4], []],
    ),
    "unsorted, nothing known": (
        lambda x: tf.math.unsorted_segment_prod(
            of_unknown_length(x),
            of_unknown_length(tf.constant([2, 0, 2, -1, 2])),
            of_unknown_count(4),
        ),
        [[1], [], [0, 2, 4], []],
    ),
    "unsorted, one segment": (
        lambda x: tf.math.unsorted_segment_prod(x, [0] * 5, 1),
        [[0, 1, 2, 3, 4]],
    ),
    "sorted": (
        lambda x: tf.math.segment_prod(x, [0, 0, 2, 2, 2]),
        [[0, 1], [], [2, 3, 4]],
    ),
    "sorted, nothing known": (
        lambda x: tf.math.segment_prod(
            of_unknown_length(x), of_unknown_length(tf.constant([0, 0, 2, 2, 2]))
        ),
        [[0, 1], [], [2, 3, 4]],
    ),
}


@pytest.mark.parametrize("kind", ["zeros", "one zero", "complex"])
@pytest.mark.parametrize("name", SEGMENTS)
def test_products_of_segments(name, kind):
    start = {
        "zeros": [0.7, 0.0, 0.0, 0.6, 0.0],
        "one zero": [0.7, -0.2, 0.0, 0.6, 0.4],
        "complex": [0.7, -0.2, -1.3, 0.6, 0.4],
    }[kind]
    ours, places = SEGMENTS[name]

    def numbers(w):
        return tf.complex(w, tf.sin(2 * w)) if kind == "complex" else w

    def known(found):
        return tf.ensure_shape(found, [len(places)])

    check(
        lambda w: [known(ours(numbers(w)))],
        lambda w: [product(numbers(w), of_segment) for of_segment in places],
        start,
    )


def test_segments_of_matrices_and_of_cells():
    start = np.array([[0.7, 0.0], [0.0, 0.4], [1.2, -0.3]])
    check(
        lambda w: [tf.math.unsorted_segment_prod(w, [1, 1, 0], 2)],
        lambda w: [w[2], w[0] * w[1]],
        start,
    )
    check(
        lambda w: [tf.math.unsorted_segment_prod(w, [[0, 1], [1, 0], [1, -1]], 2)],
        lambda w: [w[0, 0] * w[1, 1], w[0, 1] * w[1, 0] * w[2, 0]],
        start,
    )


def test_an_infinite_element_stays_in_its_segment():
    w = tf.Variable([2.0, 3.0], dtype=D)

    def loss_fn():
        everything = tf.concat([w, tf.constant([np.inf], D)], 0)
        return tf.math.unsorted_segment_prod(everything, [0, 0, 1], 2)[0]

    (block,) = hessian(loss_fn, [w])
    np.testing.assert_allclose(block.matrix, [[0.0, 1.0], [1.0, 0.0]])


def test_ragged_products_of_zeros():
    check(
        lambda w: [tf.reduce_prod(tf.RaggedTensor.from_row_lengths(w, [3, 0, 2]), 1)],
        lambda w: [w[0] * w[1] * w[2], tf.ones([], D), w[3] * w[4]],
        [0.0, 0.3, 0.0, 0.0, 0.7],
    )


# --- powers ---------------------------------------------------------------------------------


def test_powers_of_zero():
    """Of 1, x² and so on, as polynomials are written."""
    check(
        lambda w: [tf.pow(w[:, None], np.arange(5.0))],
        lambda w: [tf.stack([tf.ones_like(w), w, w * w, w * w * w, w * w * w * w], 1)],
        [0.0, 0.7, -0.4],
    )


def test_powers_whose_exponents_are_data_or_weights():
    exponents = tf.Variable([1.0, 2.0, 3.0], dtype=D, trainable=False)
    check(
        lambda w: [tf.pow(w, exponents)],
        lambda w: [tf.stack([w[0], w[1] ** 2, w[2] ** 3])],
        [0.0, 0.0, -0.4],
    )
    check(
        lambda w: [tf.pow(w[0], w[1])],
        lambda w: [tf.exp(w[1] * tf.math.log(w[0]))],
        [0.7, 1.0],
    )


# --- special functions ----------------------------------------------------------------------


def series(terms):
    return lambda w: [tf.add_n([c * (w**k if k else tf.ones_like(w)) for k, c in terms.items()])]


SERIES = {
    "bessel_i0": {0: 1.0, 2: 1 / 4, 4: 1 / 64, 6: 1 / 2304},
    "bessel_i1": {1: 1 / 2, 3: 1 / 16, 5: 1 / 384, 7: 1 / 18432},
    "special.bessel_j0": {0: 1.0, 2: -1 / 4, 4: 1 / 64, 6: -1 / 2304},
    "special.bessel_j1": {1: 1 / 2, 3: -1 / 16, 5: 1 / 384, 7: -1 / 18432},
}


def named(path):
    found = tf.math
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("name", SERIES)
def test_bessel_functions_at_zero(name):
    check(lambda w: [named(name)(w)], series(SERIES[name]), [0.0, 1e-9, -0.02, 1e-200, 0.01])


def test_dilogarithm_at_one():
    """Σ (1 - x)^k / k²."""
    terms = {k: 1 / k**2 for k in range(1, 9)}
    check(
        lambda w: [tf.math.special.spence(w)],
        lambda w: series(terms)(1 - w),
        [1.0, 1.0 + 1e-9, 0.98, 1.01],
    )


def test_scaled_bessel_function_is_flat_enough_to_have_a_hessian_at_zero():
    w = tf.Variable([0.0, 0.5], dtype=D)
    (block,) = hessian(lambda: tf.reduce_sum(tf.math.bessel_i1e(w)), [w])
    np.testing.assert_allclose(block.gradient[0], 0.5)
    assert np.isfinite(block.matrix).all()


# --- what is zero where a factor is --------------------------------------------------------------

FACTORS = {
    "xlogy": (tf.math.xlogy, lambda x, y: x * tf.math.log(y)),
    "xlog1py": (tf.math.xlog1py, lambda x, y: x * tf.math.log1p(y)),
    "xdivy": (tf.math.xdivy, lambda x, y: x / y),
}


@pytest.mark.parametrize("name", FACTORS)
def test_mixed_derivatives_where_a_factor_is_zero(name):
    """The gradient in x is what TensorFlow says, zero."""
    ours, by_hand = FACTORS[name]
    w = tf.Variable([0.0, 0.4, 2.5, 1.7], dtype=D)

    def of(function):
        return lambda: tf.reduce_sum(tf.constant([1.0, 2.0], D) * function(w[:2], w[2:]))

    (block,) = hessian(of(ours), [w])
    np.testing.assert_allclose(block.matrix, fd_hessian(of(by_hand), [w]), atol=1e-9)
    with tf.GradientTape() as tape:
        value = of(ours)()
    np.testing.assert_allclose(block.gradient, tape.gradient(value, w), rtol=1e-14)


@pytest.mark.parametrize("name", FACTORS)
def test_factors_without_a_logarithm_or_a_reciprocal_add_nothing(name):
    """As in an entropy, whose probabilities have underflown."""
    ours, _ = FACTORS[name]
    w = tf.Variable([0.0, 1.3], dtype=D)
    shift = {"xlogy": 0.0, "xlog1py": -1.0, "xdivy": 0.0}[name]

    def loss_fn():
        return ours(w[0], w[0] + shift) + w[1] ** 2

    (block,) = hessian(loss_fn, [w])
    np.testing.assert_allclose(block.matrix, [[0.0, 0.0], [0.0, 2.0]])


# --- complex matrices, labels ---------------------------------------------------------------


def test_determinants_of_complex_matrices():
    def complex_of(w):
        return tf.reshape(tf.complex(w, tf.sin(2 * w)), [2, 2])

    def by_hand(w):
        a = complex_of(w)
        return [a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]]

    check(lambda w: [tf.linalg.det(complex_of(w))], by_hand, [0.7, -0.2, 1.3, 0.6])


def of_both(function):
    """Logits `[2, 3]`, and labels that are the softmax of others."""
    return lambda w: [function(tf.reshape(w[:6], [2, 3]), tf.nn.softmax(tf.reshape(w[6:], [2, 3])))]


@pytest.mark.parametrize("of", ["tensorflow", "keras"])
def test_labels_that_depend_on_the_weights(of):
    """As of a teacher that learns, too."""

    def by_hand(logits, labels):
        return -tf.reduce_sum(labels * tf.nn.log_softmax(logits), -1)

    functions = {
        "tensorflow": lambda z, y: tf.nn.softmax_cross_entropy_with_logits(y, z),
        "keras": lambda z, y: keras.losses.categorical_crossentropy(y, z, from_logits=True),
    }
    start = np.random.default_rng(0).normal(size=12)
    check(of_both(functions[of]), of_both(by_hand), start)


def test_entropies_of_logits():
    start = np.random.default_rng(1).normal(size=6)

    def entropy(w):
        logits = tf.reshape(w, [2, 3])
        return [tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(logits), logits)]

    def by_hand(w):
        p = tf.nn.softmax(tf.reshape(w, [2, 3]))
        return [-tf.reduce_sum(p * tf.math.log(p), -1)]

    check(entropy, by_hand, start)


def test_statistics_of_a_fused_normalisation_that_depend_on_the_weights_are_refused():
    w = tf.Variable([0.3, -0.2])

    def loss_fn():
        x, ones = tf.ones([1, 2, 2, 2]), tf.ones([2])
        found = tf.compat.v1.nn.fused_batch_norm(
            x, ones, ones, mean=w, variance=ones, is_training=False
        )
        return tf.reduce_sum(found[0] ** 2 * w)

    with pytest.raises(LossNotReplayableError, match=r"FusedBatchNorm.*batch_normalization"):
        hessian(loss_fn, [w])
