"""What a block encoding costs: its normalisation, its ancillas, and the gates of one call.

The matrix is random and symmetric, of 16 unknowns and condition number 10. Pruned, each row keeps
its largest entries and their mirror images. Gates are counted on one and two qubits; rotations with
more controls apart. Nothing is timed.

    python benchmarks/encodings.py [--seeds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import common
import numpy as np
import tensorflow as tf

from keras_qnewton.conditioning import prune
from keras_qnewton.solvers.quantum.encodings import ENCODINGS

SIZE, CONDITION_NUMBER = 16, 10.0
PRUNED = (8, 4, 2)


def matrix_of(seed: int) -> np.ndarray:
    """Symmetric, eigenvalues of both signs from 1/κ to 1 evenly, `[16, 16]` float64."""
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(generator.normal(size=(SIZE, SIZE)))
    sizes = np.linspace(1 / CONDITION_NUMBER, 1, SIZE)
    matrix = basis * (sizes * generator.choice([-1, 1], size=SIZE)) @ basis.T
    return (matrix + matrix.T) / 2


def cost(name: str, matrix: np.ndarray) -> dict[str, float]:
    encoding = ENCODINGS[name](matrix)
    gates = encoding.gates()
    small = sum(len(gate.qubits) + len(gate.controls) <= 2 for gate in gates)
    return {
        "normalisation": encoding.alpha / encoding.singular_values[1],
        "ancillas": encoding.ancillas,
        "gates": small,
        "larger_gates": len(gates) - small,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="matrices; the median counts")
    common.add_output_options(parser, "encodings")
    options = parser.parse_args()
    matrices = [matrix_of(seed) for seed in range(options.seeds)]
    rows: list[dict[str, Any]] = []
    for name, kept in [*((name, SIZE) for name in ENCODINGS), *(("sparse", d) for d in PRUNED)]:
        pruned = [
            prune(tf.constant(m), kept).matrix.numpy() if kept < SIZE else m for m in matrices
        ]
        costs = [cost(name, matrix) for matrix in pruned]
        medians = {key: statistics.median(c[key] for c in costs) for key in costs[0]}
        rows.append({"encoding": name, "kept": kept, **medians})
        print(f"{name:10} {kept:3}  " + "  ".join(f"{k} {v:g}" for k, v in medians.items()))
    common.save("encodings", rows, options.json)


if __name__ == "__main__":
    main()
