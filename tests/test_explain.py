"""`explain`: what it says of a model's loss, and that it changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Blocks, QNewton, explain

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = RNG.normal(size=(20, 1)).astype("float32")


def model_with(loss, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(1)])
    model.compile(optimizer=QNewton(**arguments), loss=loss)
    return model


def two_heads():
    inputs = L.Input((3,))
    hidden = L.Dense(4, activation="tanh")(inputs)
    model = keras.Model(inputs, [L.Dense(5)(hidden), L.Dense(1)(hidden)])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=QNewton(), loss=[cross_entropy, "mse"])
    return explain(model, X, [np.arange(20) % 5, Y])


def test_names_each_output_with_its_shape_and_its_backward_passes():
    found = two_heads()
    outputs = {(o.shape, o.rule, o.roots) for o in found.outputs}
    assert outputs == {((20, 5), "SoftmaxCrossEntropy", 4), ((20, 1), "Separable", 1)}


def test_a_loss_of_convex_terms_alone_is_semidefinite():
    found = two_heads()
    assert (found.curvature, found.semidefinite, found.rest) == ("Gauss-Newton", True, ())
    (block,) = found.blocks
    assert block.formed_by.startswith("layers: ")
    assert block.solved_by == "one of: cholesky"


def test_names_the_operation_at_which_the_rules_ended():
    model = model_with(lambda y, p: tf.square(y - p) + tf.cos(p))
    found = explain(model, X, Y)
    assert [operation.split(" ")[0] for operation in found.rest] == ["Cos"]
    assert not found.semidefinite
    assert found.blocks[0].solved_by == "saddle-free, by an eigendecomposition"


def worst_error(y, p):
    return tf.reduce_max(tf.abs(y - p))


def test_says_that_kinks_have_the_curvature_of_parabolas():
    found = explain(model_with("mae"), X, Y)
    assert (found.curvature, found.semidefinite) == ("Gauss-Newton", True)
    assert "parabolas" in found.reason
    assert [output.rule for output in found.outputs] == ["Kinks"]


@pytest.mark.parametrize(
    ("loss", "reason"),
    [(worst_error, "maximum over elements"), ("cosine_similarity", "No term of the loss is known")],
    ids=["maximum", "cosine_similarity"],
)
def test_says_why_the_hessian_is_exact(loss, reason):
    found = explain(model_with(loss), X, Y)
    assert found.curvature == "exact Hessian"
    assert reason in found.reason


def test_says_which_blocks_are_not_formed():
    model = model_with("mse", blocks=Blocks("layer", max_size=10))
    blocks = {b.size: b for b in explain(model, X, Y).blocks}
    assert blocks[16].formed_by == "not formed: over 10 weights"
    assert blocks[16].matrix_bytes == 0
    assert blocks[5].matrix_bytes == 4 * 5**2


def test_of_a_loss_function_without_a_model():
    weight = tf.Variable([1.0, 2.0])
    found = explain(lambda: tf.reduce_sum(tf.exp(tf.sin(weight))), variables=[weight])
    assert [o.terms for o in found.outputs] == [("Exp",)]


def test_changes_nothing():
    model = model_with("mse")
    before = [v.numpy() for v in model.variables]
    explain(model, X, Y)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))
    assert not model.optimizer.built


def test_the_page_has_all_of_it():
    page = str(two_heads())
    for part in ("Gauss-Newton", "backward passes: 4", "layers: assembled", "one of: cholesky"):
        assert part in page


def test_a_model_that_is_not_compiled_is_refused():
    model = keras.Sequential([L.Input((3,)), L.Dense(1)])
    with pytest.raises(ValueError, match="Argument `model` must be compiled"):
        explain(model, X, Y)


def test_a_function_needs_its_variables():
    with pytest.raises(ValueError, match="Argument `model` must be a Keras model, or a function"):
        explain(lambda: tf.constant(0.0))
