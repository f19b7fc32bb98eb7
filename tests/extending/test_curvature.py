"""A kind of curvature of a third party: one file, one line of registration."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import Blocks
from keras_qnewton.loss import as_tensors, record
from keras_qnewton.registry import names, resolve
from tests.derivatives import fd_hessian, relative_error
from tests.extending.conftest import third_party
from tests.optimizer.models import compiled, fit, regression_data, regression_model

SOURCE = """
    import keras

    from keras_qnewton.curvature import Curvature
    from keras_qnewton.curvature.linearized_hessian import LinearizedHessian
    from keras_qnewton.registry import register


    @register("curvature", "ridged")
    @keras.saving.register_keras_serializable(package="third_party")
    class Ridged(Curvature):
        \"\"\"H + r I, which is taken for positive semidefinite if r is large.\"\"\"

        def __init__(self, ridge=0.25, memory=512e6):
            super().__init__(memory)
            self.ridge = ridge

        def at(self, loss, weights, parts):
            return RidgedHessian(loss, weights, parts, self.memory, self.ridge)

        def get_config(self):
            return {"ridge": self.ridge, **super().get_config()}


    class RidgedHessian(LinearizedHessian):
        def __init__(self, loss, weights, parts, memory, ridge):
            super().__init__(loss, weights, parts, memory)
            self._ridge = ridge
            self.positive_semidefinite = ridge > 10

        def product(self, vectors):
            products = super().product(vectors)
            return [h + self._ridge * v for h, v in zip(products, vectors, strict=True)]

        def block_product(self, k, vector):
            return super().block_product(k, vector) + self._ridge * vector
"""


@pytest.fixture
def ridged(extension):
    return extension("ridged", SOURCE).Ridged


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Losses of some steps, and the decisions."""
    with third_party(tmp_path_factory.mktemp("trained")) as extension:
        extension("ridged", SOURCE)
        optimizer = QNewton(curvature="ridged")
        assert isinstance(optimizer.curvature, type(resolve("curvature", "ridged", "curvature")))
        return fit(compiled(optimizer)), optimizer.decisions


def test_the_loss_falls(trained):
    losses, _ = trained
    assert losses[-1] < 0.5 * losses[0]


def test_its_blocks_are_made_of_its_products(trained):
    _, decisions = trained
    assert {d.formed_by for d in decisions} == {"products with unit vectors"}


def test_its_matrix_is_the_one_that_it_multiplies_by(ridged):
    model, (x, y) = regression_model(), regression_data()
    loss, variables = keras.losses.MeanSquaredError(), as_tensors(model.trainable_variables)

    @tf.function
    def blocks():
        recorded = record(lambda: loss(y, model(x)), variables)
        parts = Blocks("layer").split(model.trainable_variables)
        at = ridged(ridge=3.0).at(recorded, recorded.at_variables(), parts)
        return [at.block(k) for k in range(len(parts))]

    exact = fd_hessian(lambda: loss(y, model(x)), model.trainable_variables)
    hidden, out = (block.numpy() for block in blocks())
    # Differences in single precision are good to three digits.
    assert relative_error(hidden, exact[:20, :20] + 3 * np.eye(20)) < 1e-2
    assert relative_error(out, exact[20:, 20:] + 3 * np.eye(6)) < 1e-2


def test_each_instance_says_whether_it_is_semidefinite(ridged):
    """A semidefinite block is solved by Cholesky, another by an eigendecomposition."""
    routes = {}
    for ridge in (0.25, 20.0):
        model = compiled(QNewton(curvature=ridged(ridge)))
        fit(model, steps=2)
        routes[ridge] = {d.route for d in model.optimizer.decisions}
    assert routes == {0.25: {"eigen"}, 20.0: {"cholesky"}}


def test_an_optimizer_that_was_saved_has_it_again(ridged):
    again = QNewton.from_config(QNewton(curvature=ridged(0.5)).get_config())
    assert isinstance(again.curvature, ridged) and again.curvature.ridge == 0.5


def test_it_is_forgotten_after_a_test():
    assert "ridged" not in names("curvature")
