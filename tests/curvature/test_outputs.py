"""C = d²L/dz² of each loss that a rule knows, against differences of gradients in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.curvature.outputs import ConvexPart, convex_output
from keras_qnewton.loss import record
from keras_qnewton.registry import names
from tests.derivatives import differences, flat_gradient

B, C = 4, 3
ONES = np.ones((B, C))
# Rule -> a Keras loss of z [B, C], and labels for it of random numbers [B, C].
LOSSES = {
    "softmax_cross_entropy": (
        lambda: keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64"),
        lambda r: np.exp(r) / np.exp(r).sum(1, keepdims=True),
    ),
    "sigmoid_cross_entropy": (
        lambda: keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64"),
        lambda r: (r > 0).astype(float),
    ),
    "squared_error": (lambda: keras.losses.MeanSquaredError(dtype="float64"), lambda r: r),
}


class Problem:
    """A loss of weights that are z itself, with labels and sample weights that can be changed."""

    def __init__(self, name):
        make_loss, self._labels_of = LOSSES[name]
        loss = make_loss()
        self.z = tf.Variable(ONES)
        self.labels = tf.Variable(ONES)
        self.sample_weights = tf.Variable(ONES[:, 0])

        def loss_fn():
            return loss(self.labels, tf.identity(self.z), self.sample_weights)

        self.gradient = flat_gradient(loss_fn, [self.z])

        @tf.function(input_signature=[tf.TensorSpec([B, C], tf.float64)])
        def curvature(v):
            recorded = record(loss_fn, [self.z])
            output = convex_output(recorded)
            weights = recorded.at_variables()
            part = ConvexPart(recorded, output, weights, weights[0], tf.float64)
            found = output.rule.curvature(part)
            roots = found.roots()
            along = tf.reduce_sum(roots * v, 2, keepdims=True)
            return found.gradient, found.product(v), tf.reduce_sum(roots * along, 0)

        self.curvature = curvature

    def draw(self, seed, scale):
        """Sets z, of that size, labels and sample weights."""
        rng = np.random.default_rng(seed)
        self.z.assign(scale * rng.normal(size=(B, C)))
        self.labels.assign(self._labels_of(rng.normal(size=(B, C))))
        self.sample_weights.assign(rng.uniform(0, 2, B) * rng.integers(0, 2, B))
        return rng.normal(size=(B, C))


@pytest.fixture(scope="module", params=LOSSES)
def problem(request):
    return Problem(request.param)


def test_every_rule_is_tested():
    assert set(LOSSES) == set(names("loss_rule"))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.floats(0.01, 30.0))
def test_products_and_roots_equal_the_hessian(problem, seed, scale):
    v = problem.draw(seed, scale)
    gradient, product, by_roots = (t.numpy() for t in problem.curvature(tf.constant(v)))
    np.testing.assert_allclose(gradient.ravel(), problem.gradient(), rtol=0, atol=1e-14)
    expected = differences(problem.gradient, [problem.z], v.ravel()).reshape(B, C)
    atol = 1e-10 + 1e-9 * np.abs(expected).max()
    np.testing.assert_allclose(product, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(by_roots, expected, rtol=0, atol=atol)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.floats(0.01, 100.0))
def test_is_positive_semidefinite(problem, seed, scale):
    v = problem.draw(seed, scale)
    _, product, _ = problem.curvature(tf.constant(v))
    per_example = np.sum(v * product.numpy(), axis=1)
    assert per_example.min() >= -1e-16 * np.sum(v**2)
