"""Hessian-vector products of every pair of layer types, against differences of gradients."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import hvp
from tests.curvature.test_layers import LAYERS, NORMALISATIONS, closure, inputs_of, stacked, targets
from tests.derivatives import differences, get_flat, relative_error, split, values

pytestmark = pytest.mark.usefixtures("double_precision")

NAMES = list(LAYERS)


def is_quick(i, j):
    """Each normalisation with some types, in one of the two orders; else neighbours only."""
    if not {NAMES[i], NAMES[j]} & NORMALISATIONS.keys():
        return j == i + 1
    return (i + j) % 4 == 0 and (i <= j if NAMES[i] == "embedding" else i >= j)


PAIRS = [
    pytest.param(
        i,
        j,
        id=f"{NAMES[i]}-{NAMES[j]}",
        marks=[] if is_quick(i, j) else [pytest.mark.slow],
    )
    for i, j in itertools.product(range(len(NAMES)), repeat=2)
    if NAMES[j] != "embedding"
]


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_product_equals_finite_differences(i, j):
    model = stacked(NAMES[i], NAMES[j])
    losses = list(targets().values())
    loss, y = losses[(i + j) % len(losses)]  # every type meets every loss
    loss_fn = closure(model, inputs_of(model), y, loss=loss)
    variables = values(model.trainable_variables)
    v = np.random.default_rng(0).normal(size=get_flat(variables).size)
    vectors = split(v, variables)

    @tf.function(autograph=False)
    def product_and_gradient():
        with tf.GradientTape() as tape:
            value = loss_fn()
        # By the model's own operations; the product comes from the recorded ones, run again.
        gradient = tape.gradient(value, variables, unconnected_gradients="zero")
        product = hvp(lambda: value, variables, vectors)
        return [tf.concat([tf.reshape(t, [-1]) for t in x], 0) for x in (product, gradient)]

    product = product_and_gradient()[0].numpy()
    # Short, lest a maximum passes from one input to another on the way.
    expected = differences(lambda: product_and_gradient()[1].numpy(), variables, v, step=5e-5)
    assert np.linalg.norm(expected) > 1e-3
    assert relative_error(product, expected) < 1e-8
