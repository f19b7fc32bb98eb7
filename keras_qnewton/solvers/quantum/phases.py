"""From a polynomial to the rotations of quantum signal processing, in NumPy.

Quantum signal processing (Low & Chuang 2017; Gilyén, Su, Low & Wiebe 2018, arXiv:1806.01838,
theorem 3) is the product

    U(x) = e^(i ψ_0 Z) Π_{k=1..d} W(x) e^(i ψ_k Z),    W(x) = [[x, i s], [i s, x]],  s = √(1-x²)

and for every real polynomial f of degree d, of definite parity, with max |f| < 1 on [-1, 1],
there are phases ψ with Im ⟨0|U(x)|0⟩ = f(x). They are found in two steps:

1. Completion. With x = cos θ and z = e^(2iθ), f is the real part on the unit circle of
   ``z^(-d/2) b(z)``, b a polynomial with real coefficients that are the Chebyshev ones, halved
   and mirrored. Its partner a, with ``|a|² + |b|² = 1`` on the circle and no zero inside it,
   is the outer function exp(h) with ``Re h = ½ log(1 - |b|²)``: the analytic half of the
   Fourier series of ½ log(1 - |b|²) (Weiss' algorithm; Alexis, Lin, Mnatsakanyan, Thiele &
   Wang 2024, arXiv:2407.05634). Two FFTs in place of root finding.
2. Layer stripping. ``tan ψ_k = b(0) / a(0)``; taking that rotation off leaves a pair one
   degree lower, ``a ← (a + t b)/√(1+t²)`` and ``b ← (b - t a)/(z √(1+t²))``. For an outer a
   this is numerically stable (Ni, Sarkar, Ying & Lin 2025, "Inverse nonlinear fast Fourier
   transform on SU(2)"). O(d²) flops.
"""

from __future__ import annotations

import math

import numpy as np

from keras_qnewton.solvers.quantum.chebyshev import maximum


def find_phases(coefficients: np.ndarray) -> np.ndarray:
    """Phases ψ `[d + 1]` with ``Im ⟨0|U(x)|0⟩ = f(x)``, in radians.

    Args:
        coefficients: Chebyshev coefficients of f, float64 `[d + 1]`: only even or only odd
            ones, of the parity of d.

    Raises:
        ValueError: If f has mixed parity, or reaches 1 in absolute value on [-1, 1].
    """
    f = np.asarray(coefficients, np.float64)
    if len(f) > 1 and np.any(f[-2::-2] != 0):
        raise ValueError(
            "Argument `coefficients` must be of definite parity, that of the degree. "
            f"Received: coefficients of degree {len(f) - 1} with both even and odd ones"
        )
    largest = maximum(f)
    if not largest < 1:
        raise ValueError(
            "Argument `coefficients` must be of a polynomial below 1 in absolute value on "
            f"[-1, 1]. Received: a polynomial that reaches {largest:.6g}"
        )
    b = _laurent(f)
    return _strip(_complete(b, largest), b)


def _laurent(f: np.ndarray) -> np.ndarray:
    """Coefficients of b, lowest power first: T_j becomes ``(z^j/2 + z^-j/2) / 2``, shifted."""
    degree = len(f) - 1
    b = np.zeros(degree + 1)
    order = np.arange(degree % 2, degree + 1, 2)
    np.add.at(b, (degree - order) // 2, f[order] / 2)
    np.add.at(b, (degree + order) // 2, f[order] / 2)
    return b


def _complete(b: np.ndarray, largest: float) -> np.ndarray:
    """Coefficients of the outer a with ``|a|² + |b|² = 1`` on the unit circle."""
    degree = len(b) - 1
    # The Fourier series of log(1 - |b|²) decays like a power of the distance of its
    # singularities to the circle, about (1 - max|f|) / d.
    needed = 16 * max(degree, 8) * max(1.0, 0.25 / (1 - largest))
    samples = 1 << math.ceil(math.log2(needed))
    log_modulus = 0.5 * np.log1p(-(np.abs(np.fft.fft(b, samples)) ** 2))
    series = np.fft.ifft(log_modulus).real
    analytic = np.zeros(samples)
    analytic[0] = series[0]
    analytic[1 : samples // 2] = 2 * series[1 : samples // 2]
    a: np.ndarray = np.fft.ifft(np.exp(np.fft.fft(analytic))).real[: degree + 1]
    return a


def _strip(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotations of the pair (a, b), one coefficient at a time."""
    tangents = np.empty(len(b))
    for k in range(len(b)):
        t = tangents[k] = b[0] / a[0]
        norm = 1 / math.sqrt(1 + t * t)
        # Each round, a loses its highest and b its lowest coefficient, which are zero.
        a, b = ((a + t * b) * norm)[:-1], ((b - t * a) * norm)[1:]
    return np.arctan(tangents)


def response(phases: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``⟨0|U(x)|0⟩`` at points x in [-1, 1], complex128, by multiplying U(x) out."""
    x = np.asarray(x, np.float64)
    s = 1j * np.sqrt(1 - x * x)
    p = np.full(x.shape, np.exp(1j * phases[0]))
    q = np.zeros(x.shape, complex)
    for phase in phases[1:]:
        turn = np.exp(1j * phase)
        p, q = (p * x + q * s) * turn, (p * s + q * x) / turn
    return p


def reflection_phases(phases: np.ndarray) -> tuple[np.ndarray, float]:
    """The same sequence for a block encoding that is a reflection in place of W.

    A Hermitian block encoding acts on each eigenvalue x as R(x) = [[x, s], [s, -x]], and
    ``W(x) = i e^(-iπ/4 Z) R(x) e^(-iπ/4 Z)``. The quarter turns go into the phases: φ = ψ - π/2,
    plus π/4 at both ends, leaves ``(-i)^d U(x)`` (Gilyén et al. 2018, corollary 8; Martyn, Rossi,
    Tan & Chuang 2021, PRX Quantum 2, 040203, appendix A). For odd d that has turned the imaginary
    part of ⟨0|U|0⟩ into the real one, up to a sign; for even d another quarter turn has to, a
    half of it at each end: φ = ψ - π/2 throughout.

    Args:
        phases: ψ `[d + 1]`.

    Returns:
        φ `[d + 1]` and a sign, so that the product ``e^(i φ_0 Z) Π R(x) e^(i φ_k Z)`` has
        ``Re ⟨0|·|0⟩ = sign · f(x)``.
    """
    degree = len(phases) - 1
    reflected = phases - math.pi / 2
    if degree % 2:
        reflected[0] += math.pi / 4
        reflected[-1] += math.pi / 4
    return reflected, reflection_sign(degree)


def reflection_sign(degree: int) -> float:
    """The sign that `reflection_phases` returns."""
    return 1.0 if degree % 4 < 2 else -1.0
