"""Every block encoding against its defining inequality, by Cirq's unitary of its gates."""

import functools

import cirq
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import QNewton
from keras_qnewton.conditioning import prune
from keras_qnewton.solvers import QSVT
from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.chebyshev import Polynomial
from keras_qnewton.solvers.quantum.encodings import (
    ENCODINGS,
    Fable,
    Frobenius,
    PauliLCU,
    Sparse,
    pad,
)
from keras_qnewton.solvers.quantum.encodings.pauli_lcu import pauli_coefficients
from keras_qnewton.solvers.quantum.gates import applied, multiplexed_angles
from keras_qnewton.solvers.quantum.partial import (
    in_gray_order,
    interpolation,
    kept_ry,
    walsh,
    walsh_functions,
)

from .systems import relative_error, symmetric, vector

EVERY = pytest.mark.parametrize("name", list(ENCODINGS))


def gate_unitary(encoding):
    wires = cirq.LineQubit.range(encoding.qubits)
    circuit = cirq.Circuit(operations(encoding.gates(), wires, encoding.angles))
    return circuit.unitary(qubit_order=wires, qubits_that_should_be_present=wires)


@EVERY
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("definite", [True, False])
def test_another_diagonal_entry_is_another_encoding(name, size, definite):
    """Of a row of its own, as the shortcut changes it, and of one that others touch."""
    larger = np.zeros((size + 1, size + 1))
    larger[:size, :size] = symmetric(size, 20.0, definite)
    larger[size, size] = 0.7
    matrix = pad(larger)
    before = ENCODINGS[name](matrix)
    angles = before.angles.copy()
    for index in (size, 0):
        for value in (0.3, 1.9):
            changed = matrix.copy()
            changed[index, index] = value
            anew, found = ENCODINGS[name](changed), before.with_diagonal(index, value)
            assert found.alpha == pytest.approx(anew.alpha, rel=1e-12)
            assert found.epsilon == pytest.approx(anew.epsilon, rel=0.1, abs=1e-13)
            assert found.signature == anew.signature
            assert found.singular_values == pytest.approx(anew.singular_values, rel=1e-9)
            np.testing.assert_array_equal(found.matrix, changed)
            corner = found.unitary()[: len(matrix), : len(matrix)] * found.alpha
            np.testing.assert_allclose(corner, changed, atol=found.epsilon + 1e-12)
            state = np.sin(1 + np.arange(len(matrix)))
            cubic = Polynomial.of(np.array([0.1, 0.5, 0.0, 0.2]))
            np.testing.assert_allclose(
                found.transformed(cubic, state), anew.transformed(cubic, state), atol=1e-11
            )
    # The one that they were made of is as it was.
    np.testing.assert_array_equal(before.matrix, matrix)
    np.testing.assert_array_equal(before.angles, angles)


@EVERY
@settings(deadline=None, max_examples=20)
@given(
    qubits=st.integers(1, 3),
    condition_number=st.sampled_from([1.5, 30.0, 1e4]),
    definite=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_corner_of_its_circuit(name, qubits, condition_number, definite, seed):
    matrix = symmetric(1 << qubits, condition_number, definite, seed)
    encoding = ENCODINGS[name](matrix)
    u = gate_unitary(encoding)
    size = len(matrix)
    np.testing.assert_allclose(u @ u.conj().T, np.eye(len(u)), atol=1e-12)
    assert np.linalg.norm(u[:size, :size] - matrix / encoding.alpha, 2) <= 1e-12
    assert encoding.epsilon <= 1e-11 * encoding.alpha
    assert encoding.alpha >= np.linalg.norm(matrix, 2) * (1 - 1e-12)
    assert 1 <= encoding.ancillas <= encoding.max_ancillas(qubits)
    if encoding.hermitian:
        np.testing.assert_allclose(u @ u, np.eye(len(u)), atol=1e-12)
    np.testing.assert_allclose(encoding.unitary()[:size, :size], u[:size, :size], atol=1e-12)
    np.testing.assert_allclose(
        encoding.effective_condition_number,
        encoding.alpha / np.linalg.norm(matrix, -2),
        rtol=1e-6,
    )


@EVERY
def test_equal_signatures_have_equal_gates(name):
    first, second = (ENCODINGS[name](symmetric(8, 10.0, seed=s)) for s in (1, 2))
    if first.signature == second.signature:
        assert first.gates() == second.gates()
        assert not np.array_equal(first.angles, second.angles)


@EVERY
@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.eye(3), "power of two"),
        (np.eye(1), "power of two"),
        (np.zeros((2, 2)), "must not be zero"),
        (np.diag([1.0, np.nan]), "must be finite"),
    ],
)
def test_refuses_what_it_cannot_encode(name, matrix, message):
    with pytest.raises(ValueError, match=message):
        ENCODINGS[name](matrix)


@EVERY
def test_singular_matrix_is_known_as_one(name):
    assert ENCODINGS[name](np.diag([1.0, 0.0])).effective_condition_number == np.inf


# --- encodings from H's entries -------------------------------------------------------------

FROM_ENTRIES = [Frobenius, Sparse, PauliLCU, Fable]
ALL_FROM_ENTRIES = pytest.mark.parametrize("cls", FROM_ENTRIES, ids=lambda cls: cls.name)


def assert_encodes(encoding, matrix, tolerance=1e-12):
    size = len(matrix)
    corner = gate_unitary(encoding)[:size, :size]
    assert np.linalg.norm(corner - matrix / encoding.alpha, 2) <= tolerance
    return corner


def magnitude_norm(matrix):
    return np.linalg.norm(np.abs(matrix), 2)


def pauli_norm(matrix):
    expansion = cirq.expand_matrix_in_orthogonal_basis(
        matrix, cirq.kron_bases(*[cirq.PAULI_BASIS] * (len(matrix).bit_length() - 1))
    )
    return sum(abs(c) for c in expansion.values())


ALPHAS = {
    "frobenius": np.linalg.norm,
    "sparse": magnitude_norm,
    "pauli_lcu": pauli_norm,
    "fable": lambda matrix: len(matrix) * np.max(np.abs(matrix)),
}


@ALL_FROM_ENTRIES
@pytest.mark.parametrize("size", [2, 4, 8])
def test_alpha_is_its_formula(cls, size):
    matrix = symmetric(size, 10.0, definite=False)
    np.testing.assert_allclose(cls(matrix).alpha, ALPHAS[cls.name](matrix), rtol=1e-12)


SPECIAL = {
    "padded": pad(symmetric(5, 20.0, definite=False)),
    "zero row": np.pad(symmetric(3, 10.0), (0, 1)),
    "zero first row": np.pad(symmetric(3, 10.0, definite=False), (1, 0)),
    "one entry": np.diag([0.0, 0.0, -2.0, 0.0]),
    "diagonal": np.diag([3.0, -1.0, 0.5, 2.0]),
    "identity": -0.3 * np.eye(4),
    "no diagonal": np.kron([[0.0, 1.0], [1.0, 0.0]], symmetric(2, 3.0, definite=False)),
    "chain": np.diag([1.0, 1e-3, 1e-6], 1) + np.diag([1.0, 1e-3, 1e-6], -1) + np.diag([1, 0, 0, 0]),
    "blocks": np.kron(np.diag([1.0, -1e-4]), symmetric(4, 3.0, definite=False)),
    "tiny": 1e-200 * symmetric(4, 5.0),
    "huge": 1e200 * symmetric(4, 5.0),
}


@ALL_FROM_ENTRIES
@pytest.mark.parametrize("case", SPECIAL)
def test_special_matrices(cls, case):
    matrix = SPECIAL[case]
    encoding = cls(matrix)
    assert_encodes(encoding, matrix)
    assert encoding.ancillas <= cls.max_ancillas(encoding.system_qubits)


@ALL_FROM_ENTRIES
def test_gates_have_at_most_two_qubits(cls):
    encoding = cls(symmetric(8, 10.0, definite=False))
    gates = encoding.gates()
    assert {gate.kind for gate in gates} <= {"ry", "x", "z", "h", "swap"}
    assert all(len(gate.qubits) + len(gate.controls) <= 2 for gate in gates)
    symbols = [gate.symbol for gate in gates if gate.kind == "ry"]
    assert sorted(symbols) == list(range(len(encoding.angles)))


def pruned(size, nonzeros, seed, definite=False):
    return prune(symmetric(size, 10.0, definite, seed), nonzeros).matrix.numpy()


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_sparse_costs_less_the_fewer_nonzeros(seed, definite):
    encodings = {d: Sparse(pruned(16, d, seed, definite)) for d in (16, 8, 4, 2)}
    # No gate has more than two qubits: what is counted needs no decomposition.
    counts = [len(encoding.gates()) for encoding in encodings.values()]
    assert counts[0] > counts[1] > counts[2] > counts[3]
    for d, encoding in encodings.items():
        rotations = sum(gate.kind == "ry" for gate in encoding.gates())
        # Two trees with at most min(2^l, d) nodes a row on level l, and 16 rotations of a flag.
        assert rotations <= 2 * 16 * sum(min(1 << level, d) for level in range(4)) + 16
        assert encoding.alpha <= d * np.max(np.abs(encoding.matrix)) * (1 + 1e-12)
        assert encoding.alpha <= np.linalg.norm(encoding.matrix) * (1 + 1e-12)


@pytest.mark.parametrize("nonzeros", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_sparse_encodes_pruned_matrices(nonzeros, seed):
    matrix = pruned(8, nonzeros, seed)
    assert_encodes(Sparse(matrix), matrix)


def test_sparse_signature_is_the_pattern():
    first, second = (pruned(8, 3, seed) for seed in (0, 1))
    assert Sparse(first).signature == Sparse(-2.5 * first).signature
    assert Sparse(first).signature != Sparse(second).signature


@settings(deadline=None, max_examples=50)
@given(bits=st.integers(0, 6), share=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_interpolation_takes_as_many_walsh_functions_as_points(bits, share, seed):
    rng = np.random.default_rng(seed)
    needed = rng.random(1 << bits) < share
    values = rng.normal(size=1 << bits)
    kept, coefficients = walsh_functions(needed), interpolation(values, needed)
    assert np.count_nonzero(kept) == np.count_nonzero(needed)
    assert not np.any(coefficients[~kept])
    np.testing.assert_allclose(walsh(coefficients)[needed], values[needed], atol=1e-10)


def test_kept_rotations_with_all_kept_are_the_multiplexed_ones():
    everything = np.ones(8, bool)
    wanted = np.random.default_rng(0).normal(size=8)
    angles = in_gray_order(interpolation(wanted, everything), everything)
    np.testing.assert_allclose(angles, multiplexed_angles(wanted), atol=1e-15)
    # 2^k rotations; CNOTs between neighbours of the Gray code, and one back to its start.
    assert len(kept_ry([0, 1, 2], 3, everything, 0)) == 16


def test_pauli_coefficients_are_traces():
    matrix = symmetric(8, 10.0, definite=False)
    ours = pauli_coefficients(matrix)
    x, z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])
    for a, b in [(0, 0), (5, 2), (3, 3), (7, 6), (4, 4)]:
        bits = [((a >> k) & 1, (b >> k) & 1) for k in (2, 1, 0)]
        string = functools.reduce(
            np.kron,
            [np.linalg.matrix_power(x, p) @ np.linalg.matrix_power(z, q) for p, q in bits],
        )
        np.testing.assert_allclose(ours[a, b], np.trace(string.T @ matrix) / 8, atol=1e-14)


def test_pauli_sum_of_few_strings_is_short():
    x, z = np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, -1.0])
    one = np.eye(2)
    matrix = 0.7 * np.kron(np.kron(x, x), one) - 0.4 * np.kron(np.kron(one, z), z)
    encoding = PauliLCU(matrix)
    assert encoding.ancillas == 2
    np.testing.assert_allclose(encoding.alpha, 1.1, rtol=1e-14)
    assert len(encoding.gates()) < len(PauliLCU(symmetric(8)).gates()) / 10
    assert_encodes(encoding, matrix)
    assert encoding.signature != PauliLCU(np.kron(np.kron(z, z), one)).signature


def test_pauli_terms_that_are_dropped_are_counted():
    matrix = symmetric(8, 10.0, definite=False)
    encoding = PauliLCU(matrix, tolerance=0.2)
    corner = gate_unitary(encoding)[:8, :8]
    error = np.linalg.norm(matrix - encoding.alpha * corner, 2)
    assert 1e-3 < error <= encoding.epsilon
    assert len(encoding.gates()) < len(PauliLCU(matrix).gates())


@pytest.mark.parametrize("cutoff", [1e-3, 1e-2, 5e-2])
def test_fable_compresses_within_its_bound(cutoff):
    points = np.linspace(0, 1, 8)
    matrix = np.exp(-((points - points[:, None]) ** 2))
    encoding, full = Fable(matrix, cutoff), Fable(matrix)
    corner = gate_unitary(encoding)[:8, :8]
    error = np.linalg.norm(matrix - encoding.alpha * corner, 2)
    assert 1e-6 < error <= encoding.epsilon
    # The paper's bound has a factor N more.
    assert encoding.epsilon <= full.epsilon + np.max(matrix) * 8**3 * cutoff
    assert len(encoding.angles) < len(full.angles) / 2
    assert len(encoding.gates()) < len(full.gates())
    assert encoding.signature != full.signature


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Fable(np.eye(2), cutoff=-1.0), "Argument `cutoff` must.*Received: cutoff=-1.0"),
        (lambda: Fable(np.eye(2), cutoff=np.inf), "Argument `cutoff` must be finite"),
        (lambda: PauliLCU(np.eye(2), tolerance=1.0), "Argument `tolerance` must be in"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- as part of the solver ------------------------------------------------------------------


def accurate(encoding):
    return QSVT(
        encoding=encoding, backend="cirq", dtype="complex128", epsilon=1e-8, max_refinements=0
    )


@EVERY
@pytest.mark.parametrize("definite", [True, False], ids=["definite", "indefinite"])
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, 21), marks=pytest.mark.slow)], ids=["one", "twenty"]
)
def test_solves_systems(name, size, definite, seeds):
    for seed in seeds:
        matrix, rhs = symmetric(size, 5, definite, seed), vector(size, seed)
        solution = accurate(name).solve(matrix, rhs)
        assert relative_error(solution.x, np.linalg.solve(matrix, rhs)) <= 1e-7
        assert solution.details["encoding"] == name
        assert solution.details["qubits"] <= QSVT(encoding=name).qubits(size)


@functools.cache
def iris_blocks():
    """Damped Hessians of a 4-3-3 network's layers, after a few of our steps on iris."""
    iris = pytest.importorskip("sklearn.datasets").load_iris()
    x = (iris.data - iris.data.mean(0)) / iris.data.std(0)
    x, y = x.astype("float32"), iris.target
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.layers.Input((4,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=QNewton(), loss=loss)
    model.fit(x, y, batch_size=len(x), epochs=4, verbose=0)
    blocks = []
    for layer in layers:
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                value = loss(y, model(x))
            gradients = inner.gradient(value, layer.trainable_variables)
            flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)
        rows = outer.jacobian(flat, layer.trainable_variables)
        hessian = np.concatenate([r.numpy().reshape(len(flat), -1) for r in rows], 1)
        hessian = (hessian + hessian.T).astype(np.float64) / 2
        values = np.linalg.eigvalsh(hessian)
        damping = max(-values[0], 0) + 0.2 * np.abs(values).max()
        blocks.append(hessian + damping * np.eye(len(values)))
    return blocks


@EVERY
@pytest.mark.parametrize("layer", [0, 1])
def test_hessian_of_a_trained_layer(name, layer):
    block = iris_blocks()[layer]
    assert len(block) == (15, 12)[layer]
    encoding = ENCODINGS[name](pad(block))
    size = len(encoding.matrix)
    states = np.zeros((1 << encoding.qubits, size))
    states[:size] = np.eye(size)
    corner = applied(encoding.gates(), states, encoding.angles)[:size]
    assert np.linalg.norm(corner - encoding.matrix / encoding.alpha, 2) <= 1e-12


@pytest.mark.parametrize(
    "name, block",
    [
        # The output layer's biases, and all of the layer where that takes seconds.
        *((name, slice(-3, None)) for name in ENCODINGS),
        *((name, slice(None)) for name in ("frobenius", "sparse")),
    ],
)
def test_newton_step_of_a_trained_layer(name, block):
    matrix = iris_blocks()[1][block, block]
    rhs = vector(len(matrix))
    expected = np.linalg.solve(matrix, rhs)
    assert relative_error(accurate(name).solve(matrix, rhs).x, expected) <= 1e-7
    assert QSVT(encoding=name).solve(matrix, rhs).residual <= 1e-11
