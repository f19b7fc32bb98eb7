"""The discrete adiabatic theorem as a linear solver: a walk, and a filter after it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_qnewton.arguments import check_count, check_number
from keras_qnewton.registry import register
from keras_qnewton.solvers.quantum.chebyshev import clenshaw
from keras_qnewton.solvers.quantum.encodings import Dilation, pad, padded_qubits
from keras_qnewton.solvers.quantum.reference import Prepared, ReferenceSolver

# Exponent of the schedule; Costa et al., equation 5, allow any in (1, 2).
_SCHEDULE = 1.5


class Walk(NamedTuple):
    """A matrix made ready to walk.

    Attributes:
        matrix: A/α, `[2^n, 2^n]`.
        alpha: α = ||A||.
        unitary: Its dilation `[2^(n+1), 2^(n+1)]`.
        condition_number: κ.
        steps: T, an even number.
        half_degree: l, half the filter's degree.
    """

    matrix: np.ndarray
    alpha: float
    unitary: np.ndarray
    condition_number: float
    steps: int
    half_degree: int


@register("solver", "adiabatic_walk")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class AdiabaticWalk(ReferenceSolver[Walk]):
    """``A x = b`` by a discrete adiabatic walk. **Experimental**: matrices, not yet a circuit.

    Costa, An, Sanders, Su, Babbush & Berry 2022, arXiv:2111.08152, section III: T walk operators
    of a block encoding of H(s), whose state of energy 0 moves from |b⟩ to the direction of
    A^-1 b as s goes from 0 to 1; T grows like κ, without a logarithm. Then Lin & Tong's filter
    (2020, arXiv:1910.14596, section 3), an even polynomial of H(1) that keeps energy 0 and
    suppresses the gap: what the walk lost becomes a failure of the measurement, not an error.
    The state is walked by the products of the operators that a circuit would have gates for.

    It gives a direction. Norm and sign are those that make ``||A x - b||`` smallest, from a
    classical product with A. Fidelity of the walk alone on 60 random systems of 2 to 8 unknowns,
    median: T=10κ: 0.994 (κ=2), 0.968 (10), 0.939 (50); T=20κ: 0.998, 0.996, 0.993. Largest error
    of x after the filter, T=10κ: 4e-7, 4e-6, 1.1e-5.

    Eagerly, `details` holds "qubits", "condition_number", "steps", "filter_degree",
    "success_probability" (of walk and filter, first run), "queries" (uses of A's encoding, all
    runs) and "refinements". In a graph, see `inexact.InexactSolver`.

    Args:
        steps_per_condition: T/κ.
        epsilon: Largest weight that the filter leaves to any state in the gap.
        max_steps: Limit of T; a matrix of κ beyond it is refused.
        tolerance: See `inexact.InexactSolver`.
        max_refinements: See `inexact.InexactSolver`.

    Raises:
        ValueError: For arguments out of range.
    """

    name = "adiabatic_walk"

    def __init__(
        self,
        steps_per_condition: float = 10.0,
        epsilon: float = 1e-3,
        max_steps: int = 20_000,
        tolerance: float = 1e-12,
        max_refinements: int = 10,
    ):
        super().__init__(tolerance, max_refinements)
        self.steps_per_condition = check_number(
            "steps_per_condition", steps_per_condition, "a positive number"
        )
        self.epsilon = check_number("epsilon", epsilon, "between 0 and 1", most=1.0, ends="()")
        self.max_steps = check_count("max_steps", max_steps, least=2)

    def qubits(self, size: int) -> int:
        """Five beside the system: signal of the filter, flag, A(s)'s, two of block encodings."""
        return 5 + padded_qubits(size)

    @property
    def max_condition_number(self) -> float:
        """``max_steps / steps_per_condition``, at least 1."""
        return max(1.0, self.max_steps / self.steps_per_condition)

    def _encode(self, matrix: np.ndarray) -> Prepared[Walk]:
        encoding = Dilation(pad(matrix))
        kappa = encoding.condition_number
        steps = 2 * max(1, math.ceil(self.steps_per_condition * kappa / 2))
        # 2 exp(-√2 l/κ) bounds the filter in the gap (Lin & Tong, lemma 2).
        half = max(1, math.ceil(kappa * math.log(2 / self.epsilon) / math.sqrt(2)))
        data = Walk(
            encoding.matrix / encoding.alpha,
            encoding.alpha,
            encoding.unitary(),
            kappa,
            steps,
            half,
        )
        details = {
            "qubits": self.qubits(len(matrix)),
            "condition_number": kappa,
            "steps": steps,
            "filter_degree": 2 * half,
        }
        return Prepared(data, details)

    def _apply(self, data: Walk, state: np.ndarray) -> tuple[np.ndarray, float, int]:
        success = filtered(data, state, walk(data, state))
        direction = success[0] + success[1]
        image = data.matrix @ direction
        x = direction * ((image @ state) / (image @ image) / data.alpha)
        return x, float(np.sum(success**2)), data.steps + 2 * data.half_degree

    def get_config(self) -> dict[str, Any]:
        return {
            "steps_per_condition": self.steps_per_condition,
            "epsilon": self.epsilon,
            "max_steps": self.max_steps,
            **super().get_config(),
        }


def schedule(s: float, condition_number: float) -> float:
    """f(s) from 0 to 1, slow where the gap of H is small (Costa et al., equation 5)."""
    if condition_number <= 1 + 1e-9:
        return s
    p = _SCHEDULE
    grown = 1 + s * (condition_number ** (p - 1) - 1)
    return condition_number / (condition_number - 1) * (1 - grown ** (1 / (1 - p)))


def walk(data: Walk, state: np.ndarray) -> np.ndarray:
    r"""The walk's state where all ancillas are |0⟩: `[2, 2^n]`, not normalised.

    With f = f(s), |b'⟩ = |+⟩|b⟩ and Q = I - |b'⟩⟨b'|,

        A(f) = (1 - f) Z ⊗ I + f X ⊗ A,        H(s) = [[0,      A(f) Q],
                                                       [Q A(f), 0     ]]

    has the state A(f)^-1 |b'⟩ of energy 0. Blocks of reflections: Q of ``Ĥ c-R Ĥ`` with
    R = I - 2|b'⟩⟨b'|, and A(f) / √((1-f)² + f²) of the same with A's dilation in the place of A,
    since the two terms anticommute. A step is the reflection about the ancillas' |0⟩ after
    the encoding of H(s). States of energy 0 turn by ±90° a step: after an even number, they
    are back where the ancillas are |0⟩.

    Args:
        data: The matrix.
        state: b, a unit vector `[2^n]`.
    """
    size = len(state)
    both = np.stack([state, state]) / math.sqrt(2)
    # Axes: flag, ancilla of Q, Z and X of A(f), ancilla of A, system.
    psi = np.zeros((2, 2, 2, 2, size))
    psi[0, 0, :, 0] = both * [[1], [-1]]  # Z |b'⟩

    def project(psi: np.ndarray) -> None:
        """Q's encoding where the flag is 1, in place: (I + Ĥ Z Ĥ)/2 + R (I - Ĥ Z Ĥ)/2."""
        gap = psi[1, 0] - psi[1, 1]
        overlap = np.einsum("zan,zn->a", gap, both)
        change = overlap[None, :, None] * both[:, None, :]
        psi[1, 0] -= change
        psi[1, 1] += change

    for k in range(1, data.steps + 1):
        f = schedule(k / data.steps, data.condition_number)
        norm = math.hypot(1 - f, f)
        project(psi)
        encoded = (psi.reshape(8, 2 * size) @ data.unitary.T).reshape(psi.shape)
        moved = (f / norm) * encoded[:, :, ::-1]
        moved[:, :, 0] += (1 - f) / norm * psi[:, :, 0]
        moved[:, :, 1] -= (1 - f) / norm * psi[:, :, 1]
        moved = moved[::-1].copy()
        project(moved)
        psi = -moved
        psi[:, 0, :, 0] *= -1
    return psi[0, 0, :, 0]


def filtered(data: Walk, state: np.ndarray, walked: np.ndarray) -> np.ndarray:
    """Lin & Tong's filter of H(1) on `walked` `[2, 2^n]`, where the flag is 0.

    ``T_l(-1 + 2 (H² - Δ²)/(1 - Δ²)) / T_l(-1 - 2 Δ²/(1 - Δ²))``, Δ = 1/κ the gap: 1 at energy 0.
    """
    both = np.stack([state, state]) / math.sqrt(2)
    square = min(1 / data.condition_number**2, 1 - 1e-9)
    at_zero = -1 - 2 * square / (1 - square)

    def multiply(v: np.ndarray) -> np.ndarray:
        once = v[::-1] @ data.matrix
        once = once - np.sum(once * both) * both
        twice = once[::-1] @ data.matrix
        return at_zero * v + 2 / (1 - square) * twice

    series = np.zeros(data.half_degree + 1)
    # T_l at a number below -1, in hyperbolic form.
    grown = math.acosh(-at_zero) * data.half_degree
    series[-1] = (-1) ** data.half_degree / math.cosh(grown)
    return clenshaw(series, multiply, walked)
