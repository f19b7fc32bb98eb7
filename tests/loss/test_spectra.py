"""Eigenvalues and singular values: second derivatives, and an error where values are equal."""

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import hessian
from tests.derivatives import fd_hessian, relative_error

D = tf.float64
RNG = np.random.default_rng(0)
START = RNG.normal(size=9)
TALL = RNG.normal(size=12)


def symmetric(w, scale=1.0):
    a = tf.reshape(w, [3, 3])
    return scale * (a + tf.transpose(a))


def hermitian(w):
    a = tf.complex(tf.reshape(w, [3, 3]), tf.reshape(w[::-1], [3, 3]))
    return a + tf.linalg.adjoint(a)


def of_eigenvectors(w):
    values, vectors = tf.linalg.eigh(symmetric(w))
    return tf.reduce_sum(values**3) + tf.reduce_sum(tf.square(vectors)[0] * [1.0, 2.0, 4.0])


FUNCTIONS = {
    "eigenvalues": lambda w: tf.reduce_sum(tf.exp(tf.linalg.eigvalsh(symmetric(w)))),
    "largest eigenvalue": lambda w: tf.linalg.eigvalsh(symmetric(w))[-1],
    "several matrices": lambda w: tf.reduce_sum(
        tf.linalg.eigvalsh(tf.stack([symmetric(w), symmetric(w**2)])) ** 3
    ),
    "eigenvectors": of_eigenvectors,
    "hermitian": lambda w: tf.reduce_sum(tf.math.real(tf.linalg.eigvalsh(hermitian(w))) ** 3),
    "singular values": lambda w: tf.reduce_sum(
        tf.exp(tf.linalg.svd(tf.reshape(w, [3, 3]), compute_uv=False))
    ),
    "spectral norm": lambda w: tf.norm(tf.reshape(w, [3, 3]), 2, [0, 1]),
    "complex singular values": lambda w: tf.reduce_sum(
        tf.linalg.svd(tf.complex(tf.reshape(w, [3, 3]), symmetric(w)), compute_uv=False) ** 3
    ),
    "singular vectors": lambda w: tf.reduce_sum(
        tf.square(tf.linalg.svd(tf.reshape(w, [3, 3]))[1])[0] * [1.0, 2.0, 4.0]
    ),
    "nuclear norm": lambda w: tf.reduce_sum(tf.linalg.svd(tf.reshape(w, [3, 3]), compute_uv=False)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_are_differences_of_gradients(name):
    w = tf.Variable(START)

    def loss_fn():
        return FUNCTIONS[name](tf.identity(w))

    (block,) = hessian(loss_fn, [w])
    assert relative_error(block.matrix, fd_hessian(loss_fn, [w])) < 1e-7
    with tf.GradientTape() as tape:
        loss = loss_fn()
    np.testing.assert_allclose(block.gradient, tape.gradient(loss, w), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_singular_values_and_vectors_of_matrices_that_are_not_square(shape):
    w = tf.Variable(TALL)

    def loss_fn():
        s, u, v = tf.linalg.svd(tf.reshape(w, shape))
        alone = tf.linalg.svd(tf.reshape(w, shape), compute_uv=False)
        vectors = tf.square(u[0]) + tf.square(v[1])
        return tf.reduce_sum(alone**3 + s**2 * vectors)

    (block,) = hessian(loss_fn, [w])
    assert relative_error(block.matrix, fd_hessian(loss_fn, [w])) < 1e-7


def test_matrices_may_be_of_any_size():
    """TensorFlow adds 1e-20 to squares of differences of eigenvalues."""
    w = tf.Variable(START)

    def loss_of(scale):
        return lambda: tf.reduce_sum((tf.linalg.eigvalsh(symmetric(w, scale)) / scale) ** 3)

    small, usual = (hessian(loss_of(scale), [w])[0].matrix for scale in (2.0**-40, 1.0))
    np.testing.assert_allclose(small, usual, rtol=1e-9, atol=1e-9)


EQUAL = {
    "SelfAdjointEigV2": lambda a: tf.reduce_sum(tf.linalg.eigvalsh(a) ** 2),
    "SelfAdjointEigV2 with vectors": lambda a: tf.reduce_sum(
        tf.linalg.eigh(a)[1][0] * [1.0, 2.0, 3.0]
    ),
    "Svd": lambda a: tf.reduce_sum(tf.linalg.svd(a, compute_uv=False) ** 2),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_are_an_error_that_names_the_operation(name):
    w = tf.Variable(tf.eye(3, dtype=D) * 2.0)

    def loss_fn():
        with tf.name_scope("a_layer"):
            return EQUAL[name](tf.identity(w))

    kind = name.split()[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{kind} .a_layer/.*equal"):
        hessian(loss_fn, [w])
    optimizer = QNewton(curvature="hessian")
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{kind} .a_layer/.*equal"):
        optimizer.minimize(loss_fn, [w])
    np.testing.assert_array_equal(w.numpy(), 2.0 * np.eye(3))


def test_equal_values_that_do_not_count_are_no_error():
    """The largest eigenvalue is smooth whatever the others are."""
    w = tf.Variable([1.0, 1.0, 3.0], dtype=D)
    q, _ = np.linalg.qr(START.reshape(3, 3))

    def loss_fn():
        a = tf.matmul(q * w, q, transpose_b=True)
        return tf.linalg.eigvalsh((a + tf.transpose(a)) / 2)[-1] ** 2

    (block,) = hessian(loss_fn, [w])
    np.testing.assert_allclose(block.matrix, np.diag([0.0, 0.0, 2.0]), atol=1e-9)


def test_first_order_curvature_trains_from_equal_eigenvalues():
    """A matrix to be made of given eigenvalues, from one whose own are equal."""
    w = tf.Variable(tf.eye(3, dtype=D))
    optimizer = QNewton(curvature="gauss_newton")

    def loss_fn():
        values = tf.linalg.eigvalsh((w + tf.transpose(w)) / 2)
        return tf.reduce_sum((values - [0.5, 1.0, 3.0]) ** 2)

    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    for _ in range(15):
        step()
    assert float(loss_fn()) < 1e-8


def test_small_singular_values_are_told_apart():
    """Their squares are below the smallest number of single precision."""
    unit = 2.0**-70
    w = tf.Variable(np.diag([1.0, 2.0, 5.0]).ravel() * unit, dtype=tf.float32)

    def loss_fn(w=w, unit=unit):
        values, left, _ = tf.linalg.svd(tf.reshape(w, [3, 3]))
        return tf.reduce_sum((values / unit) ** 3 * tf.square(left[0]))

    (block,) = hessian(loss_fn, [w])
    other = tf.Variable(w / unit)
    (expected,) = hessian(lambda: loss_fn(other, 1.0), [other])
    assert np.all(np.isfinite(block.gradient))
    assert relative_error(block.gradient * unit, expected.gradient) < 1e-5
