"""Linear systems by circuits of this package, of Qrisp and of PennyLane, in the same run.

    python benchmarks/peers_quantum.py [--peers PYTHON] [--size 2] [--condition-numbers 2 3]

Each solver runs one circuit on the same systems to the same ε, and its amplitudes, or
probabilities, are read without noise: no refinement, and nobody searches for the length of the
solution. Printed are the error of the direction of x, the success probability, the queries of one
run to a block encoding, α/σ_min of that encoding, gates, and seconds on this machine with tracing.

    ours              `Shortcut` and `QSVT`, Cirq's simulator, "dilation" and "pauli_lcu"
    Qrisp             `dalzell_inversion` and `CKS` on `BlockEncoding.from_array`, a sum of Paulis
    PennyLane         `qml.qsvt` by "embedding", with the polynomial of our QSVT

Qrisp and PennyLane want another NumPy than TensorFlow: `--peers` is the Python of an environment
that has them. What is not installed there is named and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from typing import Any

import numpy as np

EPSILON = 1e-2
# What a peer may take for one system.
LIMIT_SECONDS = 900.0


def system(size: int, condition_number: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A positive definite A, a unit vector b, and the direction of x, whose entries are positive:
    probabilities show no signs.
    """
    rng = np.random.default_rng([size, int(condition_number)])
    vectors = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = (vectors * np.linspace(1 / condition_number, 1, size)) @ vectors.T
    matrix = (matrix + matrix.T) / 2
    x = 0.3 + rng.random(size)
    rhs = matrix @ x
    return matrix, rhs / np.linalg.norm(rhs), x / np.linalg.norm(x)


def row(
    name: str, x: np.ndarray, found: np.ndarray, success: float, queries: int, **others: Any
) -> dict[str, Any]:
    found = np.abs(found) / np.linalg.norm(found)
    error = float(np.linalg.norm(found - x))
    return {"solver": name, "error": error, "success": success, "queries": queries, **others}


# --- ours -------------------------------------------------------------------------------


def ours(size: int, kappa: float) -> list[dict[str, Any]]:
    from keras_qnewton.solvers import QSVT, Shortcut

    matrix, rhs, x = system(size, kappa)
    out = []
    for kind in (Shortcut, QSVT):
        for encoding in ("dilation", "pauli_lcu"):
            solver = kind("cirq", encoding, EPSILON, max_refinements=0)
            norm = (
                {}
                if kind is QSVT
                else {"norm": float(np.linalg.norm(np.linalg.solve(matrix, rhs)))}
            )
            start = time.perf_counter()
            solution = solver.solve(matrix, rhs, **norm)
            seconds = time.perf_counter() - start
            details = solution.details
            counts = details["resources"].counts
            out.append(
                row(
                    f"{kind.name}, {encoding}",
                    x,
                    np.asarray(solution.x),
                    details["success_probability"],
                    details["queries"],
                    resolved=details["alpha"] * np.linalg.norm(np.linalg.inv(matrix), 2),
                    qubits=details["qubits"],
                    gates=counts.one_qubit + counts.two_qubit,
                    seconds=seconds,
                )
            )
    return out


# --- peers ------------------------------------------------------------------------------


def qrisp(which: str, size: int, kappa: float) -> dict[str, Any]:
    from qrisp import QuantumFloat, prepare, terminal_sampling
    from qrisp.algorithms.cks import CKS, cks_params
    from qrisp.block_encodings import BlockEncoding
    from qrisp.gqsp import dalzell_inversion

    matrix, rhs, x = system(size, kappa)
    qubits = size.bit_length() - 1
    start = time.perf_counter()
    encoding = BlockEncoding.from_array(matrix)
    alpha = float(encoding.alpha)
    resolved = alpha * np.linalg.norm(np.linalg.inv(matrix), 2)
    if which == "dalzell_inversion":
        length = float(np.linalg.norm(np.linalg.solve(matrix / alpha, rhs)))

        def prepared(operand: Any) -> None:
            prepare(operand, rhs)

        inverse = dalzell_inversion(encoding, prepared, length, EPSILON, resolved)
        # Of its own source: κ (1 + 1/t) for the sum, l = ⌈κ/2 ln(2/ε)⌉, degree 2 l.
        queries = 2 * math.ceil(resolved * (1 + 1 / length) / 2 * math.log(2 / EPSILON))
    else:
        inverse = CKS(encoding, EPSILON, resolved)
        queries = 2 * int(cks_params(EPSILON, resolved)[0]) + 1

    def state() -> Any:
        operand = QuantumFloat(qubits)
        if which == "CKS":
            prepare(operand, rhs)
        return operand

    @terminal_sampling
    def main() -> Any:
        operand = state()
        return (operand, *inverse.apply(operand))

    counted = main()
    seconds = time.perf_counter() - start
    kept = {k[0]: p for k, p in counted.items() if all(v == 0 for v in k[1:])}
    total = sum(kept.values())
    found = np.sqrt([max(kept.get(i, 0.0), 0.0) / total for i in range(size)])
    try:
        counts = inverse.resources(QuantumFloat(qubits))
        gates, width = sum(counts["gate counts"].values()), counts.get("qubits")
    except Exception as error:  # whatever a peer's count raises, its circuit has run
        print(f"qrisp {which}: no resources, {type(error).__name__}: {error}", file=sys.stderr)
        gates, width = None, None
    others = {"resolved": resolved, "qubits": width, "gates": gates, "seconds": seconds}
    return row(f"qrisp, {which}", x, found, float(total), queries, **others)


def pennylane(which: str, size: int, kappa: float) -> dict[str, Any]:
    import pennylane as qml

    matrix, rhs, x = system(size, kappa)
    # The best odd polynomial by least squares on both intervals, bounded by a half.
    chebyshev = np.polynomial.chebyshev
    degree = 2 * math.ceil(kappa * math.log(2 * kappa / EPSILON) / 2) + 1
    points = np.cos(np.linspace(0, math.acos(1 / kappa), 400))
    odd = np.array(
        [chebyshev.chebval(points, np.eye(degree + 1)[k]) for k in range(1, degree + 1, 2)]
    )
    coefficients = np.zeros(degree + 1)
    coefficients[1::2] = np.linalg.lstsq(odd.T, 1 / points, rcond=None)[0]
    largest = np.max(np.abs(chebyshev.chebval(np.linspace(-1, 1, 4001), coefficients)))
    polynomial = chebyshev.cheb2poly(coefficients / (2 * largest))
    qubits = size.bit_length() - 1
    start = time.perf_counter()
    angles = qml.poly_to_angles(polynomial, "QSVT", angle_solver=which)

    @qml.qnode(qml.device("default.qubit"))
    def circuit() -> Any:
        qml.StatePrep(rhs, wires=range(1, 1 + qubits))
        encoding = qml.BlockEncode(matrix, wires=range(1 + qubits))
        projectors = [qml.PCPhase(angle, dim=size, wires=range(1 + qubits)) for angle in angles]
        qml.QSVT(encoding, projectors)
        return qml.state()

    amplitudes = np.asarray(circuit())[:size]
    # The polynomial is the real part.
    found = np.real(amplitudes)
    seconds = time.perf_counter() - start
    success = float(found @ found)
    others = {"resolved": kappa, "qubits": 1 + qubits, "gates": None, "seconds": seconds}
    return row(f"pennylane, {which}", x, found, success, len(angles) - 1, **others)


PEERS = {
    "qrisp dalzell_inversion": qrisp,
    "qrisp CKS": qrisp,
    "pennylane root-finding": pennylane,
    "pennylane iterative": pennylane,
}


def of_peer(python: str, name: str, size: int, kappa: float) -> dict[str, Any] | None:
    """A peer's row, from a process of its own; None with a word why not."""
    command = [python, __file__, "--child", name, "--size", str(size)]
    command += ["--condition-numbers", str(kappa)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: left out, above {LIMIT_SECONDS:.0f} s at κ = {kappa:g}", flush=True)
        return None
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{name}: left out at κ = {kappa:g}, {last}", flush=True)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, help="a Python that has the peers")
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--condition-numbers", type=float, nargs="*", default=[2.0, 3.0])
    parser.add_argument("--child", choices=list(PEERS), help=argparse.SUPPRESS)
    if "--child" in sys.argv:
        options = parser.parse_args()
        which = options.child.split()[1]
        print(json.dumps(PEERS[options.child](which, options.size, options.condition_numbers[0])))
        return
    import common

    common.add_output_options(parser, "peers_quantum")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kappa in options.condition_numbers:
        found = [*ours(options.size, kappa)]
        found += [of_peer(options.peers, name, options.size, kappa) for name in PEERS]
        for one in found:
            if one is None:
                continue
            rows.append({"size": options.size, "condition_number": kappa, **one})
            gates = "?" if one["gates"] is None else f"{one['gates']:,}"
            print(
                f"N={options.size} κ={kappa:<4g}{one['solver']:26} error {one['error']:.1e}  p "
                f"{one['success']:.3f}  queries {one['queries']:>4}  α/σ {one['resolved']:.2f}  "
                f"gates {gates}  qubits {one['qubits']}  {one['seconds']:.2f} s",
                flush=True,
            )
        about = {**common.about(), "peers": versions(options.peers)}
        path = options.json or common.RESULTS / "peers_quantum.json"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps({"about": about, "runs": rows}, indent=1))
    print(f"\nwritten: {path}")


def versions(python: str) -> str:
    """Of the peers, in the words of their packages."""
    code = (
        "import importlib.metadata as m\n"
        "for n in ('qrisp', 'pennylane'):\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: print(n, 'not installed')"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return ", ".join(done.stdout.strip().splitlines())


if __name__ == "__main__":
    main()
