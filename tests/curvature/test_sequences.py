"""A label for each token: rows of z that meet within an example, and not between examples."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.examples_apart import ExamplesApart
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from tests.curvature.reach import B, L, cross_entropy, reference
from tests.derivatives import relative_error

pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(5)
slow = pytest.mark.slow


def tensor(x):
    return tf.constant(np.asarray(x))


def of_unknown_size(x):
    """`x`, of which it is not known while tracing how many examples there are."""
    count = tf.Variable(B)
    return lambda: tf.slice(x, [0] * len(x.shape), [count, *x.shape[1:]])


def attention(inputs):
    h = L.Dense(4)(inputs)
    return L.LayerNormalization()(L.MultiHeadAttention(2, 2)(h, h) + h)


def causal(inputs):
    h = L.Dense(4)(inputs)
    return L.MultiHeadAttention(1, 3)(h, h, use_causal_mask=True) + h


def per_token(inputs):
    return L.Dense(4, activation="tanh")(inputs)


def normalised(inputs):
    """Tokens of all examples meet."""
    return L.BatchNormalization()(per_token(inputs))


def recurrent(kind, units=3):
    return lambda inputs: kind(units, return_sequences=True)(inputs)


def both_ways(inputs):
    return L.Bidirectional(L.SimpleRNN(2, return_sequences=True))(inputs)


class Problem:
    """A model with labels for each token, and its loss of what it gives.

    Args:
        body: What is between the inputs and the last layer.
        steps: T.
        classes: Of a label.
        batch: From a tensor to a function that gives it when the loss is traced.
    """

    def __init__(self, body, steps=5, classes=3, batch=lambda x: lambda: x):
        inputs = L.Input((steps, 2))
        self.model = keras.Model(inputs, L.Dense(classes)(body(inputs)))
        self.variables = as_tensors(self.model.trainable_variables)
        self.x = batch(tensor(RNG.normal(size=(B, steps, 2))))
        self.y = batch(tensor(RNG.integers(0, classes, (B, steps))))

    def outputs(self):
        return [self.model(self.x(), training=True)]

    def loss(self, zs):
        """Keras puts all tokens below one another before it takes the cross-entropy."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(self.y(), zs[0])


class Flattened(Problem):
    """Numbers, which the user puts into one row."""

    def loss(self, zs):
        return tf.reduce_mean((tf.reshape(zs[0], [-1]) - 0.3) ** 2)


class Weighted(Problem):
    """Some tokens do not count, as padding."""

    def loss(self, zs):
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(self.y(), zs[0])
        mask = tf.cast(self.y() > 0, tf.float64)
        return tf.reduce_sum(mask * entropy) / tf.reduce_sum(mask)


class LastLayerBelow(Problem):
    """Tokens are put below one another before the last layer."""

    def outputs(self):
        *_, last = self.model.layers
        hidden = keras.Model(self.model.inputs, last.input)(self.x())
        return [last(tf.reshape(hidden, [-1, hidden.shape[-1]]))]

    def loss(self, zs):
        y = tf.reshape(self.y(), [-1])
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, zs[0]))


class TwoHeads(Problem):
    """A class a token, and a number an example."""

    def outputs(self):
        (z,) = super().outputs()
        return [z, tf.reduce_mean(tf.tanh(z), [1, 2])]

    def loss(self, zs):
        return super().loss(zs[:1]) + 0.3 * tf.reduce_mean(tf.square(zs[1] - 0.2))


PROBLEMS = {
    "attention": lambda **batch: Problem(attention, **batch),
    "causal attention": lambda **batch: Problem(causal, **batch),
    "each token alone": lambda **batch: Problem(per_token, **batch),
    "LSTM": lambda **batch: Problem(recurrent(L.LSTM), **batch),
    "both ways": lambda **batch: Problem(both_ways, **batch),
    "loop": lambda **batch: Problem(recurrent(L.SimpleRNN), steps=12, **batch),
    "loop of many roots": lambda **batch: Problem(recurrent(L.SimpleRNN, 5), 18, **batch),
    "long loop": lambda **batch: Problem(recurrent(L.SimpleRNN, 5), 34, 2, **batch),
    "flattened": lambda **batch: Flattened(attention, classes=1, **batch),
    "weighted": lambda **batch: Weighted(attention, **batch),
    "last layer below": lambda **batch: LastLayerBelow(attention, **batch),
    "two heads": lambda **batch: TwoHeads(attention, **batch),
}
SLOW = {"loop of many roots", "long loop", "both ways"}


def formed(problem):
    """The Gauss-Newton matrix, and how it was formed."""

    @tf.function(autograph=False)
    def block():
        variables = problem.variables
        recorded = record(lambda: problem.loss(problem.outputs()), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    matrix, how = block()
    return matrix, Formation(int(how))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[slow] if name in SLOW else []) for name in PROBLEMS]
)
def test_equals_its_definition(name, known):
    problem = PROBLEMS[name](**({} if known else {"batch": of_unknown_size}))
    expected, second = reference(problem.variables, problem.outputs, problem.loss)
    matrix, how = formed(problem)
    assert np.abs(second).max() > 1e-4
    assert relative_error(matrix, expected) < 1e-8
    assert how is Formation.ROWS
    assert np.array_equal(matrix, np.transpose(matrix))


def test_tokens_of_all_examples_meet():
    problem = Problem(normalised)
    expected, _ = reference(problem.variables, problem.outputs, problem.loss)
    matrix, how = formed(problem)
    assert relative_error(matrix, expected) < 1e-8
    assert how is not Formation.ROWS


def test_more_roots_than_weights():
    """Each root is a backward pass, each weight a forward one."""
    problem = Problem(attention, steps=60)
    assert sum(v.shape.num_elements() for v in problem.variables) < 60 * 2
    expected, _ = reference(problem.variables, problem.outputs, problem.loss)
    matrix, how = formed(problem)
    assert relative_error(matrix, expected) < 1e-8
    assert how is not Formation.ROWS


def test_few_rows():
    """Blocks that are not formed: as many rows as there are tokens and classes but one."""
    problem = Problem(attention)

    @tf.function(autograph=False)
    def run():
        recorded = record(lambda: problem.loss(problem.outputs()), problem.variables)
        parts = Blocks("full", max_size=1).split(problem.variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), parts)
        (few,) = at.low_rank([200], [True])
        factors = few.make()
        rank = factors.rank
        return few.holds, tf.map_fn(factors.lift, tf.eye(rank, dtype=tf.float64))

    holds, rows = run()
    expected, _ = reference(problem.variables, problem.outputs, problem.loss)
    assert holds
    assert len(rows) == B * 5 * 2
    assert relative_error(tf.matmul(rows, rows, transpose_a=True), expected) < 1e-8


def test_a_wrong_guess_is_refuted(monkeypatch):
    """Were tokens that meet taken for examples of their own, blocks would still be right."""
    problem = Problem(attention)
    expected, _ = reference(problem.variables, problem.outputs, problem.loss)
    monkeypatch.setattr(
        "keras_qnewton.curvature.seen_rows.examples_apart",
        lambda *_: ExamplesApart(5, None),
    )
    matrix, how = formed(problem)
    assert relative_error(matrix, expected) < 1e-8
    assert how is Formation.ROWS  # by number, not by proof
    problem = Problem(normalised)
    expected, _ = reference(problem.variables, problem.outputs, problem.loss)
    matrix, how = formed(problem)
    assert relative_error(matrix, expected) < 1e-8
    assert how is not Formation.ROWS


def test_rows_that_no_reshape_has_joined():
    """A product from the left has a row for each column of what was reshaped."""
    w, x = tf.Variable(RNG.normal(size=(5, 6))), tensor(RNG.normal(size=(4, 5)))
    sums, y = tensor(RNG.normal(size=(4, 2))), RNG.integers(0, 2, 6)

    def outputs():
        joined = tf.reshape(tf.reshape(tf.tanh(x @ w), [1, 2, 2, 6]), [-1, 6])
        return [tf.matmul(joined, sums, transpose_a=True)]

    problem = types.SimpleNamespace(
        variables=[w], outputs=outputs, loss=lambda zs: cross_entropy(zs[0], y)
    )
    expected, _ = reference(problem.variables, problem.outputs, problem.loss)
    assert relative_error(formed(problem)[0], expected) < 1e-8
