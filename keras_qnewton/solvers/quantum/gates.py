"""Circuits as plain data: encodings write them, and every backend translates them.

A circuit is a list of `Gate`s on wires numbered from 0. Angles are numbers, or multiples of entries
of a vector: circuits of the same shape then differ in that vector alone, and a backend keeps what
it made of the list (TensorFlow Quantum: a serialised template) and feeds it values.

Index bits: where wires form a register, the first is the most significant bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Rotations exp(-i θ P / 2), with P = Y, Z, Z⊗Z; and gates without an angle, their own inverses.
ROTATIONS = ("ry", "rz", "zz")
FIXED = ("h", "x", "z", "swap")


class Gate(NamedTuple):
    """One gate.

    Attributes:
        kind: One of `ROTATIONS` or `FIXED`.
        qubits: The wire it acts on; two for "zz" and "swap".
        angle: θ in radians; with a `symbol`, the factor by which that is multiplied.
        symbol: Index into the vector of angles, or None.
        controls: Wires that control it.
        values: 0 or 1 for each control: on which of its values the gate acts.
    """

    kind: str
    qubits: tuple[int, ...]
    angle: float = 0.0
    symbol: int | None = None
    controls: tuple[int, ...] = ()
    values: tuple[int, ...] = ()


def cnot(control: int, target: int) -> Gate:
    """X on `target` where `control` is 1."""
    return Gate("x", (target,), controls=(control,), values=(1,))


def inverse(gates: Sequence[Gate]) -> list[Gate]:
    """The gates that undo these."""
    return [gate._replace(angle=-gate.angle) for gate in reversed(gates)]


def moved(gates: Sequence[Gate], wires: Sequence[int], first_symbol: int = 0) -> list[Gate]:
    """The same gates with wire w at ``wires[w]``, and symbols counted from `first_symbol`."""
    return [
        gate._replace(
            qubits=tuple(wires[q] for q in gate.qubits),
            controls=tuple(wires[q] for q in gate.controls),
            symbol=None if gate.symbol is None else gate.symbol + first_symbol,
        )
        for gate in gates
    ]


def angle_of(gate: Gate, angles: np.ndarray) -> float:
    """θ in radians."""
    return gate.angle if gate.symbol is None else gate.angle * float(angles[gate.symbol])


# --- multiplexed rotations ------------------------------------------------------------------


def multiplexed_ry(
    controls: Sequence[int], target: int, first_symbol: int, factor: float = 1.0
) -> list[Gate]:
    """Ry(θ_i) on `target` where the controls read i: 2^k rotations and as many CNOTs.

    Möttönen, Vartiainen, Bergholm & Salomaa 2004, arXiv:quant-ph/0404089, section II, in Gray code
    order. Symbol ``first_symbol + j`` is the j-th entry of `multiplexed_angles`.
    """
    k = len(controls)
    if k == 0:
        return [Gate("ry", (target,), factor, first_symbol)]
    gates = []
    for i in range(1 << k):
        gates.append(Gate("ry", (target,), factor, first_symbol + i))
        # The bit in which the Gray codes of i and i + 1 differ; at the end, back to 0.
        bit = ((i + 1) & -(i + 1)).bit_length() - 1 if i < (1 << k) - 1 else k - 1
        gates.append(cnot(controls[k - 1 - bit], target))
    return gates


def multiplexed_angles(angles: np.ndarray) -> np.ndarray:
    """The angles of `multiplexed_ry`'s rotations, for θ `[2^k]`: a Walsh transform."""
    out = np.array(angles, np.float64)
    count, half = len(out), 1
    while half < count:
        pairs = out.reshape(-1, 2, half)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
        half *= 2
    order = np.arange(count)
    return out[order ^ (order >> 1)] / count


# --- real state vectors ---------------------------------------------------------------------


def preparation(wires: Sequence[int], first_symbol: int = 0) -> list[Gate]:
    """|0…0⟩ to a real state, by a tree of rotations: 2^n - 1 symbols, `preparation_angles`."""
    gates: list[Gate] = []
    for level, wire in enumerate(wires):
        gates += multiplexed_ry(wires[:level], wire, first_symbol + (1 << level) - 1)
    return gates


def preparation_angles(state: np.ndarray) -> np.ndarray:
    """Angles of `preparation` for the real unit vector `state` `[2^n]`: ``[2^n - 1]``."""
    return np.concatenate([multiplexed_angles(level) for level in tree_angles(state)])


def tree_angles(states: np.ndarray) -> list[np.ndarray]:
    """By level, the angle 2 atan2 of each subtree's halves: their norms, at the leaves signed.

    For one state `[2^n]`, or states `[m, 2^n]` whose trees follow one another at each level.
    """
    states = np.asarray(states, np.float64)
    levels = states.shape[-1].bit_length() - 1
    count = states.size >> levels
    out = []
    for level in range(levels):
        halves = states.reshape(count << level, 2, -1)
        if level == levels - 1:
            left, right = halves[:, 0, 0], halves[:, 1, 0]
        else:
            left, right = np.linalg.norm(halves, axis=2).T
        out.append(2 * np.arctan2(right, left))
    return out


# --- projector phases -----------------------------------------------------------------------


def projector_phase(ancillas: int, phase: float) -> list[Gate]:
    """exp(i φ Z ⊗ (2|0⟩⟨0| - I)): the signal is wire 0, the ancillas 1 … a.

    With one ancilla, one ZZ rotation; with more, a Z rotation and one controlled by all of them
    (Gilyén et al. 2018, figure 1).
    """
    if ancillas == 1:
        return [Gate("zz", (0, 1), -2 * phase)]
    controls = tuple(range(1, 1 + ancillas))
    turn = Gate("rz", (0,), -4 * phase, controls=controls, values=(0,) * ancillas)
    return [Gate("rz", (0,), 2 * phase), turn]


# --- a circuit in numbers ----------------------------------------------------------


def applied(gates: Sequence[Gate], states: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The gates applied to each column of `states` `[2^w, m]`."""
    width = len(states).bit_length() - 1
    real = all(gate.kind in ("ry", "h", "x", "z", "swap") for gate in gates)
    dtype = np.float64 if real and not np.iscomplexobj(states) else np.complex128
    out = np.array(states, dtype).reshape([2] * width + [-1])
    for gate in gates:
        where: list[slice] = [slice(None)] * (width + 1)
        for control, value in zip(gate.controls, gate.values, strict=True):
            where[control] = slice(value, value + 1)
        part: np.ndarray = out[tuple(where)]
        axes = list(gate.qubits)
        local = local_unitary(gate.kind, angle_of(gate, angles)).reshape([2, 2] * len(axes))
        count = len(axes)
        part = np.tensordot(local, part, axes=(list(range(count, 2 * count)), axes))
        out[tuple(where)] = np.moveaxis(part, list(range(count)), axes)
    return out.reshape(1 << width, -1)


def hadamard(vector: np.ndarray, qubit: int) -> np.ndarray:
    """H on one qubit, 0 the most significant, of a vector `[2^n]`."""
    pairs = vector.reshape(1 << qubit, 2, -1)
    return np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(
        -1
    ) / np.sqrt(2)


def local_unitary(kind: str, angle: float) -> np.ndarray:
    """The gate without its controls: ``[2, 2]`` or ``[4, 4]``."""
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    if kind == "ry":
        return np.array([[c, -s], [s, c]])
    if kind == "rz":
        return np.diag([c - 1j * s, c + 1j * s])
    if kind == "zz":
        return np.diag([c - 1j * s, c + 1j * s, c + 1j * s, c - 1j * s])
    return {
        "h": np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2),
        "x": np.array([[0.0, 1.0], [1.0, 0.0]]),
        "z": np.diag([1.0, -1.0]),
        "swap": np.eye(4)[[0, 2, 1, 3]],
    }[kind]
