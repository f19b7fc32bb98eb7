"""Blocks by single passes, where rows are not known by uses: JᵀCJ, with z and φ written by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import (
    Blocks,
    EmpiricalFisher,
    GaussNewton,
    formation,
    rows_by_passes,
)
from keras_qnewton.curvature.outputs.base import CurvatureByTapes
from keras_qnewton.loss import as_tensors, record
from tests.curvature.reach import cross_entropy, net
from tests.curvature.test_reach import reference
from tests.derivatives import relative_error

L = keras.layers
pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
# Examples of few rows and of many, and how long a backward pass is said to take.
FEW, MANY = 5, 40
ALWAYS, NEVER = 1e12, 0.0


class Powers(L.Layer):
    """Of weights, which enter otherwise than linearly."""

    def build(self, shape):
        self.power = self.add_weight(shape=(shape[-1],), initializer="ones", name="power")

    def call(self, x):
        return tf.tanh(tf.pow(1.0 + x**2, self.power))


class Among(L.Layer):
    """The attention of a batch to itself, in which all examples meet."""

    def call(self, x):
        return tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x


class Turns(L.Layer):
    """As many turns as its own results say, which cannot be counted before."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return tf.while_loop(
            lambda k, x: (k < 2) | (tf.reduce_max(tf.abs(x)) > 1.0),
            lambda k, x: (k + 1, tf.tanh(x * self.scale)),
            (0, x),
        )[1]


def coupled(outputs=2, **arguments):
    return net(L.Dense(4, **arguments), Among(), Powers(), L.Dense(outputs))


def attention_of_a_batch(x):
    model = coupled(3)
    labels = np.arange(len(x)) % 3
    return model, lambda: [model(x, training=True)], lambda zs: cross_entropy(zs[0], labels)


def contrastive(x):
    """Each example's loss looks at three others."""
    model = net(L.Dense(4, activation="tanh"), L.Dense(3))

    def outputs():
        z = model(x)
        return [tf.matmul(z, z[:3], transpose_b=True)]

    return model, outputs, lambda zs: cross_entropy(zs[0], np.arange(len(x)) % 3)


def whole_batch(x):
    """One term in which all examples meet, and one of each."""
    model = coupled(1)

    def loss(zs):
        return tf.reduce_logsumexp(zs[0]) + tf.reduce_mean(tf.square(zs[1]))

    def outputs():
        z = model(x, training=True)
        return [z, model.layers[0](x)]

    return model, outputs, loss


def two_batches(x):
    """Batches of their own, in each of which examples meet."""
    model, other = coupled(), x[:4] + 1.0

    def loss(zs):
        return tf.reduce_mean(tf.exp(zs[0])) + 3.0 * tf.reduce_mean(tf.square(zs[1] - 1.0))

    return model, lambda: [model(x, training=True), model(other, training=True)], loss


def powers(x):
    model = net(L.Dense(4), Powers(), L.Dense(2))
    return model, lambda: [model(x)], lambda zs: tf.reduce_mean(tf.square(zs[0]))


def loop(x):
    model = net(L.Dense(4), Turns(), L.Dense(2))
    return model, lambda: [model(x)], lambda zs: tf.reduce_mean(tf.square(zs[0]))


PROBLEMS = {
    "attention of a batch": (attention_of_a_batch, "NOT_LINEAR"),
    "contrastive": (contrastive, "REFUTED"),
    "whole batch": (whole_batch, "NOT_LINEAR"),
    "two batches": (two_batches, "NOT_LINEAR"),
    "powers": (powers, "NOT_LINEAR"),
    "loop": (loop, "LOOP"),
}
WAYS = {
    "rows": (FEW, NEVER, "ROWS_"),
    "columns": (MANY, ALWAYS, "COLUMNS_"),
    "products": (MANY, NEVER, ""),
}


def formed(model, loss_fn, policy=GaussNewton, examples=None):
    """The whole block and how it was formed; of a batch whose size tracing does not know."""
    variables = as_tensors(model.trainable_variables)
    parts = Blocks("full").split(model.trainable_variables)

    @tf.function(autograph=False)
    def block(x):
        recorded = record(lambda: loss_fn(x), variables)
        at = policy().at(recorded, recorded.at_variables(), parts)
        return at.formed(0)[:2]

    if examples is None:
        matrix, how = block(None)
    else:
        spec = tf.TensorSpec([None, *examples.shape[1:]], tf.float64)
        matrix, how = block.get_concrete_function(spec)(tf.constant(examples))
    return matrix.numpy(), formation.Formation(int(how)).name


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("way", WAYS)
def test_equals_its_definition(name, way, monkeypatch):
    (build, reason), (examples, per_byte, prefix) = PROBLEMS[name], WAYS[way]
    monkeypatch.setattr(rows_by_passes, "_PER_BYTE", per_byte)
    x = tf.constant(X[:examples])
    model, outputs, loss = build(x)
    expected, second = reference(as_tensors(model.trainable_variables), outputs, loss)
    assert np.abs(second).max() > 1e-3
    matrix, how = formed(model, lambda _: loss(outputs()))
    assert how == prefix + reason
    assert relative_error(matrix, expected) < 1e-10
    np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_of_any_size(way, monkeypatch):
    """Known when the step runs; with what a penalty adds."""
    examples, per_byte, prefix = WAYS[way]
    monkeypatch.setattr(rows_by_passes, "_PER_BYTE", per_byte)
    model = coupled(2, kernel_regularizer=keras.regularizers.L2(0.5))
    x = tf.constant(X[:examples])
    expected, _ = reference(
        as_tensors(model.trainable_variables),
        lambda: [model(x, training=True)],
        lambda zs: tf.reduce_mean(tf.exp(zs[0])),
    )
    expected[np.arange(8), np.arange(8)] += 1.0

    def loss_fn(x):
        return tf.reduce_mean(tf.exp(model(x, training=True))) + sum(model.losses)

    matrix, how = formed(model, loss_fn, examples=X[:examples])
    assert how == prefix + "NOT_LINEAR"
    assert relative_error(matrix, expected) < 1e-10


def test_the_fisher_matrix_takes_a_pass_an_example():
    """B rows where the Gauss-Newton matrix has C times as many."""
    model, labels = coupled(3), np.arange(30) % 3

    def losses():
        z = model(X[:30], training=True)
        return z, tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z)

    variables = as_tensors(model.trainable_variables)
    with tf.GradientTape(persistent=True) as tape:
        z, terms = losses()
        loss = tf.reduce_mean(terms)
    delta = tape.gradient(loss, z).numpy()
    jacobian = np.concatenate(
        [j.numpy().reshape(30, 3, -1) for j in tape.jacobian(z, variables)], axis=2
    )
    rows = np.einsum("bc,bcn->bn", delta, jacobian)
    matrix, how = formed(model, lambda _: tf.reduce_mean(losses()[1]), EmpiricalFisher)
    assert how == "ROWS_NOT_LINEAR"
    assert relative_error(matrix, 30 * rows.T @ rows) < 1e-10


def test_roots_that_are_wrong_are_not_taken(monkeypatch):
    """A rule's mistake costs passes, and nothing else."""
    roots = CurvatureByTapes.roots
    monkeypatch.setattr(CurvatureByTapes, "roots", lambda self: 1.1 * roots(self))
    x = tf.constant(X[:FEW])
    model, outputs, loss = two_batches(x)
    expected, _ = reference(as_tensors(model.trainable_variables), outputs, loss)
    matrix, how = formed(model, lambda _: loss(outputs()))
    assert not how.startswith("ROWS")
    assert relative_error(matrix, expected) < 1e-10


@pytest.mark.slow
def test_more_outputs_an_example_than_have_roots(monkeypatch):
    """Forward passes, since no roots are held."""
    monkeypatch.setattr(rows_by_passes, "_PER_BYTE", ALWAYS)
    x = tf.constant(X[:3])
    model = coupled(300)

    def outputs():
        return [model(x, training=True)]

    def loss(zs):
        return tf.reduce_mean(tf.exp(zs[0]))

    expected, _ = reference(as_tensors(model.trainable_variables), outputs, loss)
    matrix, how = formed(model, lambda _: loss(outputs()))
    assert how == "COLUMNS_OUTPUT"
    assert relative_error(matrix, expected) < 1e-10


@pytest.mark.parametrize("how", formation.Formation)
def test_every_way_has_a_sentence(how):
    """Saved logs hold the numbers."""
    sentence, usual = formation.explain(int(how)), "products with unit vectors"
    starts = {"ROWS_": "rows by single backward", "COLUMNS_": "columns by single forward"}
    for prefix, start in starts.items():
        if how.name.startswith(prefix):
            reason = formation.Formation[how.name.removeprefix(prefix)]
            assert sentence.startswith(start)
            assert sentence.endswith(formation.explain(int(reason)).removeprefix(usual))
            way = formation.Way[prefix.removesuffix("_")]
            assert int(formation.by_passes(tf.constant(reason), tf.constant(way))) == how
