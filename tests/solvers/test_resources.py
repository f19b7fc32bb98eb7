"""Counted costs against Cirq's decompositions, Qualtran and formulas; the summary they end in."""

import math

import cirq
import numpy as np
import pytest

from keras_qnewton.solvers import LU, QSVT, ConjugateGradient, Shots
from keras_qnewton.solvers.quantum.backends.cirq import operations
from keras_qnewton.solvers.quantum.encodings import ENCODINGS
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    cnot,
    multiplexed_ry,
    preparation,
    projector_phase,
)
from keras_qnewton.solvers.quantum.resources import Resources, count, depth, t_depth
from keras_qnewton.solvers.quantum.transforms import inversion

from .systems import symmetric, vector

ANGLES = np.random.default_rng(0).uniform(0.1, 1.0, size=64)


def controlled(kind, controls, zeros=0, angle=0.3):
    targets = (0, 1) if kind in ("swap", "zz") else (0,)
    wires = tuple(range(len(targets), len(targets) + controls))
    values = tuple(int(k >= zeros) for k in range(controls))
    return Gate(kind, targets, angle, None, wires, values)


PARTS = {
    "ry": [controlled("ry", 0)],
    "rz with one control": [controlled("rz", 1)],
    "ry with two": [controlled("ry", 2)],
    "rz with three, on 0": [controlled("rz", 3, zeros=3)],
    "zz": [controlled("zz", 0)],
    "cnot": [cnot(0, 1)],
    "toffoli": [controlled("x", 2)],
    "x with four, one on 0": [controlled("x", 4, zeros=1)],
    "swap": [controlled("swap", 0)],
    "multiplexed": multiplexed_ry([0, 1], 2, 0),
    "preparation": preparation(range(4)),
    "projector phase, two ancillas": projector_phase(2, 0.2),
    "dilation": ENCODINGS["dilation"](symmetric(8)).gates(),
}


@pytest.mark.parametrize("part", PARTS)
def test_rotations_and_toffoli_are_qualtrans(part):
    pytest.importorskip("qualtran")
    from keras_qnewton.solvers.quantum.backends.qualtran import gate_counts

    gates = PARTS[part]
    theirs, ours = gate_counts(gates, ANGLES), count(gates)
    assert ours.rotations == theirs.rotation
    assert ours.toffoli == theirs.toffoli + theirs.and_bloq
    assert ours.t == theirs.t


def decomposed(gates, angles=ANGLES):
    """Cirq's own way to CNOT and gates on one qubit."""
    width = 1 + max(wire for gate in gates for wire in (*gate.qubits, *gate.controls))
    made = operations(gates, cirq.LineQubit.range(width), angles)

    def keep(op):
        return cirq.num_qubits(op) == 1 or op.gate in (cirq.CNOT, cirq.CZ)

    def in_cz(op):
        """Of a gate on two qubits that Cirq (1.7: CZ**t) does not decompose."""
        if cirq.num_qubits(op) != 2:
            return NotImplemented
        matrix = cirq.unitary(op)
        return cirq.two_qubit_matrix_to_cz_operations(*op.qubits, matrix, allow_partial_czs=False)

    return cirq.Circuit(cirq.decompose(made, keep=keep, fallback_decomposer=in_cz))


@pytest.mark.parametrize(
    "part", ["ry", "rz with one control", "cnot", "swap", "multiplexed", "preparation"]
)
def test_gates_and_depth_are_cirqs(part):
    gates = PARTS[part]
    circuit = decomposed(gates)
    sizes = [cirq.num_qubits(op) for op in circuit.all_operations()]
    counts = count(gates)
    assert counts.two_qubit == sizes.count(2)
    if part != "rz with one control":  # Cirq writes the control's turn with a third rotation.
        assert counts.one_qubit == sizes.count(1)
        assert depth(gates) == len(circuit)


def test_toffoli_is_the_textbooks():
    a, b, t = cirq.LineQubit.range(3)
    T, D, X = cirq.T, cirq.T**-1, cirq.CNOT
    circuit = cirq.Circuit(
        [cirq.H(t), X(b, t), D(t), X(a, t), T(t), X(b, t), D(t), X(a, t), T(b), T(t)],
        [X(a, b), cirq.H(t), T(a), D(b), X(a, b)],
    )
    np.testing.assert_allclose(circuit.unitary(), cirq.unitary(cirq.CCX), atol=1e-9)
    sizes = [cirq.num_qubits(op) for op in circuit.all_operations()]
    counts = count([controlled("x", 2)])
    assert (counts.one_qubit, counts.two_qubit) == (sizes.count(1), sizes.count(2))
    assert depth([controlled("x", 2)]) == len(circuit)


def test_controls_by_the_table():
    # 5 controls: an AND of all in 4 work qubits, 3 levels of Toffoli gates there and back.
    gate = [controlled("rz", 5, zeros=2)]
    counts = count(gate)
    assert counts.toffoli == counts.work_qubits == 4
    assert counts.rotations == 2
    assert counts.two_qubit == 2 * 4 * 6 + 2
    assert counts.one_qubit == 2 * 4 * 9 + 2 * 2 + 2
    assert depth(gate) == 2 * 3 * 11 + 2 + 4
    assert t_depth(gate, 40.0) == 3 + 2 * 40.0
    # Side by side costs one layer, one after the other two.
    assert depth([controlled("ry", 0), controlled("ry", 0)._replace(qubits=(1,))]) == 1
    assert depth([controlled("ry", 0)] * 2) == 2


@pytest.mark.parametrize("name", list(ENCODINGS))
@pytest.mark.parametrize("size", [2, 8])
def test_circuit_is_its_parts(name, size):
    encoding, transform = ENCODINGS[name](symmetric(size)), inversion(20.0, 1e-2)
    resources = Resources(encoding, transform, 0.04, accuracy=1e-2)
    part, phase = count(encoding.gates()), count(projector_phase(encoding.ancillas, 0.1))
    d = transform.degree
    assert resources.degree == d
    states = count(preparation(range(encoding.system_qubits)))
    assert resources.counts.rotations == (
        states.rotations + d * part.rotations + (d + 1) * phase.rotations
    )
    assert resources.counts.two_qubit == (
        states.two_qubit + d * part.two_qubit + (d + 1) * phase.two_qubit
    )
    per_rotation = 1.149 * math.log2(resources.counts.rotations / 1e-2) + 9.2
    expected = resources.counts.rotations * per_rotation + 4 * resources.counts.toffoli
    assert resources.t_count == math.ceil(expected + resources.counts.t)
    assert resources.qubits >= 1 + encoding.qubits
    assert d * depth(encoding.gates()) < resources.depth <= sum(resources.counts[:2])
    assert resources.t_depth <= resources.t_count
    np.testing.assert_allclose(resources.queries(), d / 0.04)
    np.testing.assert_allclose(resources.seconds(1e-6), resources.depth * 1e-6 / 0.04)


def test_amplification():
    def runs(p, amplified=True):
        return Resources(None, None, p).runs(amplified)

    # p = 1/4: one round, three runs, certain (Brassard et al., section 2).
    np.testing.assert_allclose(runs(0.25), 3.0)
    np.testing.assert_allclose(runs(1e-6), math.pi / 2 * 1e3, rtol=2e-3)
    assert runs(0.9) == pytest.approx(1 / 0.9)
    assert runs(0.01, amplified=False) == 100
    assert runs(0.0) == math.inf and math.isnan(runs(None))


def test_summary():
    matrix, rhs = symmetric(4, 5, definite=False), vector(4)
    solution = QSVT(backend="emulator").solve(matrix, rhs)
    resources = solution.details["resources"]
    lines = dict(line.split("  ", 1) for line in solution.summary(1e-6).splitlines())
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    assert lines["solver"] == "qsvt" and lines["backend"] == "emulator"
    assert lines["encoding"] == "dilation"
    assert lines["depth"] == f"{resources.depth:,}"
    assert lines["T-count"] == f"{resources.t_count:,}"
    assert lines["projected seconds at 1e-06 s"] == f"{resources.seconds(1e-6):.4g}"
    assert float(lines["residual"]) == pytest.approx(float(solution.residual), rel=1e-3)
    shots = QSVT(readout=Shots(1000, seed=0), max_refinements=0).solve(matrix, rhs)
    assert "shots                         1,000" in shots.summary()


@pytest.mark.parametrize("solver", [LU(), ConjugateGradient()])
def test_summary_of_a_classical_solution(solver):
    lines = solver.solve(symmetric(4), vector(4)).summary().splitlines()
    assert lines[0].split() == ["solver", solver.name]
    assert lines[1].split()[0] == "residual" and float(lines[1].split()[1]) < 1e-6


def test_nothing_is_counted_until_it_is_asked_for():
    resources = QSVT(backend="emulator").solve(symmetric(4), vector(4)).details["resources"]
    assert not {"counts", "depth", "_segments"} & set(vars(resources))
    assert resources.depth > 0 and "depth" in vars(resources)


def test_drawing():
    text = QSVT(epsilon=0.3).draw(symmetric(2, 1.5), vector(2), width=60)
    rows = text.splitlines()
    assert max(map(len, rows)) <= 60
    assert "U[1]" in text and "B" in text and "ZZ" in text
    # Signal, ancilla and system in each part.
    assert sum(row.startswith(("0: ", "1: ", "2: ")) for row in rows) == 3
