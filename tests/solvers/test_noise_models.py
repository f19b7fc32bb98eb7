"""Circuits with noise, and by samplers: what they do to a solution, and to a training run."""

import json
import subprocess
import sys

import cirq
import keras
import numpy as np
import pytest
from cirq.contrib.noise_models import DepolarizingWithReadoutNoiseModel

from keras_qnewton import QNewton, Scheduler
from keras_qnewton.solvers import QSVT, Shots
from keras_qnewton.solvers.quantum.backends.cirq import Backend
from keras_qnewton.solvers.quantum.encodings import Dilation
from keras_qnewton.solvers.quantum.transforms import inversion

from .systems import relative_error, symmetric, vector

# Measured counts are compared with probabilities by this many standard deviations.
SIGMAS = 5


def solve(backend, size=2, shots=200_000, **arguments):
    matrix, rhs = symmetric(size, 5, definite=False), vector(size)
    arguments = {"epsilon": 1e-2, "max_refinements": 0, **arguments}
    solution = QSVT(backend=backend, readout=Shots(shots, seed=0), **arguments).solve(matrix, rhs)
    return solution, relative_error(solution.x, np.linalg.solve(matrix, rhs))


def small_circuit(backend, rotated=None, shots=100_000):
    """Counts of a short circuit on 2 unknowns, and the circuit without measurements."""
    encoding, transform = Dilation(symmetric(2, 2.0)), inversion(2.0, 0.2)
    state = np.array([0.6, -0.8])
    counts = backend.sample(encoding, transform, state, shots, rotated, np.random.default_rng(1))
    return counts, backend.circuit(encoding, transform, state)


def kraus_probabilities(circuit, channel, flips=0.0):
    """Success probabilities by index, by Kraus sums in NumPy after every moment and qubit."""
    qubits = cirq.LineQubit.range(3)

    def everywhere(rho, operators, q):
        out = 0
        for k in operators:
            parts = [np.eye(2)] * 3
            parts[q] = k
            full = np.kron(np.kron(*parts[:2]), parts[2])
            out = out + full @ rho @ full.conj().T
        return out

    rho = np.zeros((8, 8), complex)
    rho[0, 0] = 1
    for moment in circuit:
        u = cirq.Circuit(moment).unitary(qubit_order=qubits, qubits_that_should_be_present=qubits)
        rho = u @ rho @ u.conj().T
        for q in range(3):
            rho = everywhere(rho, channel, q)
    for q in range(3):
        flip = [np.sqrt(1 - flips) * np.eye(2), np.sqrt(flips) * np.array([[0, 1], [1, 0]])]
        rho = everywhere(rho, flip, q)
    return np.diag(rho).real[:2]


def assert_drawn_from(counts, probabilities, shots):
    spread = np.sqrt(shots * probabilities * (1 - probabilities))
    assert np.all(np.abs(counts - shots * probabilities) <= SIGMAS * spread)


def test_depolarised_counts_are_those_of_kraus_sums():
    noise = cirq.depolarize(0.02)
    counts, circuit = small_circuit(Backend(noise=noise))
    expected = kraus_probabilities(circuit, cirq.kraus(noise))
    assert_drawn_from(counts, expected, 100_000)
    ideal = kraus_probabilities(circuit, [np.eye(2)])
    with pytest.raises(AssertionError):
        assert_drawn_from(counts, ideal, 100_000)


def test_readout_noise_flips_what_is_read():
    counts, circuit = small_circuit(Backend(noise=DepolarizingWithReadoutNoiseModel(1e-12, 0.1)))
    assert_drawn_from(counts, kraus_probabilities(circuit, [np.eye(2)], flips=0.1), 100_000)


@pytest.mark.parametrize("rotated", [None, 0])
def test_sampler_and_density_matrix_agree(rotated):
    noise = cirq.depolarize(0.02)
    sampler = cirq.DensityMatrixSimulator(seed=3)
    by_matrix, _ = small_circuit(Backend(noise=noise), rotated)
    by_sampler, _ = small_circuit(Backend(noise=noise, sampler=sampler), rotated)
    assert np.all(np.abs(by_matrix - by_sampler) <= SIGMAS * np.sqrt(by_matrix + by_sampler))


@pytest.mark.parametrize("size", [2, 4])
def test_any_sampler_solves(size):
    solution, error = solve(Backend(sampler=cirq.Simulator(seed=0)), size, shots=60_000)
    assert error <= 3 * solution.details["readout_error"] <= 0.1
    assert solution.details["confident"]


def test_sampled_circuits_have_small_gates():
    backend = Backend(sampler=cirq.Simulator())
    for encoding in (Dilation(symmetric(8)), Dilation(symmetric(2))):
        state = vector(len(encoding.matrix))
        state /= np.linalg.norm(state)
        transform = inversion(2.0, 0.3)
        circuit = backend.circuit(encoding, transform, state)
        assert max(cirq.num_qubits(op) for op in circuit.all_operations()) <= 2
        ideal = Backend().circuit(encoding, transform, state)
        qubits = cirq.LineQubit.range(1 + encoding.qubits)
        ours, exact = (
            c.final_state_vector(qubit_order=qubits, dtype=np.complex128) for c in (circuit, ideal)
        )
        np.testing.assert_allclose(abs(np.vdot(ours, exact)), 1, atol=1e-8)


def test_error_grows_with_noise_and_is_announced():
    results = [solve(Backend(noise=cirq.depolarize(p))) for p in (1e-5, 1e-3, 1e-2)]
    errors = [error for _, error in results]
    estimates = [solution.details["readout_error"] for solution, _ in results]
    assert errors[0] < 0.01 < errors[1] < errors[2]
    assert estimates[0] < 0.02 < estimates[1] < estimates[2]
    confident = [solution.details["confident"] for solution, _ in results]
    assert confident[0] and not confident[2]


def test_refinement_overcomes_a_little_noise():
    backend = Backend(noise=cirq.depolarize(1e-4))
    once, _ = solve(backend)
    refined, error = solve(backend, max_refinements=4)
    assert once.residual > 1e-3
    assert refined.residual < 0.1 * once.residual and error < 2e-3


def test_exact_readout_is_refused():
    for backend in (Backend(noise=cirq.depolarize(0.1)), Backend(sampler=cirq.Simulator())):
        message = r"Argument `readout` must be Shots\(\.\.\.\).*Received: readout='exact'"
        with pytest.raises(ValueError, match=message):
            QSVT(backend=backend)
        with pytest.raises(ValueError, match=message):
            backend.run(None, None, np.ones(2), "complex64")


@pytest.mark.parametrize("arguments", [{"sampler": "engine"}, {"sampler": cirq.Simulator}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=r"Argument `sampler` must be a cirq\.Sampler. Received"):
        Backend(**arguments)


def test_too_large_a_density_matrix_is_refused():
    solver = QSVT(backend=Backend(noise=cirq.depolarize(1e-3)), readout=Shots(100_000))
    with pytest.raises(ValueError, match=r"Argument `sampler` must be given .* 11 qubits"):
        solver.solve(symmetric(512, 2), vector(512))


@pytest.mark.slow
def test_noise_is_saved_and_a_sampler_is_not():
    solver = QSVT(backend=Backend(noise=cirq.depolarize(0.01)), readout=Shots(100, seed=1))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(solver))
    assert again.backend.noise == solver.backend.noise
    assert again.readout.shots == 100
    config = json.dumps(keras.saving.serialize_keras_object(solver))
    code = (
        "import json, sys, keras, keras_qnewton.solvers; assert 'cirq' not in sys.modules;"
        "solver = keras.saving.deserialize_keras_object(json.loads(sys.argv[1]));"
        "print(solver.backend.noise.qubit_noise_gate)"
    )
    fresh = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True)
    assert fresh.stdout.strip() == "depolarize(p=0.01)", fresh.stderr
    with pytest.raises(ValueError, match=r"Argument `sampler` must be None .* to be saved"):
        Backend(sampler=cirq.Simulator()).get_config()


def train(scheduler):
    """Two full-batch steps on a line: the losses, and the decisions."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 2)).astype("float32")
    y = (x @ [1.0, -2.0] + 0.5 + 0.1 * rng.normal(size=32)).astype("float32")[:, None]
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    optimizer = QNewton(scheduler=scheduler)
    model.compile(optimizer=optimizer, loss="mse")
    history = model.fit(x, y, batch_size=32, epochs=2, verbose=0, shuffle=False)
    return history.history["loss"], optimizer.decisions


@pytest.fixture(scope="module")
def reference():
    """The losses of a training by LU."""
    return train(Scheduler(gate_time=1e-3))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [
        Backend(noise=cirq.depolarize(0.03)),
        Backend(noise=DepolarizingWithReadoutNoiseModel(1e-2, 0.2)),
    ],
    ids=["depolarising", "readout"],
)
def test_training_falls_back_to_lu(backend, reference):
    quantum = QSVT(backend=backend, epsilon=1e-2, readout=Shots(2000, 0), max_refinements=1)
    losses, decisions = train(Scheduler(quantum=quantum, gate_time=1e-30))
    np.testing.assert_allclose(losses, reference, rtol=1e-6)
    for decision in decisions:
        assert decision.route == "qsvt" and decision.fallback and decision.solved_by == "lu"
        assert "qsvt failed its residual check, lu took over" in decision.reason


def test_training_by_shots_alone(reference):
    quantum = QSVT(backend="cirq", readout=Shots(50_000, seed=0))
    losses, decisions = train(Scheduler(quantum=quantum, gate_time=1e-30))
    np.testing.assert_allclose(losses, reference, rtol=1e-4)
    assert {decision.solved_by for decision in decisions} == {"qsvt"}
