"""CTC: its curvature's bound, against all paths that read a label, one by one in float64."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import QNewton
from keras_qnewton.curvature import gauss_newton, hessian
from keras_qnewton.curvature.outputs import ConvexPart, convex_loss
from keras_qnewton.loss import LossNotReplayableError, record

B, T, C = 2, 4, 3
LABELS = np.array([[1, 2], [2, 0]], "int32")
LENGTHS = np.array([2, 1], "int32")
FRAMES = np.array([4, 3], "int32")
WEIGHTS = np.array([1.5, 0.4], "float32")


def reads(path, label, blank):
    return [c for c, _ in itertools.groupby(path) if c != blank] == list(label)


def paths(label, frames, blank=0):
    """One row a path that reads the label, `[paths, T C]`: the class of each frame in use."""
    rows = [
        np.eye(C)[list(path)]
        for path in itertools.product(range(C), repeat=frames)
        if reads(path, label, blank)
    ]
    padded = [np.concatenate([row, np.zeros([T - frames, C])]) for row in rows]
    return np.reshape(padded, [-1, T * C])


def softmax(x):
    return (
        np.exp(x - x.max(-1, keepdims=True))
        / np.exp(x - x.max(-1, keepdims=True)).sum(-1)[..., None]
    )


def gradient(z, label, frames, blank=0):
    """Of one example's loss, `[T C]`."""
    of_paths = paths(label, frames, blank)
    p = softmax(z) * (np.arange(T) < frames)[:, None]
    return p.ravel() - softmax(of_paths @ z.ravel()) @ of_paths


def exact_hessian(z, label, frames):
    step = 1e-5
    columns = [
        gradient(z + step * e, label, frames) - gradient(z - step * e, label, frames)
        for e in np.eye(T * C).reshape(-1, T, C)
    ]
    return np.array(columns) / (2 * step)


def bound(z, frames):
    """diag p - p pᵀ of each frame in use, `[T C, T C]`."""
    out = np.zeros([T, C, T, C])
    for t in range(frames):
        p = softmax(z[t])
        out[t, :, t] = np.diag(p) - np.outer(p, p)
    return out.reshape(T * C, T * C)


def dense(z, **options):
    return tf.nn.ctc_loss(LABELS, z, LENGTHS, FRAMES, logits_time_major=False, **options)


def with_blank_in_the_middle(z):
    labels = np.array([[0, 2], [2, 0]], "int32")
    return tf.nn.ctc_loss(labels, z, LENGTHS, FRAMES, logits_time_major=False, blank_index=1)


def sparse_labels(blank):
    labels = np.where(blank == LABELS, C - 1 if blank == 0 else 0, LABELS)
    return tf.SparseTensor([[0, 0], [0, 1], [1, 0]], labels[[0, 0, 1], [0, 1, 0]], [B, 2])


def sparse(z):
    return tf.nn.ctc_loss(sparse_labels(0), z, None, FRAMES, logits_time_major=False, blank_index=0)


def of_the_first_version(z):
    """Its blank is the last class."""
    labels = tf.SparseTensor([[0, 0], [0, 1], [1, 0]], [0, 1, 1], [B, 2])
    return tf.compat.v1.nn.ctc_loss(labels, z, FRAMES, time_major=False)


LOSSES = {
    "dense": dense,
    "unique": lambda z: dense(z, unique=tf.nn.ctc_unique_labels(tf.constant(LABELS))),
    "blank in the middle": with_blank_in_the_middle,
    "sparse": sparse,
    "first version": of_the_first_version,
    "in a function": lambda z: tf.function(dense)(z),
    "keras": lambda z: keras.ops.ctc_loss(LABELS, z, LENGTHS, FRAMES),
}


class Curvature:
    """C of a loss of z `[B, T, C]`, by products and by roots."""

    def __init__(self, loss):
        self.z = tf.Variable(tf.zeros([B, T, C]))

        def loss_fn():
            z = tf.reshape(tf.reshape(self.z, [B, -1]) @ tf.eye(T * C), [B, T, C])
            return tf.reduce_sum(loss(z) * WEIGHTS)

        @tf.function
        def compute():
            recorded = record(loss_fn, [self.z])
            convex = convex_loss(recorded)
            assert convex.recognised
            assert not convex.rest
            (output,) = convex.outputs
            weights = recorded.at_variables()
            part = ConvexPart(recorded, output, weights, {output.name: weights[0]}, tf.float32)
            found = output.rule.curvature(part)
            units = tf.reshape(tf.eye(T * C), [T * C, 1, T, C]) * tf.ones([1, B, 1, 1])
            products = tf.map_fn(found.product, units)
            return found.gradient, products, found.roots()

        self._compute = compute

    def at(self, z):
        """∂L/∂z `[B, T C]`, and C of each example by products and by roots, `[B, T C, T C]`."""
        self.z.assign(z)
        slope, products, roots = (t.numpy() for t in self._compute())
        rows = roots.reshape(-1, B, T * C)
        by_products = products.reshape(T * C, B, T * C).transpose(1, 0, 2)
        return slope.reshape(B, -1), by_products, np.einsum("rbi,rbj->bij", rows, rows)


@pytest.fixture(scope="module")
def of_dense():
    return Curvature(dense)


def drawn(seed, scale):
    return np.random.default_rng(seed).normal(size=[B, T, C]).astype("float32") * scale


CASES = {"seed": st.integers(0, 2**20), "scale": st.floats(0.01, 6.0)}


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_it_is_a_bound_of_the_hessian(of_dense, seed, scale):
    z = drawn(seed, scale)
    _, found, _ = of_dense.at(z)
    for b in range(B):
        exact = WEIGHTS[b] * exact_hessian(z[b].astype(float), LABELS[b, : LENGTHS[b]], FRAMES[b])
        assert np.linalg.eigvalsh(found[b] - exact).min() > -1e-5


@settings(max_examples=10, deadline=None)
@given(**CASES)
def test_roots_are_those_of_products(of_dense, seed, scale):
    _, products, by_roots = of_dense.at(drawn(seed, scale))
    np.testing.assert_allclose(by_roots, products, atol=1e-6)


def test_the_gradient_is_that_of_all_paths(of_dense):
    z = drawn(3, 1.0)
    slope, _, _ = of_dense.at(z)
    for b in range(B):
        expected = WEIGHTS[b] * gradient(z[b], LABELS[b, : LENGTHS[b]], FRAMES[b])
        np.testing.assert_allclose(slope[b], expected, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_form_of_the_loss_is_known(loss):
    z = drawn(1, 1.0)
    _, products, by_roots = Curvature(loss).at(z)
    for b in range(B):
        expected = WEIGHTS[b] * bound(z[b], FRAMES[b])
        np.testing.assert_allclose(products[b], expected, atol=1e-6)
        np.testing.assert_allclose(by_roots[b], expected, atol=1e-6)


def test_logits_with_frames_first_have_the_same_bound():
    z = drawn(2, 1.0)
    w = tf.Variable(z.transpose(1, 0, 2))

    def loss_fn():
        logits = tf.reshape(tf.reshape(w, [T, -1]) @ tf.eye(B * C), [T, B, C])
        return tf.reduce_sum(tf.nn.ctc_loss(LABELS, logits, LENGTHS, FRAMES) * WEIGHTS)

    (block,) = gauss_newton(loss_fn, [w])
    found = block.matrix.numpy().reshape(T, B, C, T, B, C)
    for b in range(B):
        expected = WEIGHTS[b] * bound(z[b], FRAMES[b])
        np.testing.assert_allclose(found[:, b, :, :, b].reshape(T * C, T * C), expected, atol=1e-6)
    assert not np.any(found[:, 0, :, :, 1])


@pytest.mark.parametrize("loss", [dense, sparse], ids=["dense", "sparse"])
def test_the_exact_hessian_is_refused_by_name(loss):
    z = tf.Variable(drawn(0, 1.0))
    with pytest.raises(LossNotReplayableError, match="CTC loss: curvature='auto'"):
        hessian(lambda: tf.reduce_sum(loss(z)), [z])


def test_a_speech_model_trains_in_stock_keras():
    """Frames that see their neighbours, and a penalty."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(1, 4, (16, 2))
    x = rng.normal(size=(16, 6, 3)).astype("float32") * 0.1
    for k in range(2):  # frame 1 + 3k shows the k-th label
        x[np.arange(16), 1 + 3 * k, y[:, k] - 1] += 2
    layers = [
        keras.layers.Conv1D(4, 3, padding="same", activation="tanh", kernel_regularizer="l2"),
        keras.layers.Dense(4),
    ]
    model = keras.Sequential([keras.layers.Input((6, 3)), *layers])
    optimizer = QNewton()
    model.compile(optimizer=optimizer, loss=keras.losses.CTC())
    losses = model.fit(x, y, batch_size=16, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 5
    assert np.all(np.diff(losses) <= 1e-3)


def test_a_ctc_loss_in_a_loop_is_refused_and_trains_without_a_second_derivative():
    """As of batches that are gone through by `tf.scan`."""
    rng = np.random.default_rng(0)
    w = tf.Variable(rng.normal(size=[C, C]).astype("float32"))
    x = tf.constant(rng.normal(size=[3, B, T, C]), tf.float32)

    def loss_fn():
        return tf.scan(lambda total, z: total + tf.reduce_mean(dense(z @ w)), x, 0.0)[-1]

    with pytest.raises(LossNotReplayableError, match=r"scan/while.*in a loop.*quasi_newton"):
        QNewton().minimize(loss_fn, [w])
    optimizer, before = QNewton(curvature="quasi_newton"), float(loss_fn())
    step = tf.function(lambda: optimizer.minimize(loss_fn, [w]), autograph=False)
    for _ in range(5):
        step()
    assert float(loss_fn()) < 0.8 * before


@pytest.mark.slow
@pytest.mark.parametrize("layer", [keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN])
def test_recurrent_models_train_by_a_ctc_loss(layer):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 8, 3)).astype("float32")
    y = rng.integers(1, 4, (16, 2))
    model = keras.Sequential(
        [
            keras.layers.Input((8, 3)),
            layer(4, return_sequences=True),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(QNewton(), keras.losses.CTC())
    losses = model.fit(x, y, batch_size=16, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
