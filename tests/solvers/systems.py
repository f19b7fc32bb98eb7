"""Random symmetric systems of known conditioning, for every solver's tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Not 1: a solver that forgets the norm must fail.
NORM = 3.7


def symmetric(
    size: int,
    condition_number: float = 10.0,
    definite: bool = True,
    seed: int = 0,
    dtype: str = "float64",
    norm: float = NORM,
) -> np.ndarray:
    """A symmetric `[size, size]` matrix with the given 2-norm and condition number."""
    rng = np.random.default_rng([seed, size, int(condition_number), int(definite)])
    values = np.exp(-np.log(condition_number) * rng.uniform(size=size))
    values[0] = 1.0
    values[-1] = 1.0 if size == 1 else 1 / condition_number
    if not definite:
        # Both signs, at both ends of the spectrum.
        values[::2] *= -1
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = (vectors * values) @ vectors.T * norm
    return ((matrix + matrix.T) / 2).astype(dtype)


def vector(size: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng([seed, size, 7]).normal(size=size).astype(dtype)


def relative_error(x: ArrayLike, expected: ArrayLike) -> float:
    x, expected = np.asarray(x, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(x - expected) / np.linalg.norm(expected))
