"""Prices of circuits beside what is run: the shots of readings, and the depths of circuits.

    python benchmarks/prices.py

Readout: systems with evenly spaced eigenvalues are read by `Shots` and refined to a relative error
δ of x. The price is the cost model's, from N and κ alone, and a run has as many shots as it says;
"few" is a run with so few that it is priced as impossible, and warned of.

Depth: the price of `CircuitQLSA`, α and layers measured by TensorFlow operations, over the depth of
the circuit that QSVT built; with the exact κ, and with the bound of it that a training step has.
Blocks are Gauss-Newton blocks of digits' last layer, at a shift of a fiftieth of their norm, and
random ones.

Solvers: layers of gates that `QSVT` and `Shortcut` run until the state of the solution is there,
failures included, as if its length were known; and until it is read and refined to 1e-3, by as many
shots a run as are recommended for each, the shortcut's search included. Both have ε = 1e-3.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import common
import numpy as np
import tensorflow as tf

from keras_qnewton.conditioning import extremal_eigenvalues, prune
from keras_qnewton.scheduling import AsymptoticQLSA, CircuitQLSA
from keras_qnewton.scheduling.reading import LARGEST_ERROR
from keras_qnewton.solvers import QSVT, Shortcut, Shots
from keras_qnewton.solvers.quantum.readout import SAFE_ERROR, refining_shots, refining_success
from keras_qnewton.solvers.quantum.transforms import bucket, inversion

SIZES, KAPPAS, GOALS = (4, 16, 64), (2.0, 10.0, 50.0), (1e-3, 1e-4)
# Of the shots that are priced: what a run of error 0.3 takes.
FEW = (LARGEST_ERROR / 0.3) ** 2
DEPTH_LIMITS = {"dilation": 1.2, "frobenius": 1.2, "sparse": 1.3}


def system(rng: np.random.Generator, size: int, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix `[N, N]` and a right-hand side."""
    vectors = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = (vectors * np.linspace(1, kappa, size)) @ vectors.T
    return (matrix + matrix.T) / 2, rng.normal(size=size)


def readings(size: int, kappa: float, goal: float, systems: int, share: float) -> dict[str, Any]:
    """Solves of one cell with a share of the shots a run that are priced."""
    rng = np.random.default_rng([size, int(kappa)])
    charged = float(AsymptoticQLSA(goal, readout=True).seconds(size, kappa, size, 1.0))
    charged /= float(AsymptoticQLSA(goal).seconds(size, kappa, size, 1.0))
    each = charged / math.ceil(math.log(goal) / math.log(LARGEST_ERROR))
    used, warned = [], 0
    for seed in range(systems):
        matrix, rhs = system(rng, size, kappa)
        reader = Shots(max(1, round(share * each)), seed=seed)
        solver = QSVT("emulator", epsilon=1e-2, tolerance=goal / 10, readout=reader)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            solution = solver.solve(matrix, rhs)
        warned += any(issubclass(item.category, RuntimeWarning) for item in said)
        x = np.linalg.solve(matrix, rhs)
        if np.linalg.norm(solution.x - x) <= goal * np.linalg.norm(x):
            used.append(solution.details["shots"])
    ratios = [charged / shots for shots in used]
    return {
        "part": "readout" if share == 1 else "readout, few shots",
        "size": size,
        "condition_number": kappa,
        "goal": goal,
        "shots_a_run": round(share * each),
        "priced": charged,
        "reached": len(used) / systems,
        "warned": warned / systems,
        "ratio_min": min(ratios, default=None),
        "ratio_max": max(ratios, default=None),
    }


def blocks() -> list[tuple[str, np.ndarray]]:
    """Damped blocks by name."""
    rng = np.random.default_rng(0)
    x, _ = common.digits(512)
    out = []
    for size in (8, 16, 32, 60):
        units = {8: 1, 16: 1, 32: 3, 60: 5}[size]
        classes = {8: 4, 16: 8, 32: 8, 60: 10}[size]
        hidden = np.tanh(x @ rng.normal(size=(x.shape[1], units)) / 4)
        hidden = np.c_[hidden, np.ones(len(x))]
        z = hidden @ rng.normal(size=(hidden.shape[1], classes))
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        curvature = np.einsum("bc,cd->bcd", p, np.eye(classes)) - np.einsum("bc,bd->bcd", p, p)
        block = np.einsum("bcd,bi,bj->icjd", curvature, hidden, hidden, optimize=True)
        block = block.reshape(size, size) / len(x)
        out.append(("digits", (block + block.T) / 2))
    for size in (8, 24, 64):
        rows = rng.normal(size=(2 * size, size)) * np.geomspace(1, 0.1, size)
        out.append(("random", rows.T @ rows))
    return out


def depths(name: str, block: np.ndarray, limit: int | None) -> list[dict[str, Any]]:
    """Price over depth, by encoding."""
    if limit is not None:
        block = prune(block, limit).matrix.numpy()
    values = np.linalg.eigvalsh(block)
    # Pruning may have left negative eigenvalues.
    shift = values[-1] / 50 + max(0.0, -values[0])
    size = len(block)
    matrix = block + shift * np.eye(size)
    magnitudes = np.abs(np.linalg.eigvalsh(matrix))
    exact = magnitudes.max(), magnitudes.max() / magnitudes.min()
    ends = extremal_eigenvalues(tf.constant(matrix), iterations=20)
    norm = float(ends.lambda_max + ends.residual_max)
    bound = norm, norm / (shift if limit is None else float(ends.lambda_min))
    sparsity = int((matrix != 0).sum(1).max())
    out = []
    for encoding in DEPTH_LIMITS:
        solver = QSVT("emulator", encoding=encoding, max_refinements=0)
        built = solver.solve(matrix, np.ones(size)).details["resources"].depth
        ratios = []
        for of_norm, kappa in (exact, bound):
            given = [tf.constant(value, tf.float64) for value in (matrix, of_norm, kappa)]
            told = CircuitQLSA(solver).measured(*given, tf.constant(float(sparsity), tf.float64))
            priced = CircuitQLSA(solver).seconds(size, kappa, sparsity, 1.0, **told)
            ratios.append(float(priced) / built)
        out.append(
            {
                "part": "depth",
                "block": name if limit is None else f"{name}, pruned",
                "size": size,
                "sparsity": sparsity,
                "condition_number": float(exact[1]),
                "encoding": encoding,
                "depth": built,
                "ratio": ratios[0],
                "ratio_scheduler": ratios[1],
            }
        )
    return out


def solvers(size: int, kappa: float, systems: int) -> dict[str, Any]:
    """Layers of both solvers, medians over systems."""
    rng = np.random.default_rng([size, int(kappa), 1])
    found: dict[str, list[float]] = {}
    reached = {"qsvt": 0, "shortcut": 0}
    for seed in range(systems):
        matrix, rhs = system(rng, size, kappa)
        x = np.linalg.solve(matrix, rhs)
        for kind in (QSVT, Shortcut):
            name = kind.name
            details = kind("emulator", max_refinements=0).solve(matrix, rhs).details
            p, resources = details["success_probability"], details["resources"]
            query = resources.depth / resources.degree
            # As if ‖x‖ were known: a search is measured a thousand times, whatever follows.
            found.setdefault(f"{name}_success", []).append(p)
            found.setdefault(f"{name}_state", []).append(details["degree"] * query / p)
            error = SAFE_ERROR
            if kind is QSVT:
                p = refining_success(resources.encoding, inversion(bucket(kappa), 1e-3))
            else:
                p, error = kind.success_probability, error / 2
            rows = 1 << resources.encoding.system_qubits
            reader = Shots(math.ceil(refining_shots(rows, p, error)), seed=seed)
            solution = kind("emulator", readout=reader, tolerance=1e-4).solve(matrix, rhs)
            reached[name] += int(np.linalg.norm(solution.x - x) <= 1e-3 * np.linalg.norm(x))
            found.setdefault(f"{name}_read", []).append(solution.details["queries"] * query)
    return {
        "part": "solvers",
        "size": size,
        "condition_number": kappa,
        **{name: float(np.median(values)) for name, values in found.items()},
        **{f"{name}_reached": count / systems for name, count in reached.items()},
    }


def print_readings(rows: list[dict[str, Any]]) -> None:
    print("\nreading to δ: priced over used shots, share of systems that reached it, and warned of")
    for row in rows:
        found = (
            "-" if row["ratio_min"] is None else f"{row['ratio_min']:.2f}-{row['ratio_max']:.2f}"
        )
        print(
            f"N={row['size']:<3} κ={row['condition_number']:<3.0f} δ={row['goal']:.0e} "
            f"{row['shots_a_run']:>9,} shots a run{' (few)' if 'few' in row['part'] else '':6}  "
            f"{found:>10}  reached {row['reached']:4.0%}  warned {row['warned']:4.0%}",
            flush=True,
        )


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--systems", type=int, default=20, help="a cell of the readings")
    common.add_output_options(parser, "prices")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        for kappa in KAPPAS:
            for goal in GOALS:
                rows.append(readings(size, kappa, goal, options.systems, 1.0))
            rows.append(readings(size, kappa, GOALS[0], options.systems, FEW))
    print_readings(rows)
    print("\nlayers by QSVT over the shortcut's: to a state; to a solution read to 1e-3")
    for size in (4, 15, 16, 63):
        for kappa in KAPPAS:
            row = solvers(size, kappa, options.systems)
            rows.append(row)
            print(
                f"N={size:<3} κ={kappa:<3.0f} p {row['qsvt_success']:.4f} and "
                f"{row['shortcut_success']:.3f}  state {row['qsvt_state']:.2e} over "
                f"{row['shortcut_state']:.2e}: {row['qsvt_state'] / row['shortcut_state']:.1f}  "
                f"read {row['qsvt_read']:.2e} over {row['shortcut_read']:.2e}: "
                f"{row['qsvt_read'] / row['shortcut_read']:.1f}  reached "
                f"{row['qsvt_reached']:.0%}, {row['shortcut_reached']:.0%}",
                flush=True,
            )
    print("\ndepth: priced over built, with the exact κ and the scheduler's")
    for name, block in blocks():
        for limit in (None, len(block) // 4):
            for row in depths(name, block, limit):
                rows.append(row)
                print(
                    f"{row['block']:14} N={row['size']:<3} d={row['sparsity']:<3} "
                    f"κ={row['condition_number']:<5.0f} {row['encoding']:10} "
                    f"{row['depth']:>13,}  {row['ratio']:.2f}  {row['ratio_scheduler']:.2f}",
                    flush=True,
                )
    charged = [r for r in rows if r["part"] == "readout"]
    all_ratios = [r[key] for r in charged for key in ("ratio_min", "ratio_max") if r[key]]
    print(f"\nreadings within a factor of {max(*all_ratios, 1 / min(all_ratios)):.2f}")
    for encoding, most in DEPTH_LIMITS.items():
        found = [r["ratio"] for r in rows if r.get("encoding") == encoding]
        print(f"{encoding}: {min(found):.2f} to {max(found):.2f}, wanted within {most}")
    common.save("prices", rows, options.json)


if __name__ == "__main__":
    main()
