r"""A real vector from measured counts: its magnitudes, its signs, and how far off they may be.

A vector x of n qubits is measured in n + 1 settings: as it is, and with a Hadamard gate on one
qubit after the other. Setting k gives, up to noise, the magnitudes

    a_k = |R_k x|,    R_0 = I,  R_k = H on qubit k:  (x_i ± x_j)/√2 for neighbours i, j

in the hypercube, and so the products x_i x_j along its edges. The square root of a count over the
number of shots M_k has variance 1/(4 M_k), whatever its mean (Bartlett 1936). With the signs of
R_k x known, all settings together are a linear least-squares problem with the solution

    x = Σ_k M_k R_kᵀ (sign(R_k x) a_k) / Σ_k M_k,

of error √(N / 4M p) relative to |x| = √p, p the success probability: the norm is estimated as well
as the direction. The signs start from a maximum spanning tree of the hypercube, weighted by the
products, are improved by flipping, and their uncertainty is known from the counts.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np

from keras_qnewton.solvers.quantum.gates import hadamard

# Successes for each amplitude: below the first, nothing is known; below the second, little.
_MIN_SUCCESSES = 1
_CONFIDENT_SUCCESSES = 10
# An expected error above these (of signs alone; altogether) is not to be relied on.
_SIGN_ERROR = 0.1
_ERROR = 0.5
_FITS = 30


class Reading(NamedTuple):
    """One circuit, read.

    Attributes:
        amplitudes: Real amplitudes of the system register, float64 `[2^n]`, on the outcome
            |0⟩ of signal and ancilla qubits; not normalised. NaN if too few runs succeeded.
        success_probability: Of that outcome.
        operations: Of the circuit, as it was run; None if the backend does not say.
        error: Expected ``||error|| / ||amplitudes||``, of the readout alone.
        confident: False where the error is large, or signs are uncertain: then neither
            `amplitudes` nor `error` are to be relied on.
        shots: How often the circuit was measured; 0 for a simulator's amplitudes.
    """

    amplitudes: np.ndarray
    success_probability: float
    operations: int | None
    error: float
    confident: bool
    shots: int


def tomography(counts: np.ndarray, shots: np.ndarray) -> Reading:
    """A real vector, up to its global sign, from the counts of all settings.

    Args:
        counts: Successes by index, int64 `[n + 1, N]`: first as it is, then with H on qubit 0,
            the most significant, to n - 1.
        shots: Runs in each setting, failures included, `[n + 1]`.
    """
    total, successes = int(shots.sum()), int(counts.sum())
    size = counts.shape[1]
    if successes < _MIN_SUCCESSES * size or np.any(shots == 0):
        nothing = np.full(size, np.nan)
        return Reading(nothing, successes / total, None, math.inf, False, total)
    roots = np.sqrt(counts / shots[:, None])
    signs, masks = _spanning_tree(roots)
    x = _fit(roots[0] * signs, roots, shots)
    for _ in range(size):
        excess = _excess(x, masks, roots, shots)
        worst = int(np.argmin(excess))
        if not excess[worst] < 0:
            break
        x = _fit(np.where(masks[worst], -x, x), roots, shots)
    norm2 = float(x @ x)
    statistical = _variance(x, counts, roots, shots) / norm2
    weights = np.minimum(share := masks @ np.square(x) / norm2, 1 - share)
    # Two sign patterns are told apart by the difference of their χ²: with nothing known before,
    # the odds of the other one are exp(-difference / 2), and a flip moves x by 2 √weight.
    wrong = 0.5 * (1 - np.tanh(np.maximum(_excess(x, masks, roots, shots), 0) / 4))
    sign_error2 = float(4 * weights.clip(0) @ wrong)
    error = math.sqrt(statistical + sign_error2)
    confident = (
        successes >= _CONFIDENT_SUCCESSES * size
        and error <= _ERROR
        and math.sqrt(sign_error2) <= _SIGN_ERROR
    )
    return Reading(x, successes / total, None, error, confident, total)


def doubted(reading: Reading, overlap: float, length: float) -> Reading:
    """The reading with the risk that the sign of its `overlap` with a vector was the errors'."""
    norm = float(np.linalg.norm(reading.amplitudes))
    if not norm > 0 or not math.isfinite(reading.error):
        return reading
    spread = reading.error * norm / math.sqrt(len(reading.amplitudes)) * length
    wrong = 0.5 * math.erfc(overlap / (math.sqrt(2) * spread)) if spread > 0 else 0.0
    return reading._replace(
        error=math.sqrt(reading.error**2 + 4 * wrong),
        confident=reading.confident and 2 * math.sqrt(wrong) <= _SIGN_ERROR,
    )


def _settings(x: np.ndarray) -> np.ndarray:
    """R_k x for all k: ``[n + 1, N]``."""
    n = len(x).bit_length() - 1
    return np.stack([x, *(hadamard(x, qubit) for qubit in range(n))])


def _fit(x: np.ndarray, roots: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """Least squares for magnitudes `roots`, by alternating with the signs of R_k x."""
    weights = shots / shots.sum()
    signs = np.zeros_like(roots)
    for _ in range(_FITS):
        images = _settings(x)
        changed = np.where(images >= 0, 1.0, -1.0)
        if np.array_equal(changed, signs):
            break
        signs = changed
        signed = signs * roots * weights[:, None]
        x = signed[0] + sum(hadamard(signed[k + 1], k) for k in range(len(signed) - 1))
    return x


def _spanning_tree(roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signs from the maximum spanning tree of the products' magnitudes (Prim 1957).

    Returns:
        Signs ±1 `[N]`, the largest entry's positive; and sets of entries that may have to be
        flipped together, bool `[C, N]`: each alone, and each with all that hangs on it.
    """
    settings, size = roots.shape
    squares = np.square(roots)
    index = np.arange(size)
    bits = [1 << (settings - 2 - k) for k in range(settings - 1)]
    products = np.empty((settings - 1, size))
    for k, bit in enumerate(bits):
        # ((x_i + x_j)² - (x_i - x_j)²) / 4, at i and at j.
        products[k] = (squares[k + 1, index & ~bit] - squares[k + 1, index | bit]) / 2
    start = int(np.argmax(roots[0]))
    signs, parent = np.zeros(size), np.full(size, -1)
    order: list[int] = []
    queue = [(0.0, start, start, 1.0)]
    while len(order) < size:
        _, i, source, sign = heapq.heappop(queue)
        if signs[i]:
            continue
        signs[i], parent[i] = sign, source
        order.append(i)
        for k, bit in enumerate(bits):
            j, product = i ^ bit, float(products[k, i])
            if not signs[j]:
                heapq.heappush(queue, (-abs(product), j, i, sign if product >= 0 else -sign))
    branches = np.eye(size, dtype=bool)
    for i in reversed(order[1:]):
        branches[parent[i]] |= branches[i]
    branches = np.delete(branches, start, axis=0)
    larger = branches[branches.sum(1) > 1]
    return signs, np.concatenate([np.eye(size, dtype=bool), larger])


def _excess(x: np.ndarray, masks: np.ndarray, roots: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """By how much χ² grows when the entries of each mask change their sign: `[C]`.

    That swaps |x_i + x_j| and |x_i - x_j| on each edge of the hypercube that the mask cuts.
    """
    magnitudes = np.abs(_settings(x))
    index = np.arange(len(x))
    settings = len(roots)
    out = np.zeros(len(masks))
    for k in range(1, settings):
        bit = 1 << (settings - 1 - k)
        low = index[(index & bit) == 0]
        contrast = magnitudes[k, low] - magnitudes[k, low | bit]
        gain = 8 * shots[k] * contrast * (roots[k, low] - roots[k, low | bit])
        out += (masks[:, low] ^ masks[:, low | bit]) @ gain
    return out


def _variance(x: np.ndarray, counts: np.ndarray, roots: np.ndarray, shots: np.ndarray) -> float:
    """Expected ``||error||²`` of `_fit` with the right signs.

    Outcomes that never came are taken to be impossible. If the counts scatter more than they
    should around any real vector (noise: the state is mixed), the variance is scaled up by as
    much (Birge 1932).
    """
    seen = counts > 0
    each = (seen.sum(1) - np.square(roots).sum(1)) / (4 * shots)
    variance = float(np.square(shots / shots.sum()) @ each)
    chi2 = float(4 * shots @ np.square(np.abs(_settings(x)) - roots).sum(1))
    freedom = int(seen.sum() - seen.any(0).sum())
    return variance * max(1.0, chi2 / max(freedom, 1))
