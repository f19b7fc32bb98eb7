"""Fisher and Gauss-Newton blocks made of per-example rows, against rows from plain tapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, EmpiricalFisher, GaussNewton, fisher
from keras_qnewton.curvature.low_rank import MAX_RANK
from keras_qnewton.curvature.structured import Assembly
from keras_qnewton.loss import as_tensors, record
from tests.derivatives import relative_error

L = keras.layers

pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(1)
CLASSES = RNG.integers(0, 3, 7)
DECAY = keras.regularizers.L2(0.125)


def softmax():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense():
    return (5,), [L.Dense(4, activation="tanh"), L.Dense(3)]


def decayed():
    return (5,), [L.Dense(4, activation="tanh", kernel_regularizer=DECAY), L.Dense(3)]


def convolution_1d():
    return (6, 2), [L.Conv1D(3, 3, padding="causal", activation="tanh"), L.Flatten(), L.Dense(3)]


def convolution_2d():
    first = L.Conv2D(2, 2, strides=2, padding="same", activation="tanh")
    second = L.Conv2D(2, (2, 1), activation="tanh", use_bias=False)
    return (7, 7, 2), [first, second, L.GlobalAveragePooling2D(), L.Dense(3)]


def sequence():
    """Dense layers over a sequence: a row of z for each of an example's positions."""
    layers = [L.Dense(4, activation="tanh"), L.Dense(3, use_bias=False, activation="tanh")]
    return (6, 2), [*layers, L.GlobalAveragePooling1D(), L.Dense(3)]


def dilated():
    """Runs on rows that are not examples."""
    return (7, 7, 1), [L.Conv2D(2, 2, dilation_rate=2), L.GlobalAveragePooling2D(), L.Dense(3)]


def normalised():
    """Examples interact, and gamma and beta enter in no known way."""
    return (5,), [L.Dense(4), L.BatchNormalization(), L.Dense(3)]


class Biased(L.Layer):
    """Biases that are not, or may not be, taken with the product before them."""

    def __init__(self, names):
        super().__init__()
        self.names = names

    def build(self, shape):
        for name in self.names:  # in this order they are in the block
            weight = self.add_weight(shape=(shape[-1], 4) if name[0] == "k" else (4,), name=name)
            setattr(self, name, weight)


class Crossed(Biased):
    def call(self, x):
        return tf.tanh(x @ self.k1 + self.b1) * (x @ self.k2 + self.b2)


class SeenTwice(Biased):
    def call(self, x):
        product = x @ self.k1
        return tf.tanh(product + self.b1) + tf.sin(product)


class BiasFirst(Biased):
    def call(self, x):
        return tf.tanh(self.b1 + x @ self.k1)


def crossed():
    return (5,), [Crossed(["k1", "b2", "k2", "b1"]), L.Dense(3)]


def seen_twice():
    return (5,), [SeenTwice(["k1", "b1"]), L.Dense(3)]


def bias_first():
    return (5,), [BiasFirst(["b1", "k1"]), L.Dense(3)]


def problem(build):
    keras.utils.set_random_seed(0)
    shape, layers = build()
    model = keras.Sequential([L.Input(shape), *layers])
    x = RNG.normal(size=(7, *shape))
    return model, x


def per_example_gradients(model, x, labels, loss):
    """`[B, N]` by one tape an example."""
    rows = []
    for example, label in zip(x, labels, strict=True):
        with tf.GradientTape() as tape:
            value = loss(label[None], model(example[None]))
        gradients = tape.gradient(value, as_tensors(model.trainable_variables))
        rows.append(np.concatenate([g.numpy().ravel() for g in gradients]))
    return np.array(rows)


@pytest.mark.parametrize("build", [dense, convolution_1d, convolution_2d, sequence])
@pytest.mark.parametrize("kind", ["softmax", "squared", "sigmoid"])
def test_fisher_equals_its_definition(build, kind):
    model, x = problem(build)
    loss, labels = {
        "softmax": (softmax(), CLASSES),
        "squared": (keras.losses.MeanSquaredError(), RNG.normal(size=(7, 3))),
        "sigmoid": (keras.losses.BinaryCrossentropy(from_logits=True), np.eye(3)[CLASSES]),
    }[kind]
    rows = per_example_gradients(model, x, labels, loss)
    (block,) = fisher(lambda: loss(labels, model(x)), model.trainable_variables)
    assert relative_error(block.matrix, rows.T @ rows / 7) < 1e-12
    assert relative_error(block.gradient, rows.mean(0)) < 1e-12


def test_a_weight_penalty_is_added_exactly():
    model, x = problem(decayed)
    rows = per_example_gradients(model, x, CLASSES, softmax())
    expected = rows.T @ rows / 7 + np.diag(np.r_[np.full(20, 0.25), np.zeros(4 + 15)])
    (block,) = fisher(
        lambda: softmax()(CLASSES, model(x)) + sum(model.losses), model.trainable_variables
    )
    assert relative_error(block.matrix, expected) < 1e-12


def of_outputs(terms, variables):
    """Σ_i (1/B_i) Σ_b ∇ℓ_ib ∇ℓ_ibᵀ by one tape an example, of functions that return each ℓ_i."""
    total = 0.0
    for losses in terms:
        with tf.GradientTape(persistent=True) as tape:
            examples = tf.unstack(losses())
        for value in examples:
            gradients = tape.gradient(value, variables, unconnected_gradients="zero")
            row = np.concatenate([g.numpy().ravel() for g in gradients])
            total += np.outer(row, row) / len(examples)
    return total


def two_heads():
    """A class and a number, twice as important, of the same examples; and an L2 penalty."""
    inputs = L.Input((5,))
    hidden = L.Dense(4, activation="tanh", kernel_regularizer=DECAY)(inputs)
    model = keras.Model(inputs, [L.Dense(3)(hidden), L.Dense(1)(hidden)])
    x, y = RNG.normal(size=(7, 5)), RNG.normal(size=7)

    def classes():
        return tf.nn.sparse_softmax_cross_entropy_with_logits(CLASSES, model(x)[0])

    return model, [classes, lambda: 2.0 * (model(x)[1][:, 0] - y) ** 2]


def two_batches():
    model = keras.Sequential([L.Input((5,)), L.Dense(4, activation="tanh"), L.Dense(1)])
    inside, border = RNG.normal(size=(7, 5)), RNG.normal(size=(3, 5))
    return model, [lambda: (model(inside)[:, 0] - 1.0) ** 2, lambda: 5.0 * model(border)[:, 0] ** 2]


@pytest.mark.parametrize("build", [two_heads, two_batches])
def test_fisher_of_several_outputs_is_the_sum(build):
    model, terms = build()
    variables = as_tensors(model.trainable_variables)
    expected = of_outputs(terms, variables)
    if model.losses:
        expected[np.arange(20), np.arange(20)] += 0.25
    (block,) = fisher(
        lambda: sum(tf.reduce_mean(losses()) for losses in terms) + sum(model.losses),
        model.trainable_variables,
    )
    assert relative_error(block.matrix, expected) < 1e-12


def test_terms_of_one_output_are_one_likelihood():
    """z is the mean and the logarithm of a rate: two kinds of terms of the same tensor."""
    model = keras.Sequential([L.Input((5,)), L.Dense(4, activation="tanh"), L.Dense(3)])
    x = RNG.normal(size=(7, 5))

    def losses():
        z = model(x)
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(CLASSES, z)
        return cross_entropy + tf.reduce_sum(tf.exp(z) - 0.3 * z, 1)

    variables = as_tensors(model.trainable_variables)
    (block,) = fisher(lambda: tf.reduce_mean(losses()), model.trainable_variables)
    assert relative_error(block.matrix, of_outputs([losses], variables)) < 1e-12


def test_an_output_without_likelihoods_of_examples_is_named():
    model = keras.Sequential([L.Input((5,)), L.Dense(3)])
    x = tf.constant(RNG.normal(size=(7, 5)))

    def loss():
        z = model(x)
        return softmax()(CLASSES, z) + tf.square(tf.reduce_mean(z, name="whole"))

    with pytest.raises(ValueError, match=r"Argument `curvature` .* Received: an output .*whole"):
        fisher(loss, model.trainable_variables)
    with pytest.raises(ValueError, match=r"Argument `curvature` .* piecewise linear"):
        fisher(lambda: tf.reduce_mean(tf.abs(model(x))), model.trainable_variables)


@pytest.mark.parametrize("policy", [EmpiricalFisher, GaussNewton])
@pytest.mark.parametrize(
    "build", [dense, decayed, convolution_1d, convolution_2d, sequence, dilated, normalised]
)
@pytest.mark.parametrize("batch_known", [True, False])
def test_structured_blocks_are_used_and_equal_generic_products(policy, build, batch_known):
    model, x = problem(build)
    variables = as_tensors(model.trainable_variables)

    @tf.function
    def run(x, labels):
        recorded = record(
            lambda: softmax()(labels, model(x, training=True)) + sum(model.losses), variables
        )
        parts = Blocks("full").split(model.trainable_variables)
        at = policy().at(recorded, recorded.at_variables(), parts)
        basis = tf.eye(parts[0].size, dtype=tf.float64)
        generic = tf.map_fn(lambda v: at.block_product(0, v), basis)
        structured = at._assembly(0)
        assembled = structured.make()[0] if isinstance(structured, Assembly) else generic * 0
        return at.block(0), generic, assembled

    if not batch_known:
        rows = [None, *x.shape[1:]]
        run = run.get_concrete_function(
            tf.TensorSpec(rows, tf.float64), tf.TensorSpec([None], tf.int64)
        )
    matrix, generic, assembled = run(tf.constant(x), tf.constant(CLASSES))
    assert relative_error(matrix, generic) < 1e-11
    if build not in (dilated, normalised):
        assert relative_error(assembled, generic) < 1e-11


@pytest.mark.parametrize("policy", [EmpiricalFisher, GaussNewton])
@pytest.mark.parametrize(
    "build",
    [dense, convolution_1d, convolution_2d, sequence, crossed, seen_twice, bias_first],
)
@pytest.mark.parametrize("partition", ["full", "layer"])
def test_low_rank_factors(policy, build, partition):
    model, x = problem(build)
    variables = as_tensors(model.trainable_variables)

    @tf.function
    def run():
        recorded = record(lambda: softmax()(CLASSES, model(x)), variables)
        # Blocks that are too large to be formed.
        parts = Blocks(partition, max_size=1).split(model.trainable_variables)
        at = policy().at(recorded, recorded.at_variables(), parts)
        out = []
        few = at.low_rank([MAX_RANK] * len(parts), [True] * len(parts))
        for k, block in enumerate(few):
            holds, factors = block.holds, block.make()
            rank = tf.shape(factors.gram())[0]
            rows = tf.map_fn(factors.lift, tf.eye(rank, dtype=tf.float64))
            v = tf.random.stateless_normal([parts[k].size], [1, 2], dtype=tf.float64)
            out.append(
                (
                    holds,
                    factors.gram(),
                    rows,
                    factors.project(v),
                    tf.linalg.matvec(rows, v),
                    at.block(k),
                )
            )
        return out

    for holds, gram, rows, projected, expected, matrix in run():
        rows = rows.numpy()
        assert holds
        assert relative_error(gram, rows @ rows.T) < 1e-12
        assert relative_error(projected, expected) < 1e-12
        assert relative_error(rows.T @ rows, matrix) < 1e-10


def test_no_low_rank_factors_where_the_rows_are_unknown():
    model, x = problem(normalised)
    variables = as_tensors(model.trainable_variables)

    @tf.function
    def run():
        recorded = record(lambda: softmax()(CLASSES, model(x, training=True)), variables)
        parts = Blocks("layer", max_size=1).split(model.trainable_variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), parts)
        first, normalisation, last = at.low_rank([MAX_RANK] * 3, [True] * 3)
        assert normalisation is None
        return first.holds, last.holds

    coupled, independent = run()
    assert not coupled  # batch normalisation comes after it
    assert independent
