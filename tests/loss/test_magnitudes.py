"""Even functions of |x| where x is zero: TensorFlow's derivative of |x| is zero there."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import gauss_newton, hessian
from tests.derivatives import fd_hessian
from tests.loss.by_hand import D, check

START = [0.0, 0.7, -0.4, 0.0]
AMOUNTS = np.array([2.0, -0.5, 1.5, 3.0])

EVEN = {
    "square": (lambda w: tf.square(tf.abs(w)), lambda w: w * w),
    "product": (lambda w: tf.abs(w) * tf.abs(w), lambda w: w * w),
    "product with itself": (lambda w: (lambda a: a * a)(tf.abs(w)), lambda w: w * w),
    "power": (lambda w: tf.abs(w) ** 2, lambda w: w * w),
    "fourth power": (lambda w: tf.abs(w) ** 4, lambda w: w * w * w * w),
    "keras": (lambda w: keras.ops.square(keras.ops.absolute(w)), lambda w: w * w),
    "scaled": (lambda w: tf.square(AMOUNTS * tf.abs(w) / 3.0), lambda w: (AMOUNTS * w / 3.0) ** 2),
    "minus": (lambda w: tf.square(-tf.abs(w)), lambda w: w * w),
    "scaled by weights": (
        lambda w: tf.square(tf.abs(w) * tf.sin(w[1])),
        lambda w: (w * tf.sin(w[1])) ** 2,
    ),
    "of two magnitudes": (
        lambda w: tf.square(tf.abs(w) * tf.abs(w[1])),
        lambda w: (w * w[1]) ** 2,
    ),
    "of a function": (lambda w: tf.square(tf.abs(tf.sin(w))), lambda w: tf.sin(w) ** 2),
    "cosine": (lambda w: tf.cos(tf.abs(w)), tf.cos),
    "cosh": (lambda w: tf.cosh(2.0 * tf.abs(w)), lambda w: tf.cosh(2.0 * w)),
    "sum of squares": (
        lambda w: tf.nn.l2_loss(tf.abs(w)),
        lambda w: tf.reduce_sum(w * w) / 2,
    ),
}


@pytest.mark.parametrize("name", EVEN)
def test_even_functions_of_magnitudes(name):
    ours, by_hand = EVEN[name]
    check(lambda w: [ours(w)], lambda w: [by_hand(w)], START)


def complex_of(w):
    return tf.complex(w[:2], w[2:])


SQUARES_OF_COMPLEX_NUMBERS = {
    "square": lambda w: tf.square(tf.abs(complex_of(w))),
    "product": lambda w: (lambda a: a * a)(tf.abs(complex_of(w))),
    "power": lambda w: tf.abs(complex_of(w)) ** 2,
    "sum of squares": lambda w: tf.nn.l2_loss(tf.abs(complex_of(w))) * 2.0,
}


@pytest.mark.parametrize("name", SQUARES_OF_COMPLEX_NUMBERS)
def test_squared_magnitudes_of_complex_numbers(name):
    """Probabilities of amplitudes, one of which is zero."""

    def by_hand(w):
        found = w[:2] ** 2 + w[2:] ** 2
        return [tf.reduce_sum(found)] if name == "sum of squares" else [found]

    start = [0.0, 0.7, 0.0, -0.3]
    check(lambda w: [SQUARES_OF_COMPLEX_NUMBERS[name](w)], by_hand, start)


def test_functions_with_a_kink_are_left_as_they_are():
    w = tf.Variable(START, dtype=D)

    def loss_fn():
        return tf.reduce_sum(tf.abs(w) ** 3 + tf.exp(tf.abs(w)) + tf.square(tf.abs(w) - 0.3))

    (block,) = hessian(loss_fn, [w])
    with tf.GradientTape() as tape:
        loss = loss_fn()
    np.testing.assert_allclose(block.gradient, tape.gradient(loss, w), rtol=1e-14)
    assert np.isfinite(block.matrix).all()


def in_a_condition(w):
    square = tf.square(tf.abs(w))
    return tf.cond(tf.reduce_sum(w) < 9.0, lambda: tf.square(tf.abs(w)), lambda: square)


def in_a_loop(w):
    def turn(k, so_far):
        return k + 1, so_far + tf.square(tf.abs(w - tf.cast(k, D)))

    return tf.while_loop(lambda k, _: k < 3, turn, (0, tf.zeros_like(w)))[1]


@pytest.mark.parametrize(
    "ours, by_hand",
    [
        (in_a_condition, lambda w: w * w),
        (in_a_loop, lambda w: w * w + (w - 1) ** 2 + (w - 2) ** 2),
        (tf.function(lambda w: tf.square(tf.abs(w)), autograph=False), lambda w: w * w),
    ],
    ids=["condition", "loop", "function"],
)
def test_in_bodies_too(ours, by_hand):
    check(lambda w: [ours(w)], lambda w: [by_hand(w)], START)


@pytest.mark.parametrize("curvature", ["auto", "gauss_newton", "hessian"])
def test_a_residual_of_zero_counts_in_a_step(curvature):
    """Of squares alone, a step leads to the minimum."""
    w = tf.Variable([0.0, 1.0], dtype=D)
    x = tf.constant([[1.0, 0.0], [1.0, 2.0], [0.0, 1.0]], D)

    def residuals():
        return tf.linalg.matvec(x, w) - tf.constant([0.0, 5.0, 3.0], D)

    optimizer = QNewton(curvature=curvature)
    step = tf.function(
        lambda: optimizer.minimize(lambda: tf.reduce_sum(tf.square(tf.abs(residuals()))), [w]),
        autograph=False,
    )
    for _ in range(3):
        step()
    expected = np.linalg.lstsq(x.numpy(), np.array([0.0, 5.0, 3.0]), rcond=None)[0]
    np.testing.assert_allclose(w.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_all_kinds_have_the_curvature_of_a_norm_with_a_zero(curvature):
    w = tf.Variable([0.0, 0.7], dtype=D)

    def loss_fn(size=tf.abs):
        return tf.sqrt(tf.reduce_sum(tf.square(size(w))) + 0.5)

    of = {"gauss_newton": gauss_newton, "hessian": hessian}[curvature]
    (block,) = of(loss_fn, [w])
    np.testing.assert_allclose(
        block.matrix, fd_hessian(lambda: loss_fn(tf.identity), [w]), atol=1e-9
    )


def test_many_ways_to_one_magnitude_are_one():
    """Twenty squares in a row have a million ways through both factors of each."""

    def repeated(of):
        def made(w):
            h = of(w)
            for _ in range(25):
                h = 1.01 * h * h
            return [tf.cos(h)]

        return made

    check(repeated(lambda w: tf.abs(w) + 0.01), repeated(lambda w: w + 0.01), [0.9, 0.5])


def test_exponents_are_broadcast():
    exponents = tf.fill([3, 1], tf.constant(2.0, D))

    def by_hand(w):
        return [tf.repeat((w[:2] ** 2 + w[2:] ** 2)[None], 3, 0)]

    check(lambda w: [tf.abs(complex_of(w)) ** exponents], by_hand, START)
