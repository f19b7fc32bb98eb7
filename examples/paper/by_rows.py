"""A solve of (UᵀU + λI) x = g by the Jacobian's circuit, which encodes U, beside those of UᵀU + λI.

    QSVT, shortcut             the package's circuits of A = UᵀU + λI; the shortcut knows the length
                               of each solution, as nobody who has no search for it does
    Jacobian, from gradient    λ/(σ² + λ) of U's singular values, from |g⟩
    Jacobian, from residuals   the first run by σ/(σ² + λ) from |c⟩ with g = Uᵀc, refined from |g⟩

Each is priced until a relative residual of η = `TOLERANCE` is reached:

    layers        Σ_k layers of run k / p_k          runs and refinements, p_k of success
    layers_read   Σ_k layers of run k · N'/(4 ε₀² p_k)

The second is how `Shots` reads N' amplitudes, in ⌈ln η/ln ε₀⌉ runs (`scheduling/reading.py`). From
the second run on the right-hand side is A e, e noise without a direction.

Runs, p_k and refinements are those that a simulation finds. None is made. Nothing of them depends
on a basis, so that a polynomial's values at A's eigenvalues say all: in closed form, but for the
shortcut's, which are those of Clenshaw's recurrence.

Encodings are trees of α = ‖A‖_F and ‖U‖_F. They hold all N² or r N numbers: loading these is
counted, as layers of rotations. Preparing |g⟩ is counted in the shortcut alone, whose queries hold
it. Preparing |g⟩ or |c⟩ as the start of a run is not.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.scheduling import CGTime, LUTime, SolverTime, calibration
from keras_qnewton.scheduling.reading import LARGEST_ERROR
from keras_qnewton.solvers import QSVT, Cholesky, Shortcut
from keras_qnewton.solvers.quantum.chebyshev import clenshaw
from keras_qnewton.solvers.quantum.damped_depth import Shape, damped_depth
from keras_qnewton.solvers.quantum.encodings import padded_qubits
from keras_qnewton.solvers.quantum.readout import refining_shots
from keras_qnewton.solvers.quantum.refined import refine
from keras_qnewton.solvers.quantum.transforms import (
    Transform,
    bucket,
    damped,
    damped_from_residuals,
    inversion,
    kernel_reflection,
)
from keras_qnewton.types import Solution

ENCODING = "frobenius"
# Of a run, and of the solution.
EPSILON, TOLERANCE = 1e-3, 1e-6
CIRCUITS = ("QSVT", "shortcut", "Jacobian, from gradient", "Jacobian, from residuals")
_MAX_REFINEMENTS = 10
# Of Woodbury's seconds, and solves in each.
_READINGS, _SOLVES = 5, 10


class System(NamedTuple):
    """(UᵀU + λI) x = g in UᵀU's eigenvectors.

    Attributes:
        squares: Eigenvalues σ² of UᵀU, at least 0, `[N]`.
        gradient: g, `[N]`.
        damping: λ, positive.
        rows: r.
        residuals: ‖c‖ of the c `[r]` with g = Uᵀc; None where none is known.
    """

    squares: np.ndarray
    gradient: np.ndarray
    damping: float
    rows: int
    residuals: float | None = None

    @classmethod
    def of(
        cls,
        matrix: np.ndarray,
        gradient: np.ndarray,
        damping: float,
        rows: int,
        residuals: float | None = None,
    ) -> System:
        """Of UᵀU `[N, N]` and g `[N]` as they are."""
        values, vectors = np.linalg.eigh(matrix)
        return cls(np.maximum(values, 0.0), vectors.T @ gradient, damping, rows, residuals)

    @property
    def values(self) -> np.ndarray:
        """Eigenvalues of UᵀU + λI, `[N]`."""
        return self.squares + self.damping

    @property
    def condition_number(self) -> float:
        return float(self.values.max() / self.values.min())

    @property
    def root(self) -> float:
        """μ = √λ/‖U‖_F."""
        return math.sqrt(self.damping / float(np.sum(self.squares)))


class _Diagonal(NamedTuple):
    """A matrix in its eigenvectors, as `refine` multiplies by it."""

    values: np.ndarray

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.values[:, None] * other if other.ndim == 2 else self.values * other
        return out


class Run(NamedTuple):
    """What a run gives.

    Attributes:
        x: About A⁻¹ times its right-hand side, `[N]`.
        success: p.
        layers: Of its circuit.
    """

    x: np.ndarray
    success: float
    layers: float


class Circuit(NamedTuple):
    """One way to solve a system.

    Attributes:
        run: From a right-hand side `[N]` and the run's number to what it gives.
        degree: Of the first run.
        alpha: Of the encoding.
        amplitudes: That are read.
        of_noise: p of a run that solves for A e, e noise without a direction.
    """

    run: Callable[[np.ndarray, int], Run]
    degree: int
    alpha: float
    amplitudes: int
    of_noise: float


def priced(system: System) -> dict[str, dict[str, Any]]:
    """By circuit: "degree", "alpha", "success" of the first run, "runs", "residual", "layers" until
    the solution's states are there, and "layers_read" until it is read.

    None of layers where the tolerance is not reached, and no residuals where none are known.
    """
    made = {
        "QSVT": _qsvt(system),
        "shortcut": _shortcut(system),
        "Jacobian, from gradient": _jacobian(system, from_residuals=False),
    }
    if system.residuals is not None:
        made["Jacobian, from residuals"] = _jacobian(system, from_residuals=True)
    return {name: _price(system, circuit) for name, circuit in made.items()}


def _price(system: System, circuit: Circuit) -> dict[str, Any]:
    runs: list[Run] = []

    def run(gap: np.ndarray, number: int) -> np.ndarray:
        runs.append(circuit.run(gap, number))
        return runs[-1].x

    matrix, g = _Diagonal(system.values), system.gradient
    found = refine(matrix, g, run, TOLERANCE, _MAX_REFINEMENTS)
    residual = float(np.linalg.norm(matrix @ found.x - g) / np.linalg.norm(g))
    reached = residual <= TOLERANCE
    readings = math.ceil(math.log(TOLERANCE) / math.log(LARGEST_ERROR))

    def read(layers: float, success: float) -> float:
        return layers * refining_shots(circuit.amplitudes, success, LARGEST_ERROR)

    once, again = read(runs[0].layers, runs[0].success), read(runs[-1].layers, circuit.of_noise)
    return {
        "degree": circuit.degree,
        "alpha": circuit.alpha,
        "success": runs[0].success,
        "runs": len(runs),
        "residual": residual,
        "layers": sum(r.layers / r.success for r in runs) if reached else None,
        "layers_read": once + (readings - 1) * again if reached else None,
    }


def _qsvt(system: System) -> Circuit:
    values, size = system.values, len(system.values)
    alpha = _frobenius(values)
    plan = inversion(bucket(alpha / values.min()), EPSILON)
    solver = QSVT("emulator", ENCODING, EPSILON, max_degree=10**9)
    layers = float(
        solver.circuit_depth(size, system.condition_number, size, alpha=alpha / values.max())
    )
    of = plan.scale * plan.polynomial.at(values / alpha)

    def run(gap: np.ndarray, number: int) -> Run:
        del number
        out = of * gap / np.linalg.norm(gap)
        x = out * (float(np.linalg.norm(gap)) / (plan.scale * alpha))
        return Run(x, float(out @ out), layers)

    noise = size * (plan.scale * alpha) ** 2 / float(values @ values)
    return Circuit(run, plan.degree, alpha, 1 << padded_qubits(size), min(noise, 1.0))


def _frobenius(values: np.ndarray) -> float:
    """α of a definite matrix that is padded by its smallest eigenvalue, as circuits pad."""
    more = (1 << padded_qubits(len(values))) - len(values)
    return math.sqrt(float(values @ values) + more * float(values.min()) ** 2)


def _shortcut(system: System) -> Circuit:
    values, size = system.values, len(system.values)
    solver = Shortcut("emulator", ENCODING, EPSILON, max_degree=10**9)

    def planned(gap: np.ndarray) -> tuple[np.ndarray, float, Transform]:
        """Eigenvalues of A ⊕ 1/T, α, and the reflection, T the very length."""
        corner = np.linalg.norm(gap) / np.linalg.norm(gap / values)
        larger = np.append(values, corner)
        alpha = _frobenius(larger)
        return larger, alpha, kernel_reflection(alpha / values.min(), EPSILON / math.sqrt(2))

    def run(gap: np.ndarray, number: int) -> Run:
        del number
        larger, alpha, plan = planned(gap)
        side = np.append(gap / np.linalg.norm(gap), 1.0) / math.sqrt(2)
        scaled = larger / alpha
        squares, along, start = scaled**2, scaled * side, np.append(np.zeros(size), 1.0)

        def doubled(v: np.ndarray) -> np.ndarray:
            """2 MᵀM - I of M = (I - |b'⟩⟨b'|) (A ⊕ 1/T)/α: T_2k(x) = T_k(2x² - 1)."""
            return 2 * (squares * v - along * (along @ v)) - v

        direction = plan.scale * clenshaw(plan.coefficients[::2], doubled, start)[:size]
        x = direction * float(gap @ gap) / float((values * direction) @ gap)
        factor = alpha / values.max()
        depth = solver.circuit_depth(size, system.condition_number, size, alpha=factor)
        return Run(x, float(direction @ direction), float(depth))

    _, alpha, plan = planned(system.gradient)
    amplitudes = 1 << padded_qubits(size + 1)
    return Circuit(run, plan.degree, alpha, amplitudes, Shortcut.success_probability)


def _jacobian(system: System, from_residuals: bool) -> Circuit:
    values, size, root = system.values, len(system.values), system.root
    sigma, alpha = np.sqrt(system.squares), math.sqrt(float(np.sum(system.squares)))
    even, odd = damped(root, EPSILON), damped_from_residuals(root, EPSILON)
    layers = [
        float(damped_depth(ENCODING, Shape(system.rows, size), root, EPSILON, start))
        for start in (False, True)
    ]
    of_gradient = even.scale * even.polynomial.at(sigma / alpha)

    def run(gap: np.ndarray, number: int) -> Run:
        if from_residuals and number == 0:
            length = float(system.residuals or 0.0)
            # x p(x) of c's share in a row's direction, (g, v)/σ.
            out = odd.scale / even.scale * of_gradient * gap / (alpha * length)
            x = out * (length * alpha / (odd.scale * system.damping))
            return Run(x, float(out @ out), layers[1])
        length = float(np.linalg.norm(gap))
        out = of_gradient * gap / length
        x = out * (length / (even.scale * system.damping))
        return Run(x, float(out @ out), layers[0])

    noise = size * (even.scale * system.damping) ** 2 / float(values @ values)
    degree = (odd if from_residuals else even).degree
    amplitudes = 1 << padded_qubits(max(system.rows, size))
    return Circuit(run, degree, alpha, amplitudes, min(noise, 1.0))


# --- beside classical solvers -----------------------------------------------------------------


def classical(size: int, condition_number: float, rows: int) -> dict[str, float]:
    """Seconds of a solve on this machine, by route.

    Forming UᵀU is left out, as in all of the study. Woodbury's are of U Uᵀ, its factorisation, and
    x.
    """
    return {
        "lu": float(LUTime().seconds(size)),
        "cholesky": float(SolverTime("cholesky").seconds(size)),
        "cg": float(CGTime(TOLERANCE).seconds(size, condition_number, size)),
        "woodbury": _woodbury_seconds(rows, size),
    }


def woodbury(u: tf.Tensor, g: tf.Tensor) -> Solution:
    """(UᵀU + I)⁻¹ g = g - Uᵀ (UUᵀ + I)⁻¹ U g."""
    gram = tf.matmul(u, u, transpose_b=True) + tf.eye(u.shape[0], dtype=u.dtype)
    found = Cholesky(refinements=0).solve(gram, tf.linalg.matvec(u, g))
    return dataclasses.replace(found, x=g - tf.linalg.matvec(u, found.x, transpose_a=True))


@functools.cache
def _woodbury_seconds(rows: int, size: int) -> float:
    """Measured as `SolverTime` is; on numbers that are random, as the rows' own do not matter."""
    rng = np.random.default_rng(0)
    u = tf.constant(rng.normal(size=(rows, size)) / math.sqrt(size))
    g = tf.constant(rng.normal(size=size))
    run, seconds = tf.function(calibration.repeated, autograph=False), []
    for _ in range(1 + _READINGS):
        start = time.perf_counter()
        run(woodbury, u, g, tf.constant(_SOLVES)).numpy()
        seconds.append((time.perf_counter() - start) / _SOLVES)
    # The first one traces. Whatever else the machine does can only add time.
    return min(seconds[1:])


# --- of a run ---------------------------------------------------------------------------------


def record(system: System) -> dict[str, Any]:
    """What a probe keeps of a block: "rows", "classical" seconds by route, and "circuits"."""
    size, kappa = len(system.values), system.condition_number
    return {
        "rows": system.rows,
        "classical": classical(size, kappa, system.rows),
        "circuits": priced(system),
    }


def by_block(probes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A record a block and circuit, medians over probes; empty for a curvature without rows.

    "layers" and "layers_read" as in `priced`. "break_even" and "break_even_read" are the seconds
    that a layer may take for the circuit to take as long as LU does, and with "_best" as the best
    classical route, whose name is "best". None where a circuit does not reach the tolerance.
    """
    out = []
    of_rows = [probe for probe in probes if "circuits" in probe]
    for block in dict.fromkeys(probe["block"] for probe in of_rows):
        own = [probe for probe in of_rows if probe["block"] == block]
        seconds = {
            route: statistics.median(probe["classical"][route] for probe in own)
            for route in own[0]["classical"]
        }
        best = min(seconds, key=seconds.__getitem__)
        about = {
            "block": block,
            "size": own[0]["size"],
            "rows": own[0]["rows"],
            "kappa": _median([probe["kappa"] for probe in own]),
            "best": best,
        }
        for name in own[0]["circuits"]:
            found = [probe["circuits"][name] for probe in own]
            row: dict[str, Any] = {"circuit": name}
            for key in ("degree", "success", "runs", "layers", "layers_read"):
                row[key] = _median([one[key] for one in found])
            for end in ("", "_read"):
                layers = row[f"layers{end}"]
                for of, route in (("", "lu"), ("_best", best)):
                    row[f"break_even{end}{of}"] = seconds[route] / layers if layers else None
            out.append(about | row)
    return out


def _median(numbers: Sequence[float | None]) -> float | None:
    """None if one of them is."""
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if len(known) == len(numbers) else None
