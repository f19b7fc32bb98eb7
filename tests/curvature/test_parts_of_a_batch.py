"""Losses whose terms are of parts of one batch: Gauss-Newton matrices from rows, against JᵀCJ."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, GaussNewton
from keras_qnewton.curvature.formation import Formation
from keras_qnewton.loss import as_tensors, record
from tests.curvature.reach import mlp, net
from tests.curvature.test_reach import reference
from tests.derivatives import relative_error

L = keras.layers
pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(1)
B = 12
X = tf.constant(RNG.normal(size=(B, 2)))
SEQUENCES = tf.constant(RNG.normal(size=(B, 5, 2)))
TARGETS = tf.constant(RNG.normal(size=(B, 1)))


def squares(zs):
    return tf.add_n([(k + 1) * tf.reduce_mean((z - 0.3) ** 2) for k, z in enumerate(zs)])


def slices():
    """Of 3, 4 and 5 examples; the first two divide the batch's 12."""
    model = mlp()

    def outputs():
        u = model(X)
        return [u[:3], u[3:7], u[-5:]]

    return model.trainable_variables, outputs, squares, Formation.ROWS


def differentiated():
    """As DeepXDE has it: an equation at the last examples, conditions at the first."""
    model = net(L.Dense(6, activation="tanh"), L.Dense(1))

    def outputs():
        x = tf.identity(X)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                u = model(x)
            slope = inner.gradient(u, x)[:, :1]
        equation = outer.gradient(slope, x)[:, 1:] + u * slope
        return [equation[4:], u[:4]]

    return model.trainable_variables, outputs, squares, Formation.ROWS


def nested():
    """A part of a part."""
    model = mlp()

    def outputs():
        u = model(X)[2:10]
        return [u[1:4], tf.tanh(u)[4:, :]]

    return model.trainable_variables, outputs, squares, Formation.ROWS


def split():
    model = mlp()

    def outputs():
        return tf.split(model(X), [7, 5])

    return model.trainable_variables, outputs, squares, Formation.ROWS


def gathered():
    model = mlp()

    def outputs():
        return [tf.gather(model(X), [7, 2, 3, 11, 0])]

    return model.trainable_variables, outputs, squares, Formation.ROWS


def classes_and_numbers():
    """Some examples have a class, the others a number."""
    model = mlp(3)

    def outputs():
        u = model(X)
        return [u[:6], u[6:, 2:]]

    def loss(zs):
        labels = tf.constant([0, 2, 1, 1, 0, 2])
        of_classes = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, zs[0])
        return tf.reduce_mean(of_classes) + tf.reduce_mean((zs[1] - 0.3) ** 2)

    return model.trainable_variables, outputs, loss, Formation.LAYERS


def of_sequences():
    """Several rows of a layer an example, and part of the examples."""
    model = net(
        L.TimeDistributed(L.Dense(3, activation="tanh")),
        L.GlobalAveragePooling1D(),
        L.Dense(1),
        shape=(5, 2),
    )

    def outputs():
        u = model(SEQUENCES)
        return [u[:4], u[4:]]

    return model.trainable_variables, outputs, squares, Formation.ROWS


def distances():
    """Examples that meet: a part's output is of two rows."""
    model = mlp(2)

    def outputs():
        first, second = tf.split(model(X), 2)
        return [first - second]

    return model.trainable_variables, outputs, squares, Formation.ROWS_OUTPUT


def seen_twice():
    model = mlp()

    def outputs():
        return [tf.gather(model(X), [1, 1, 4])]

    return model.trainable_variables, outputs, squares, Formation.ROWS_REFUTED


def rotated():
    """Rows that are moved, and then taken."""
    model = mlp()

    def outputs():
        return [tf.roll(model(X), 2, 0)[:4]]

    return model.trainable_variables, outputs, squares, Formation.ROWS_REFUTED


PROBLEMS = [slices, differentiated, nested, split, gathered, classes_and_numbers, of_sequences]
PROBLEMS += [distances, seen_twice, rotated]


@pytest.mark.parametrize("problem", PROBLEMS, ids=[p.__name__ for p in PROBLEMS])
def test_equals_its_definition(problem):
    keras.utils.set_random_seed(0)
    variables, outputs, loss, how = problem()
    variables = as_tensors(variables)
    expected, second = reference(variables, outputs, loss)
    assert np.abs(second).max() > 1e-3

    @tf.function(autograph=False)
    def block():
        recorded = record(lambda: loss(outputs()), variables)
        at = GaussNewton().at(recorded, recorded.at_variables(), Blocks("full").split(variables))
        return at.formed(0)[:2]

    matrix, formed_by = block()
    assert relative_error(matrix, expected) < 1e-10
    assert Formation(int(formed_by)) is how
