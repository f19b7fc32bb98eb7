"""A quantum backend of a third party: one file, one line of registration."""

import sys

import numpy as np
import pytest

from keras_qnewton import QNewton
from keras_qnewton.registry import names
from keras_qnewton.scheduling import Scheduler
from keras_qnewton.solvers import QSVT

from ..optimizer.models import compiled, fit
from .conftest import third_party

# Multiplies the circuit out, in NumPy: the block encoding's unitary between the rotations.
SOURCE = """
    from __future__ import annotations

    import numpy as np

    from keras_qnewton.registry import register
    from keras_qnewton.solvers.quantum.backends import Outcome


    @register("backend", "matrices")
    class Matrices:
        dtypes = ("complex128",)

        def circuit(self, encoding, transform, state):
            return f"{transform.degree} calls of {encoding.name}"

        def run(self, encoding, transform, state, dtype):
            unitary = encoding.unitary()
            ancillas = np.zeros(1 << encoding.ancillas)
            ancillas[0] = 1
            sign = np.repeat(2 * ancillas - 1, len(state))
            both = []
            for direction in (1, -1):  # of the signal qubit
                psi = np.kron(ancillas, state).astype(dtype)
                last = transform.degree
                for k in range(last, -1, -1):
                    psi *= np.exp(1j * direction * transform.phases[k] * sign)
                    if k:
                        psi = (unitary if (last - k) % 2 == 0 else unitary.conj().T) @ psi
                both.append(psi[: len(state)])
            success = sum(both) / 2
            return Outcome(
                success.real, float(np.vdot(success, success).real), 1 + encoding.qubits, last
            )
"""


@pytest.fixture
def matrices(extension):
    return extension("matrices", SOURCE).Matrices


@pytest.fixture
def quantum(matrices):
    return QSVT(backend="matrices", dtype="complex128")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Losses of some steps, and the decisions."""
    with third_party(tmp_path_factory.mktemp("trained")) as extension:
        extension("matrices", SOURCE)
        quantum = QSVT(backend="matrices", dtype="complex128")
        scheduler = Scheduler(quantum=quantum, gate_time=1e-18)
        model = compiled(QNewton(scheduler=scheduler, blocks="variable"))
        return fit(model, steps=3), model.optimizer.decisions


def test_it_solves_every_step_that_goes_to_a_circuit(trained):
    _, decisions = trained
    sent = [decision for decision in decisions if decision.route == "qsvt"]
    assert len(sent) >= 3
    assert {decision.solved_by for decision in sent} == {"qsvt"}


def test_the_loss_falls(trained):
    losses, _ = trained
    assert losses[-1] < losses[0]


def test_its_solution_is_cirqs(quantum):
    matrix, rhs = np.array([[2.0, 1.0], [1.0, -1.0]]), np.array([1.0, 2.0])
    solution = quantum.solve(matrix, rhs)
    assert solution.details["backend"] == "matrices"
    reference = QSVT(backend="cirq", dtype="complex128").solve(matrix, rhs)
    np.testing.assert_allclose(solution.x, reference.x, rtol=1e-10)


def test_its_circuit_is_given(quantum):
    assert quantum.circuit(np.diag([1.0, 2.0]), np.ones(2)).endswith("calls of dilation")


def test_a_precision_that_it_does_not_have_is_refused(matrices):
    with pytest.raises(ValueError, match="Argument `dtype` must be 'complex128' for the backend"):
        QSVT(backend="matrices", dtype="complex64")


def test_a_solver_that_was_saved_has_it_again(quantum):
    assert QSVT.from_config(quantum.get_config()).backend == "matrices"


def test_a_lazy_backend_is_imported_when_it_is_loaded(extension):
    extension(
        "lazy",
        """
        from keras_qnewton.registry import register
        from keras_qnewton.solvers.quantum.backends import LazyBackend

        register("backend", "lazy")(LazyBackend("third_party.matrices"))
        """,
    )
    extension("matrices", SOURCE + "\n\n    Backend = Matrices\n")
    del sys.modules["third_party.matrices"]
    solver = QSVT(backend="lazy", dtype="complex128")
    assert "third_party.matrices" not in sys.modules
    solution = solver.solve(np.diag([1.0, 2.0]), np.ones(2))
    np.testing.assert_allclose(solution.x, [1.0, 0.5])
    assert solution.details["backend"] == "lazy"


def test_it_is_forgotten_after_a_test():
    assert "matrices" not in names("backend")
