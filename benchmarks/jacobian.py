"""Damped least squares by circuits: through the Jacobian's rows, or through the matrix G = UᵀU.

    python benchmarks/jacobian.py

A network of 21 weights is fitted by Levenberg-Marquardt steps, to as many examples as make more
rows than weights, or fewer, with noise and without. Systems (G + λI) x = g of its first, fourth and
eighth step are solved by circuits to a relative residual of 1e-6. The number is of layers of gates:
over all runs and refinements, degree times layers of a query over the success probability; and with
amplitude amplification.

    U, from g      DampedLeastSquares.solve: λ/(σ² + λ), even in U
    U, from r      DampedLeastSquares.solve_residuals: σ/(σ² + λ), then as above
    K, shortcut    Shortcut on [[√λ I, Uᵀ], [U, -√λ I]], whose square is G + λI beside UUᵀ + λI: its
                   condition number is √κ. x is the first N of N + r unknowns.
    G              QSVT: 1/x
    G, shifted     2 (G - c)/Δ, of eigenvalues in [-1, 1], by a polynomial of both parities, which
                   costs half of the amplitude (Orsucci & Dunjko 2021, arXiv:2101.11868). Its runs
                   are computed here, not simulated. Encoded at α = 1, by a dilation.
    G, shortcut    Shortcut, its search included
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import common
import numpy as np
import tensorflow as tf

from keras_qnewton.solvers import QSVT, DampedLeastSquares, Exact, Shortcut
from keras_qnewton.solvers.quantum.encodings import Dilation, pad
from keras_qnewton.solvers.quantum.readout import CircuitRun
from keras_qnewton.solvers.quantum.resources import Resources, depth
from keras_qnewton.solvers.quantum.tomography import Reading

EPSILON, TOLERANCE = 1e-3, 1e-6
HIDDEN = 5
WEIGHTS = 4 * HIDDEN + 1
STEPS = (1, 4, 8)
CASES = [
    (
        f"{'more' if examples > WEIGHTS else 'fewer'} rows, {'noise' if noise else 'no noise'}",
        examples,
        noise,
    )
    for examples in (60, 12)
    for noise in (0.0, 0.3)
]


class Recorded(Exact):
    """Exact amplitudes, and what each run took.

    Args:
        part: Of the amplitudes, those that are the solution's; None for all.
    """

    def __init__(self, part: slice | None = None) -> None:
        self.part = part
        self.layers = np.zeros(2)
        self._query: dict[Any, float] = {}

    def read(self, run: CircuitRun) -> Reading:
        """See `Exact`."""
        reading = super().read(run)
        part = self.part or slice(None)
        if run.encoding.name == "kernel":
            # The solution is before the basis vector that was reflected: a wrong length costs.
            part = slice(int(np.argmax(run.state)))
        p = float(np.sum(np.square(reading.amplitudes[part])))
        self._add(run.encoding, run.transform.degree, p)
        return reading

    def probabilities(self, run: CircuitRun) -> tuple[np.ndarray, int]:
        """A search counts as one run."""
        reading = super().read(run)
        self._add(run.encoding, run.transform.degree, 1.0)
        return np.square(reading.amplitudes), 0

    def _add(self, encoding: Any, degree: int, success: float) -> None:
        key = encoding.signature
        if key not in self._query:
            self._query[key] = depth(encoding.gates())
        self.layers += degree * self._query[key] * repetitions(success)


def repetitions(success: float) -> np.ndarray:
    """Runs until one succeeds, and with amplitude amplification, `[2]`."""
    resources = Resources(None, None, success)  # type: ignore[arg-type]  # p alone counts
    return np.array([resources.runs(), resources.runs(amplified=True)])


def systems(examples: int, noise: float) -> Iterator[tuple[int, np.ndarray, np.ndarray, float]]:
    """Step, U, r and λ of the steps that are asked for."""
    rng = np.random.default_rng([examples, int(100 * noise)])
    x = rng.uniform(-1, 1, size=(examples, 2))
    y = np.sin(3 * x[:, 0]) * x[:, 1] + noise * rng.normal(size=examples)
    weights = rng.normal(size=WEIGHTS)

    @tf.function
    def residuals(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(w)
            first, bias, second = tf.split(w[:-1], [2 * HIDDEN, HIDDEN, HIDDEN])
            hidden = tf.tanh(x @ tf.reshape(first, [2, HIDDEN]) + bias)
            r = (tf.linalg.matvec(hidden, second) + w[-1] - y) * math.sqrt(2 / examples)
        return r, tape.jacobian(r, w)

    damping = 0.1
    for step in range(1, max(STEPS) + 1):
        r, rows = (value.numpy() for value in residuals(tf.constant(weights)))
        # A λ that a step of the package would have, too: never far below ‖G‖.
        damping = max(damping, 1e-4 * np.linalg.norm(rows, 2) ** 2)
        if step in STEPS:
            yield step, rows, r, damping
        for _ in range(10):
            change = np.linalg.solve(rows.T @ rows + damping * np.eye(WEIGHTS), rows.T @ r)
            after = residuals(tf.constant(weights - change))[0].numpy()
            if after @ after < r @ r:
                weights, damping = weights - change, damping / 3
                break
            damping *= 8


def shifted(rows: np.ndarray, rhs: np.ndarray, damping: float) -> np.ndarray:
    """Layers by 2 (G - c)/Δ; see the module."""
    matrix = rows.T @ rows + damping * np.eye(len(rhs))
    values, vectors = np.linalg.eigh(matrix)
    chi = (values[-1] + values[0]) / (values[-1] - values[0])
    degree = max(math.ceil(math.acosh(1 / EPSILON) / math.acosh(chi)) - 1, 1)
    at = (2 * values - values[-1] - values[0]) / (values[-1] - values[0])
    # Of the Chebyshev iteration polynomial, as in `damped_polynomial`.
    left = np.cos((degree + 1) * np.arccos(np.clip(at, -1, 1)))
    left = left / math.cosh((degree + 1) * math.acosh(chi))
    query = depth(Dilation(pad(matrix)).gates())
    gap, layers = vectors.T @ rhs, np.zeros(2)
    start = np.linalg.norm(gap)
    while np.linalg.norm(gap) > TOLERANCE * start:
        found = (1 - left) / values * gap
        success = (0.9 / 2 * values[0] * np.linalg.norm(found) / np.linalg.norm(gap)) ** 2
        layers += degree * query * repetitions(success)
        gap = left * gap
    return layers


def methods(encoding: str) -> dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]]:
    """From U, r and λ to layers, by name."""
    common_settings = {"epsilon": EPSILON, "tolerance": TOLERANCE, "encoding": encoding}

    def solved(
        make: Callable[..., Any], solve: Callable[[Any], Any], part: Any = None
    ) -> np.ndarray:
        readout = Recorded(part)
        solution = solve(make("emulator", readout=readout, max_degree=10**6, **common_settings))
        reached = float(solution.residual)
        return readout.layers if reached <= 1.01 * TOLERANCE else np.full(2, math.nan)

    def of_matrix(
        make: Callable[..., Any],
    ) -> Callable[[np.ndarray, np.ndarray, float], np.ndarray]:
        def layers(rows: np.ndarray, r: np.ndarray, damping: float) -> np.ndarray:
            matrix = rows.T @ rows + damping * np.eye(rows.shape[1])
            part = slice(rows.shape[1]) if make is Shortcut else None
            return solved(make, lambda solver: solver.solve(matrix, rows.T @ r), part)

        return layers

    def of_both(rows: np.ndarray, r: np.ndarray, damping: float) -> np.ndarray:
        count, size = rows.shape
        root = math.sqrt(damping)
        matrix = np.block([[root * np.eye(size), rows.T], [rows, -root * np.eye(count)]])
        rhs = np.append(rows.T @ r, np.zeros(count))
        return solved(Shortcut, lambda solver: solver.solve(matrix, rhs), slice(size))

    found = {
        "U, from g": lambda u, r, d: solved(DampedLeastSquares, lambda s: s.solve(u, u.T @ r, d)),
        "U, from r": lambda u, r, d: solved(
            DampedLeastSquares, lambda s: s.solve_residuals(u, r, d)
        ),
        "K, shortcut": of_both,
        "G": of_matrix(QSVT),
        "G, shortcut": of_matrix(Shortcut),
    }
    if encoding == "dilation":
        found["G, shifted"] = lambda u, r, d: shifted(u, u.T @ r, d)
    return found


def main() -> None:
    parser = common.parser(__doc__)
    common.add_output_options(parser, "jacobian")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for encoding in ("dilation", "frobenius"):
        named = methods(encoding)
        heads = "".join(f"{name:>20}" for name in named)
        print(f"\n{encoding}: layers of gates, and amplified\n{'':38}{heads}")
        for case, examples, noise in CASES:
            for step, u, r, damping in systems(examples, noise):
                layers = {name: method(u, r, damping) for name, method in named.items()}
                norm = float(np.linalg.norm(u, 2) ** 2)
                share = float(np.linalg.norm(u.T @ r) / (math.sqrt(norm) * np.linalg.norm(r)))
                rows.append(
                    {
                        "encoding": encoding,
                        "case": case,
                        "step": step,
                        "rows": examples,
                        "condition_number": norm / damping + 1,
                        "gradient_share": share,
                        "layers": {name: float(found[0]) for name, found in layers.items()},
                        "amplified": {name: float(found[1]) for name, found in layers.items()},
                    }
                )
                title = f"{case}, step {step}, κ={norm / damping:.0f}"
                numbers = "".join(f"{a:12.1e} {b:.1e}" for a, b in layers.values())
                print(f"{title:38}{numbers}", flush=True)
    common.save("jacobian", rows, options.json)


if __name__ == "__main__":
    main()
