"""C = d²/dz² of each convex function that a rule knows, against differences of gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.outputs import ConvexPart, convex_loss
from keras_qnewton.loss import record
from keras_qnewton.loss.convexity import _ATOMS, _COMPOSITIONS
from keras_qnewton.registry import names
from tests.curvature.reach import reference
from tests.derivatives import differences, flat_gradient

B, C = 4, 3
ONES = np.ones((B, C))


def probabilities(r):
    return np.exp(r) / np.exp(r).sum(1, keepdims=True)


def same(r):
    return r


def weighed(function):
    """Σ w φ(z, y) of a function that has a value for each element, or each row, of z."""

    def loss(labels, z, weights):
        values = function(labels, z)
        shape = [B] + [1] * (values.shape.rank - 1)
        return tf.reduce_sum(values * tf.reshape(weights, shape))

    return loss


def einstein_sum_of_squares(r):
    return tf.einsum("bi,bi->b", r, r)


def column_with_itself(r):
    return tf.matmul(r, r, transpose_a=True)[0, 0]


def contracted_with_itself(r):
    return tf.tensordot(r, r, 2)


def keras_loss(make):
    return lambda labels, z, weights: make()(labels, z, weights)


# Name -> a loss of labels [B, C], z [B, C] and sample weights [B]; labels of random numbers.
LOSSES = {
    "softmax_cross_entropy": (
        keras_loss(lambda: keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64")),
        probabilities,
    ),
    "sigmoid_cross_entropy": (
        keras_loss(lambda: keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64")),
        lambda r: (r > 0).astype(float),
    ),
    "Square": (keras_loss(lambda: keras.losses.MeanSquaredError(dtype="float64")), same),
    "SquaredDifference": (weighed(lambda y, z: tf.math.squared_difference(y, z)), same),
    "L2Loss": (lambda y, z, w: tf.nn.l2_loss((z - y) * w[:, None]), same),
    "product": (weighed(lambda y, z: (lambda d: d * d)(z - y)), same),
    "power": (weighed(lambda y, z: (z - y) ** 4.0), same),
    "Exp": (weighed(lambda y, z: tf.exp(y * z)), lambda r: np.sign(r)),
    "Expm1": (weighed(lambda y, z: tf.math.expm1(z) - y * z), same),
    "Cosh": (weighed(lambda y, z: tf.cosh(z / 8 - y)), same),
    "Softplus": (weighed(lambda y, z: tf.nn.softplus(z) - y * z), same),
    "Elu": (weighed(lambda y, z: tf.nn.elu(z)), same),
    "Rsqrt": (weighed(lambda y, z: tf.math.rsqrt(z + 200)), same),
    "Log": (weighed(lambda y, z: z**2 - y * tf.math.log(z + 200)), np.abs),
    "Log1p": (weighed(lambda y, z: z**2 - y * tf.math.log1p(z + 200)), np.abs),
    "Sqrt": (weighed(lambda y, z: z**2 - y * tf.sqrt(z + 200)), np.abs),
    "Xlogy": (weighed(lambda y, z: z**2 - tf.math.xlogy(y, z + 200)), np.abs),
    "LogSoftmax": (weighed(lambda y, z: -y * tf.nn.log_softmax(z)), probabilities),
    "Abs": (weighed(lambda y, z: tf.abs(z - y)), same),
    "Relu": (weighed(lambda y, z: tf.nn.relu(1 - y * z)), np.sign),
    "LeakyRelu": (weighed(lambda y, z: tf.nn.leaky_relu(z)), same),
    "Maximum": (weighed(lambda y, z: tf.maximum(0.3 * (y - z), -0.7 * (y - z))), same),
    "Minimum": (weighed(lambda y, z: -tf.minimum(z, y)), same),
    "Max": (weighed(lambda y, z: tf.reduce_max(z, 1)), same),
    "Min": (weighed(lambda y, z: -tf.reduce_min(z, 1)), same),
    "log of exp": (weighed(lambda y, z: tf.exp(z / 8) - y * tf.math.log(tf.exp(z / 8))), np.abs),
    "log of sigmoid": (
        weighed(
            lambda y, z: -y * tf.math.log(tf.sigmoid(z)) - (1 - y) * tf.math.log(1 - tf.sigmoid(z))
        ),
        lambda r: (r > 0).astype(float),
    ),
    "log of softmax": (weighed(lambda y, z: -y * tf.math.log(tf.nn.softmax(z))), probabilities),
    "log of one and exp": (weighed(lambda y, z: tf.math.log(1 + tf.exp(-y * z))), np.sign),
    "log of a sigmoid by hand": (
        weighed(lambda y, z: -y * tf.math.log(1 / (1 + tf.exp(-z)))),
        np.abs,
    ),
    "log of one less a sigmoid by hand": (
        weighed(lambda y, z: (lambda e: -y * tf.math.log(1 - e / (1 + e)))(tf.exp(z / 8))),
        np.abs,
    ),
    "log of a quotient": (
        weighed(lambda y, z: z**2 + y * tf.math.log((1 + tf.abs(y)) / (z + 200))),
        np.abs,
    ),
    "Kullback-Leibler divergence": (
        weighed(lambda y, z: y * tf.math.log((1e-7 + y) / tf.nn.softmax(z))),
        probabilities,
    ),
    "CumulativeLogsumexp": (weighed(lambda y, z: tf.math.cumulative_logsumexp(z, 1)), same),
    "log-sum-exp": (weighed(lambda y, z: tf.reduce_logsumexp(z, 1)), same),
    "log-sum-exp of all": (lambda y, z, w: tf.reduce_logsumexp(z), same),
    "log1p of exp": (weighed(lambda y, z: tf.math.log1p(tf.exp(z))), same),
    "norm": (weighed(lambda y, z: tf.norm(z - y, axis=1)), same),
    "Einstein sum of squares": (weighed(lambda y, z: einstein_sum_of_squares(z - y)), same),
    "product of a column with itself": (
        lambda y, z, w: column_with_itself(tf.reshape(w[:, None] * (z - y), [-1, 1])),
        same,
    ),
    "contraction with itself": (
        lambda y, z, w: contracted_with_itself(w[:, None] * (z - y)),
        same,
    ),
    "squared norm": (weighed(lambda y, z: tf.norm(z - y, axis=1) ** 2), same),
    "square of a root": (
        weighed(lambda y, z: tf.square(tf.sqrt(1e-3 + tf.reduce_sum((z - y) ** 2, 1)))),
        same,
    ),
    "power of a norm": (lambda y, z, w: tf.pow(tf.norm((1 + w)[:, None] * (z - y)), 2.0), same),
    "pseudo-Huber": (weighed(lambda y, z: tf.sqrt(1 + tf.square(z - y))), same),
    "root mean square": (lambda y, z, w: tf.sqrt(tf.reduce_mean(tf.square(z - y))), same),
    "huber": (keras_loss(lambda: keras.losses.Huber(dtype="float64")), same),
    "log_cosh": (keras_loss(lambda: keras.losses.LogCosh(dtype="float64")), same),
    "kl of gaussians": (weighed(lambda y, z: tf.exp(z) + y**2 - 1 - z), same),
}
PIECEWISE_LINEAR = {"Abs", "Relu", "LeakyRelu", "Maximum", "Minimum", "Max", "Min"}
KINKED = {*PIECEWISE_LINEAR, "Elu", "huber"}
# Functions of probabilities lose theirs where one of them is nearly 1.
LARGEST = {"log of sigmoid": 5.0, "log of softmax": 5.0}


class Problem:
    """A loss of weights that are z itself, with labels and sample weights that can be changed."""

    def __init__(self, name):
        loss, self._labels_of = LOSSES[name]
        self._largest, self._kinked = LARGEST.get(name, 30.0), name in KINKED
        self.z = tf.Variable(ONES)
        self.labels = tf.Variable(ONES)
        self.sample_weights = tf.Variable(ONES[:, 0])

        def loss_fn():
            # A product, since functions of weights themselves are penalties.
            return loss(self.labels, self.z @ tf.eye(C, dtype=tf.float64), self.sample_weights)

        self.gradient = flat_gradient(loss_fn, [self.z])

        @tf.function(input_signature=[tf.TensorSpec([B, C], tf.float64)])
        def curvature(v):
            recorded = record(loss_fn, [self.z])
            convex = convex_loss(recorded)
            weights = recorded.at_variables()
            outputs = {output.name: weights[0] for output in convex.outputs}
            assert convex.recognised
            assert not convex.rest
            assert len(outputs) == (0 if name in PIECEWISE_LINEAR else 1)
            product = by_roots = tf.zeros_like(v)
            for output in convex.outputs:
                part = ConvexPart(recorded, output, weights, outputs, tf.float64)
                found = output.rule.curvature(part)
                roots = found.roots()
                axes = None if found.one_example else 2
                along = tf.reduce_sum(roots * v, [1, 2] if axes is None else 2, keepdims=True)
                product += found.product(v)
                by_roots += tf.reduce_sum(roots * along, 0)
            return product, by_roots

        self.curvature = curvature

    def draw(self, seed, scale):
        """Sets z, of that size, labels and sample weights."""
        rng = np.random.default_rng(seed)
        z, r = min(scale, self._largest) * rng.uniform(-1, 1, size=(B, C)), rng.normal(size=(B, C))
        if self._kinked:  # halves and whole numbers, away from one another
            z, r = rng.permutation(B * C).reshape(B, C) - 5.5, np.round(r)
        self.z.assign(z)
        self.labels.assign(self._labels_of(r))
        self.sample_weights.assign(rng.uniform(0, 2, B) * rng.integers(0, 2, B))
        return rng.normal(size=(B, C))


@pytest.fixture(scope="module", params=LOSSES)
def problem(request):
    return Problem(request.param)


def test_every_rule_is_tested():
    bounds = {"ctc"}  # of a Hessian, not equal to it: `test_ctc`
    assert set(names("loss_rule")) | set(_ATOMS) <= set(LOSSES) | bounds
    assert set(_COMPOSITIONS) == {"Log", "Log1p", "Sqrt"}  # "log of exp" and others


@pytest.mark.parametrize("share, ends_at", [(0.5, "RealDiv"), (1.0, "Tanh")])
def test_one_less_a_share_of_a_sigmoid_is_not_log_concave(share, ends_at):
    """The loss is convex in the share, then; of a whole sigmoid, in the logit."""
    w, found = tf.Variable([0.3, -0.2, 0.9]), []

    @tf.function(autograph=False)
    def look():
        def loss():
            e = tf.exp(tf.tanh(w))
            return -tf.reduce_sum(tf.math.log(1 - share / (1 + e)))

        recorded = record(loss, [w])
        (output,) = convex_loss(recorded).outputs
        found.append(recorded.tensor(output.name).op.type)
        return recorded.value

    look()
    assert found == [ends_at]


def test_a_softplus_over_its_sum_is_not_log_concave():
    """As Keras's cross-entropy makes probabilities of any positive outputs."""
    w, x = tf.Variable(np.linspace(-3, 3, 9).reshape(3, 3)), tf.constant(np.eye(3) + 0.1)
    cross_entropy = keras.losses.CategoricalCrossentropy(dtype="float64")

    def outputs():
        p = tf.nn.softplus(x @ w)
        return [p / tf.reduce_sum(p, -1, keepdims=True)]

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: cross_entropy(np.eye(3), tf.nn.softplus(x @ w)), [w])
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split([w]))
        assert at.positive_semidefinite
        return at.block(0)

    def loss(zs):
        return -tf.reduce_sum(tf.eye(3, dtype=tf.float64) * tf.math.log(zs[0])) / 3

    matrix, (expected, _) = block().numpy(), reference([w], outputs, loss)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_products_of_each_example_with_each_are_no_squares():
    w, x, found = tf.Variable(np.ones((3, 2))), tf.constant(np.eye(4)[:, :3] + 0.1), []

    @tf.function(autograph=False)
    def look():
        def loss():
            z = x @ w
            return tf.reduce_sum(tf.reshape(z, [4, 1, 1, 2]) @ tf.reshape(z, [1, 4, 2, 1]))

        found.append(convex_loss(record(loss, [w])).recognised)

    look()
    assert found == [False]


@pytest.mark.parametrize(
    "divisor",
    [lambda p, u: 1 + tf.square(u), lambda p, u: tf.reduce_sum(p, 0) + 0 * u],
    ids=["of other weights", "over examples"],
)
def test_probabilities_over_another_number_that_moves_are_not_log_concave(divisor):
    """Only p / Σ p is a softmax again; p / (1 + b²) has log(1 + b²) besides, not convex in b."""
    a = tf.Variable(np.linspace(-1, 1, 9).reshape(3, 3))
    b = tf.Variable(np.array([[2.0], [-3.0], [1.5]]))
    x = tf.constant(np.eye(3) + 0.1)

    def outputs():
        p = tf.nn.softmax(x @ a)
        return [tf.maximum(p / divisor(p, x @ b), 1e-7)]

    def loss(zs):
        return -tf.reduce_mean(tf.math.log(zs[0]))

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: loss(outputs()), [a, b])
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split([a, b]))
        assert at.positive_semidefinite
        return at.block(0)

    matrix, (expected, _) = block().numpy(), reference([a, b], outputs, loss)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


@pytest.mark.parametrize(
    "function",
    [
        lambda e: tf.constant([[2.0, -0.5, 1.0]], tf.float64) @ e,  # a < 0
        lambda e: 2 * tf.reduce_sum(e) - 1,
        lambda e: tf.reduce_sum(e) + tf.constant(-1.0, tf.float64),
        lambda e: tf.reduce_sum(e[:2]) - 0.1 * tf.reduce_sum(e),
    ],
)
def test_log_of_differences_of_exp_is_not_known_to_be_convex(function):
    w, x = tf.Variable(np.linspace(0.5, 1.0, 3)[:, None]), tf.constant(np.eye(3) + 0.1)
    found = []

    @tf.function(autograph=False)
    def look():
        recorded = record(lambda: tf.reduce_sum(tf.math.log(function(tf.exp(x @ w)))), [w])
        found.append(convex_loss(recorded).recognised)
        return recorded.value

    look()
    assert found == [False]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.floats(0.01, 30.0))
def test_products_and_roots_equal_the_hessian(problem, seed, scale):
    v = problem.draw(seed, scale)
    product, by_roots = (t.numpy() for t in problem.curvature(tf.constant(v)))
    expected = differences(problem.gradient, [problem.z], v.ravel()).reshape(B, C)
    atol = 1e-9 + 1e-8 * np.abs(expected).max()
    np.testing.assert_allclose(product, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(by_roots, expected, rtol=0, atol=atol)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.floats(0.01, 100.0))
def test_is_positive_semidefinite(problem, seed, scale):
    v = problem.draw(seed, scale)
    product, _ = problem.curvature(tf.constant(v))
    largest = np.abs(product.numpy()).max()
    assert np.sum(v * product.numpy()) >= -1e-16 * np.sum(v**2) * (1 + largest)
