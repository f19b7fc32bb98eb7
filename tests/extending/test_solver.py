"""A solver of a third party: one file, one line of registration."""

import pytest

from keras_qnewton import QNewton
from keras_qnewton.registry import names
from keras_qnewton.scheduling import Scheduler

from ..optimizer.models import compiled, fit
from .conftest import third_party

SOURCE = """
    from __future__ import annotations

    from typing import NamedTuple

    import keras
    import tensorflow as tf

    from keras_qnewton.registry import register
    from keras_qnewton.solvers import LinearSolver
    from keras_qnewton.solvers.checks import check_matrix, check_rhs, relative_residual
    from keras_qnewton.types import Solution


    class QRState(NamedTuple):
        matrix: tf.Tensor
        q: tf.Tensor
        r: tf.Tensor


    @register("solver", "householder")
    @keras.saving.register_keras_serializable(package="third_party")
    class Householder(LinearSolver[QRState]):
        \"\"\"``A x = b`` by QR: R x = Q^T b.\"\"\"

        name = "householder"

        def init(self, matrix):
            matrix = check_matrix(matrix)
            return QRState(matrix, *tf.linalg.qr(matrix))

        def compute(self, state, rhs):
            rhs = check_rhs(rhs, state.matrix.shape[0], state.matrix.dtype)
            rotated = tf.linalg.matvec(state.q, rhs, transpose_a=True)
            x = tf.linalg.triangular_solve(state.r, rotated[:, None], lower=False)[:, 0]
            return Solution(x, relative_residual(state.matrix, x, rhs), self.name)
"""


@pytest.fixture
def householder(extension):
    return extension("householder", SOURCE).Householder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Losses of some steps, and the decisions."""
    with third_party(tmp_path_factory.mktemp("trained")) as extension:
        extension("householder", SOURCE)
        model = compiled(QNewton(scheduler=Scheduler(classical="householder", quantum=None)))
        return fit(model), model.optimizer.decisions


def test_it_solves_every_step(trained):
    _, decisions = trained
    assert {decision.solved_by for decision in decisions} == {"householder"}
    assert max(decision.residual for decision in decisions) <= 1e-9


def test_the_loss_falls(trained):
    losses, _ = trained
    assert losses[-1] < 0.5 * losses[0]


def test_an_optimizer_that_was_saved_has_it_again(householder):
    optimizer = QNewton(scheduler=Scheduler(classical="householder", quantum=None))
    again = QNewton.from_config(optimizer.get_config())
    (solver,) = again.scheduler.classical
    assert isinstance(solver, householder)


def test_it_is_forgotten_after_a_test():
    assert "householder" not in names("solver")
