"""Multiplexed rotations and state preparations that pay only for the angles that matter.

A multiplexed Ry on k controls is a function θ(i) on 2^k bit strings, and its circuit one rotation
per Walsh function (-1)^(u·i), with θ's coefficient as the angle; see `gates.multiplexed_ry`.
Where only some of the θ(i) matter, as the other branches have no amplitude, as many Walsh
functions as there are such i interpolate them, and no other rotation is needed.

Which ones: bit by bit, those that occur in the standard monomials of the set of the i that
matter (Cerlienco & Mureddu 1995, "From algebraic sets to monomial linear bases by means of
combinatorial algorithms", Discrete Mathematics 139). These are closed under leaving out bits,
so they span what the Walsh functions of the same bits span, over the reals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_qnewton.solvers.quantum.gates import Gate, cnot, tree_angles


def kept_ry(
    controls: Sequence[int], target: int, kept: np.ndarray, first_symbol: int
) -> list[Gate]:
    """`gates.multiplexed_ry` with only the rotations of the Walsh functions in `kept`.

    Symbol ``first_symbol + j`` is entry j of `in_gray_order`. CNOTs with the same control that
    meet where rotations are left out cancel.

    Args:
        controls: k wires.
        target: Wire that is rotated.
        kept: bool `[2^k]`, whether the Walsh function u has a rotation.
        first_symbol: Index of the first angle.
    """
    gates: list[Gate] = []
    before = 0
    order = [int(u) for u in in_gray_order(np.arange(len(kept)), kept)]
    for symbol, here in enumerate(order):
        gates += _flips(before ^ here, controls, target)
        gates.append(Gate("ry", (target,), 1.0, first_symbol + symbol))
        before = here
    return gates + _flips(before, controls, target)


def _flips(bits: int, controls: Sequence[int], target: int) -> list[Gate]:
    k = len(controls)
    return [cnot(controls[k - 1 - b], target) for b in range(k) if bits >> b & 1]


def in_gray_order(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The entries of `values` `[2^k]` at the kept Walsh functions, as `kept_ry` takes them."""
    order = np.arange(len(kept))
    order ^= order >> 1
    return values[order[kept[order]]]


def walsh(values: np.ndarray) -> np.ndarray:
    """``Σ_i (-1)^(u·i) values[i]`` along the last axis, whose length is a power of two."""
    out = np.array(values, np.float64)
    half = 1
    while half < out.shape[-1]:
        pairs = out.reshape(*out.shape[:-1], -1, 2, half)
        left, right = pairs[..., 0, :], pairs[..., 1, :]
        out = np.stack([left + right, left - right], -2).reshape(out.shape)
        half *= 2
    return out


def walsh_functions(needed: np.ndarray) -> np.ndarray:
    """The Walsh functions, as many of them, that interpolate values at `needed`: bool `[2^k]`."""
    if len(needed) == 1:
        return needed
    low, high = needed.reshape(2, -1)
    return np.concatenate([walsh_functions(low | high), walsh_functions(low & high)])


def interpolation(values: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Coefficients `[2^k]` on `walsh_functions(needed)` of a function equal to `values` there.

    With the first bit apart, ``f = even ± odd``: where f is known for both of its values so are
    both parts; elsewhere odd is what its own interpolation says, and even is the rest.
    """
    if len(needed) == 1:
        return np.where(needed, values, 0.0)
    (low, high), (needs_low, needs_high) = values.reshape(2, -1), needed.reshape(2, -1)
    both = needs_low & needs_high
    odd = interpolation((low - high) / 2, both)
    at_points = walsh(odd)
    even = np.where(needs_low, low - at_points, high + at_points)
    even = np.where(both, (low + high) / 2, even)
    return np.concatenate([interpolation(even, needs_low | needs_high), odd])


# --- states with zeros ----------------------------------------------------------------------


def kept_preparation(
    controls: Sequence[int], wires: Sequence[int], pattern: np.ndarray, first_symbol: int = 0
) -> list[Gate]:
    """|0…0⟩ on `wires` to the real state number i, where the controls read i.

    The tree of `gates.preparation` without the subtrees that hold only zeros. A state that is all
    zeros may come out as anything.

    Args:
        controls: c wires.
        wires: n wires.
        pattern: bool `[2^c, 2^n]`, where states are not zero.
        first_symbol: Index of the first of `kept_preparation_angles`.
    """
    gates: list[Gate] = []
    for level, needed in enumerate(_inhabited(pattern)):
        kept = walsh_functions(needed)
        gates += kept_ry([*controls, *wires[:level]], wires[level], kept, first_symbol)
        first_symbol += int(np.count_nonzero(kept))
    return gates


def kept_preparation_angles(states: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Angles of `kept_preparation` for real `states` `[2^c, 2^n]`, zero outside `pattern`."""
    out = []
    for angles, needed in zip(tree_angles(states), _inhabited(pattern), strict=True):
        out.append(in_gray_order(interpolation(angles, needed), walsh_functions(needed)))
    return np.concatenate(out)


def _inhabited(pattern: np.ndarray) -> list[np.ndarray]:
    """By level, which nodes of the trees have anything below them."""
    count, size = pattern.shape
    levels = size.bit_length() - 1
    return [pattern.reshape(count << level, -1).any(axis=1) for level in range(levels)]
