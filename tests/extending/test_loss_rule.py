"""Loss rules of a third party: one file, one line of registration."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import gauss_newton
from keras_qnewton.registry import names
from tests.derivatives import relative_error

L = keras.layers

# C is diagonal, 1 - tanh(z - y)² for each element: tapes find it.
LOG_COSH = """
    from keras_qnewton.curvature.outputs import Candidate, LossRule
    from keras_qnewton.registry import register


    @register("loss_rule", "log_cosh")
    class LogCosh(LossRule):
        \"\"\"log(cosh(z)), as it is in textbooks.\"\"\"

        def candidates(self, loss):
            for op in loss.operations:
                if op.type == "Log" and op.inputs[0].op.type == "Cosh":
                    yield Candidate(op.inputs[0].op.inputs[0], op.outputs[0])
"""
# Its C is written down: |dL/dz|, for labels of 1 and -1 and one output.
EXPONENTIAL = """
    import tensorflow as tf

    from keras_qnewton.curvature.outputs import Candidate, LossRule, OutputCurvature
    from keras_qnewton.loss.convexity import moving_tensors
    from keras_qnewton.registry import register


    @register("loss_rule", "exponential")
    class Exponential(LossRule):
        \"\"\"exp(-y z)\"\"\"

        def candidates(self, loss):
            moving = moving_tensors(loss)
            for op in loss.operations:
                if op.type == "Exp" and op.inputs[0].op.type == "Mul":
                    product = op.inputs[0].op
                    outputs = [t for t in product.inputs if t.name in moving]
                    if len(outputs) == 1:
                        yield Candidate(outputs[0], op.outputs[0])

        def curvature(self, part):
            return ExponentialCurvature(part.z, part.gradient(), part.dtype)


    class ExponentialCurvature(OutputCurvature):
        def product(self, vector):
            return tf.abs(self.gradient) * vector

        def roots(self):
            return tf.sqrt(tf.abs(self.gradient))[None]
"""

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype("float32")
TARGETS = np.tanh(X[:, :3] * X[:, 1:])
SIGNS = np.where(X[:, :1] * X[:, 1:2] > 0, 1.0, -1.0).astype("float32")


def log_cosh_loss(targets, z):
    return tf.math.log(tf.cosh(z - targets))


def exponential_loss(signs, z):
    return tf.exp(-signs * z)


# Source, loss, labels, the loss's second derivative in z by NumPy, how blocks are formed.
RULES = {
    "log_cosh": (
        LOG_COSH,
        log_cosh_loss,
        TARGETS,
        lambda y, z: 1 - np.tanh(z - y) ** 2,
        "layers: ",
    ),
    "exponential": (
        EXPONENTIAL,
        exponential_loss,
        SIGNS,
        lambda y, z: y**2 * np.exp(-y * z),
        "rows: ",
    ),
}


def network(outputs):
    keras.utils.set_random_seed(0)
    return keras.Sequential([L.Input((4,)), L.Dense(5, activation="tanh"), L.Dense(outputs)])


@pytest.fixture(params=RULES)
def rule(request, extension):
    """The rest of `RULES` of a rule that is registered."""
    source, *others = RULES[request.param]
    extension(request.param, source)
    return others


def test_fit_assembles_blocks_and_the_loss_falls(rule):
    loss, labels, _, formed_by = rule
    model = network(labels.shape[1])
    model.compile(optimizer=QNewton(), loss=loss)
    losses = model.fit(X, labels, batch_size=len(X), epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    decisions = model.optimizer.decisions
    assert {d.route for d in decisions} == {"cholesky"}
    assert all(d.formed_by.startswith(formed_by) for d in decisions)


def test_the_matrix_is_the_gauss_newton_matrix(rule):
    """Jᵀ C J, with the network's Jacobian by one tape and C by its formula."""
    loss, labels, second_derivative, _ = rule
    model = network(labels.shape[1])
    with tf.GradientTape() as tape:
        z = model(X)
    jacobian = np.concatenate(
        [
            j.numpy().reshape(labels.size, -1)
            for j in tape.jacobian(z, [v.value for v in model.trainable_variables])
        ],
        axis=1,
    )
    c = second_derivative(labels, z.numpy()).ravel() / labels.size
    (block,) = gauss_newton(
        lambda: tf.reduce_mean(loss(labels, model(X))), model.trainable_variables
    )
    assert relative_error(block.matrix, jacobian.T @ (c[:, None] * jacobian)) < 1e-5


def test_operations_after_the_terms_must_keep_them_convex(rule):
    loss, labels, *_ = rule
    model = network(labels.shape[1])
    with pytest.raises(ValueError, match="`curvature` can be 'gauss_newton' only for"):
        gauss_newton(lambda: -tf.reduce_mean(loss(labels, model(X))), model.trainable_variables)


def test_without_the_rule_the_hessian_is_exact():
    model = network(3)
    model.compile(optimizer=QNewton(), loss=log_cosh_loss)
    model.fit(X, TARGETS, batch_size=len(X), verbose=0)
    assert {d.route for d in model.optimizer.decisions} == {"eigen"}


def test_rules_are_forgotten_after_a_test():
    assert not {"log_cosh", "exponential"} & set(names("loss_rule"))
