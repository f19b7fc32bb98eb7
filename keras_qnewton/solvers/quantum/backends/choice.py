"""``backend="auto"``: the fastest simulator for a circuit, or the emulator.

Predicted seconds of one run, from constants measured on two cores of a 2020s server. Only orders
of magnitude matter: simulators differ by a factor of 5 to 50 where they differ.

    Cirq, U one matrix   d · (110 µs + 4^q · 5 ns),  q qubits of U; making U: gates · 4^q · 0.5 ns
    Cirq, gate by gate   d · gates of U · (120 µs + 2^w · 10 ns),  w qubits in all
    TFQ                  d · gates of U · (5 µs + 2^w · 1 ns),  plus 0.2 ms a gate to serialise
                         and 2.5 s to import it
    emulator             d · (10 µs + 2^n · 5 ns),  n qubits of the system; its eigendecomposition,
                         which κ takes anyway, is not counted

The emulator is always the fastest. A circuit is simulated, gate by gate or as a matrix, while that
is hardly noticed: in training every step waits for several runs.
"""

from __future__ import annotations

import math

from keras_qnewton.solvers.quantum.backends import load
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.transforms import Transform

# Qubits of an encoding up to which Cirq's simulation takes U as one matrix: a matrix product in
# place of thousands of gates.
FUSED_QUBITS = 10
# Predicted seconds of a run above which the emulator answers. A solve takes three to five runs.
LONGEST_RUN = 0.5
# TensorFlow Quantum parses a whole circuit, 1.2 kB a gate: more gates than this are not run.
_MAX_TFQ_GATES = 1_000_000
_MATRIX = {"complex64": 5e-9, "complex128": 7.5e-9}


def choose(encoding: BlockEncoding, transform: Transform, dtype: str) -> tuple[str, str]:
    """The name of a built-in backend for this circuit, and why, a sentence.

    Args:
        encoding: Block encoding.
        transform: The function; its degree counts.
        dtype: "complex64" or "complex128".
    """
    name, reason = _fastest(encoding, transform.degree, dtype)
    if name != "tfq":
        return name, reason
    try:
        load("tfq")
    except ImportError:
        # Cirq may be fast enough without it.
        name, reason = _fastest(encoding, transform.degree, dtype, tfq=False)
        return name, reason + "; TensorFlow Quantum, which would be faster, is not installed"
    return name, reason


def _fastest(encoding: BlockEncoding, degree: int, dtype: str, tfq: bool = True) -> tuple[str, str]:
    # No circuit has fewer gates than angles: if those are too many, gates are not made.
    seconds = predict(encoding, degree, dtype, 0 if encoding.dense else len(encoding.angles), tfq)
    if not encoding.dense and min(seconds.values()) <= LONGEST_RUN:
        seconds = predict(encoding, degree, dtype, len(encoding.gates()), tfq)
    name = min(seconds, key=lambda name: seconds[name])
    circuit = f"{1 + encoding.qubits} qubits and {degree} calls of the encoding"
    if seconds[name] > LONGEST_RUN:
        return "emulator", (
            f"simulating {circuit} in {dtype} would take {seconds[name]:.2g} s or more, above "
            f"{LONGEST_RUN:g} s; the emulator {emulated(encoding, degree):.2g} s"
        )
    predicted = ", ".join(f"{name} {value:.2g} s" for name, value in sorted(seconds.items()))
    return name, f"predicted for {circuit} in {dtype}: {predicted}"


def emulated(encoding: BlockEncoding, degree: int) -> float:
    """Predicted seconds of one run by the emulator."""
    return degree * (1e-5 + 5e-9 * 2.0**encoding.system_qubits)


def predict(
    encoding: BlockEncoding, degree: int, dtype: str, gates: int, tfq: bool = True
) -> dict[str, float]:
    """Predicted seconds of one run by simulators that can run it; see the module's formulas.

    Args:
        encoding: Block encoding.
        degree: Calls of it.
        dtype: "complex64" or "complex128".
        gates: Of it; not used for a dense one, a matrix by nature: only Cirq takes matrices.
        tfq: Whether TensorFlow Quantum counts.
    """
    qubits = encoding.qubits
    entries, amplitudes = 4.0**qubits, 2.0 ** (1 + qubits)
    by_matrix = degree * (1.1e-4 + entries * _MATRIX[dtype])
    if encoding.dense:
        return {"cirq": by_matrix}
    seconds = {"cirq": degree * gates * (1.2e-4 + 1e-8 * amplitudes)}
    if qubits <= FUSED_QUBITS:
        seconds["cirq"] = by_matrix + gates * (2.5e-5 + 5e-10 * entries)
    if tfq and dtype == "complex64":
        parsable = degree * gates <= _MAX_TFQ_GATES
        run = degree * gates * (5e-6 + 1e-9 * amplitudes)
        seconds["tfq"] = 2.5 + 4e-4 * gates + run if parsable else math.inf
    return seconds
