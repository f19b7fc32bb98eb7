"""One linear system, solved by LU, by an exact circuit, by shots, and on a noisy machine.

The table says what each answer is worth and what its circuit would cost. The plot shows the error
against the polynomial's degree, the number of shots, and the strength of depolarising noise.

    python examples/quantum_linear_system.py [--out quantum_linear_system.png] [--quick]
"""

from __future__ import annotations

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cirq
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from newton_table import make_console, verdict
from rich.table import Table

from keras_qnewton.solvers import LU, QSVT, Shots
from keras_qnewton.solvers.quantum.backends.cirq import Backend

SIZE, CONDITION_NUMBER = 4, 4.0


def system(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric indefinite matrix `[4, 4]` of condition number 4, and a right-hand side."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    values = np.geomspace(1.0, 1 / CONDITION_NUMBER, SIZE) * [1, -1, 1, -1]
    matrix = (vectors * values) @ vectors.T
    return (matrix + matrix.T) / 2, rng.normal(size=SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="quantum_linear_system.png")
    parser.add_argument("--quick", action="store_true", help="fewer points and shots")
    arguments = parser.parse_args()
    shots = 200_000 if arguments.quick else 1_000_000
    console = make_console()
    matrix, rhs = system()
    truth = np.linalg.solve(matrix, rhs)

    def error(solver: LU | QSVT) -> float:
        return float(np.linalg.norm(solver.solve(matrix, rhs).x - truth) / np.linalg.norm(truth))

    def noisy(strength: float) -> QSVT:
        backend = Backend(noise=cirq.depolarize(strength))
        return QSVT(backend, epsilon=1e-2, readout=Shots(shots, seed=0), max_refinements=0)

    ways = {
        "LU": LU(),
        "circuit, one run": QSVT(max_refinements=0),
        "circuit, refined": QSVT(),
        f"{shots:,} shots": QSVT(readout=Shots(shots, seed=0), max_refinements=0),
        f"{shots:,} shots, refined": QSVT(readout=Shots(shots, seed=0)),
        "shots, noise 1e-4 a gate": noisy(1e-4),
        "shots, noise 1e-2 a gate": noisy(1e-2),
    }
    table = Table(title=f"N = {SIZE}, κ = {CONDITION_NUMBER:g}", title_justify="left")
    for column in ("solver", "error", "residual", "expected", "trusted", "degree", "depth", "T"):
        table.add_column(column, justify="left" if column == "solver" else "right")
    solutions = {}
    for name, solver in ways.items():
        solution = solutions[name] = solver.solve(matrix, rhs)
        off = np.linalg.norm(solution.x - truth) / np.linalg.norm(truth)
        cells = [name, f"{off:.1e}", f"{float(solution.residual):.1e}"]
        if details := solution.details:
            resources = details["resources"]
            cells += [
                f"{details['readout_error']:.1e}",
                "yes" if details["confident"] else "no",
                f"{details['degree']}",
                f"{resources.depth:,}",
                f"{resources.t_count:,}",
            ]
        table.add_row(*cells)
    console.print(table)
    console.print("The first circuit on a machine of 1 µs a layer:\n", highlight=False)
    console.print(solutions["circuit, one run"].summary(gate_time=1e-6), highlight=False)

    accuracies = np.geomspace(0.3, 1e-6, 4 if arguments.quick else 10)
    by_degree = []
    for accuracy in accuracies:
        solver = QSVT(epsilon=float(accuracy), dtype="complex128", max_refinements=0)
        by_degree.append((solver.solve(matrix, rhs).details["degree"], error(solver)))
    counts = [10**k for k in range(3, 6 if arguments.quick else 8)]
    by_shots = []
    for count in counts:
        runs = [QSVT("emulator", readout=Shots(count, k), max_refinements=0) for k in range(9)]
        by_shots.append((count, float(np.median([error(solver) for solver in runs]))))
    strengths = np.geomspace(1e-6, 1e-2, 3 if arguments.quick else 9)
    by_noise = [(p, error(noisy(float(p)))) for p in strengths]
    save(arguments.out, {"degree": by_degree, "shots": by_shots, "noise a gate": by_noise})

    residuals = [float(solution.residual) for solution in solutions.values()]
    _, once, refined, sampled, resampled, little, much = residuals
    verdict(
        console,
        refined < 1e-11
        and resampled < 1e-11
        and once < 1e-2
        and sampled < 0.05 < much
        and little < much
        and by_degree[-1][1] < 1e-5
        and by_shots[-1][1] < by_shots[0][1],
        f"residuals: exact {once:.0e} and refined {refined:.0e}, shots {sampled:.0e} and "
        f"refined {resampled:.0e}, noisy {little:.0e} and {much:.0e}; plot in {arguments.out}",
    )


def save(path: pathlib.Path, curves: dict[str, list[tuple[float, float]]]) -> None:
    """One panel a curve of relative errors, into a file."""
    figure, axes = plt.subplots(1, len(curves), figsize=(12, 3.6), layout="constrained")
    for panel, (name, points) in zip(axes, curves.items(), strict=True):
        panel.plot(*zip(*points, strict=True), "o-")
        panel.set(xlabel=name, ylabel="relative error", yscale="log")
        panel.set_xscale("linear" if name == "degree" else "log")
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
