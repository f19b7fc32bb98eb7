"""The cost of a circuit: qubits, gates, depth, T gates, repetitions, seconds.

Gates are counted once for the state's preparation, the block encoding U and one projector phase; a
circuit of degree d has them 1, d and d + 1 times. Segments follow each other, so that depth is an
upper bound. Counts suppose no angle to be special.

Controls are removed so (Barenco et al. 1995, arXiv:quant-ph/9503016, lemmas 5.1 and 7.11; Nielsen &
Chuang, figure 4.10, for work qubits):

    c controls             their AND in c - 1 work qubits, computed and uncomputed by Toffoli gates
    rotation, 1 control    two half rotations, two CNOT
    ZZ rotation            CNOT, Rz, CNOT
    X or Z, c controls     c - 2 work qubits, one Toffoli
    H, 1 control           Ry(π/4), CZ, Ry(-π/4)
    SWAP                   three CNOT; controlled, the middle one alone
    control on 0           X before and after
    Toffoli                6 CNOT, 9 gates on one qubit, depth 11 (Nielsen & Chuang, figure 4.9)

Fault-tolerant cost is counted in T gates:

    rotation    1.149 log2(1/ε) + 9.2, one after the other, ε the accuracy divided by the
                number of rotations (Bocharov, Roetteler & Svore 2015, PRL 114, 080502)
    Toffoli     4, in one layer (Jones 2013, PRA 87, 022328); uncomputing an AND takes a
                measurement and none (Gidney 2018, arXiv:1709.06648)

Neither error correction's own qubits and cycles nor the routing of qubits are counted.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.gates import Gate, preparation, projector_phase
from keras_qnewton.solvers.quantum.transforms import Transform

_TOFFOLI_DEPTH = 11


class Counts(NamedTuple):
    """Gates of a circuit or of a part of one.

    Attributes:
        one_qubit: Gates on one qubit, rotations among them.
        two_qubit: Gates on two qubits: CNOT and CZ.
        rotations: Rotations by angles that have to be synthesised.
        toffoli: Toffoli gates that cost T gates: without those that uncompute.
        t: T gates besides those of rotations and Toffoli gates.
        work_qubits: Largest number of qubits beyond the circuit's own.
    """

    one_qubit: int = 0
    two_qubit: int = 0
    rotations: int = 0
    toffoli: int = 0
    t: int = 0
    work_qubits: int = 0

    def plus(self, other: Counts, times: int = 1) -> Counts:
        """These and `times` the others, one after the other."""
        return Counts(
            self.one_qubit + times * other.one_qubit,
            self.two_qubit + times * other.two_qubit,
            self.rotations + times * other.rotations,
            self.toffoli + times * other.toffoli,
            self.t + times * other.t,
            max(self.work_qubits, other.work_qubits),
        )


class _Cost(NamedTuple):
    """One gate: its counts, and its layers of gates, rotations, and other T gates."""

    counts: Counts
    depth: int
    rotation_layers: int
    t_layers: int


@dataclasses.dataclass(frozen=True, eq=False)
class Resources:
    """Resources of the circuit that applies `transform` to a block encoding.

    Attributes:
        encoding: The block encoding; its `gates` are counted when a number is first asked for.
        transform: The polynomial; its degree counts.
        success_probability: Of one run; None where there was none.
        accuracy: Error that all rotations together may have, for T gates.
    """

    encoding: BlockEncoding
    transform: Transform
    success_probability: float | None = None
    accuracy: float = 1e-3

    def __repr__(self) -> str:
        unknowns = 1 << self.encoding.system_qubits
        return f"Resources({self.encoding.name!r}, unknowns={unknowns}, degree={self.degree})"

    @property
    def degree(self) -> int:
        """Calls of the block encoding in one run."""
        return int(self.transform.degree)

    @functools.cached_property
    def _segments(self) -> list[tuple[list[Gate], int]]:
        """Gates, and how often they come, one segment after the other."""
        return [
            (preparation(range(self.encoding.system_qubits)), 1),
            (self.encoding.gates(), self.degree),
            (projector_phase(self.encoding.ancillas, 1.0), self.degree + 1),
            ([Gate("h", (0,))], 2),
        ]

    @functools.cached_property
    def counts(self) -> Counts:
        """Gates of one run."""
        total = Counts()
        for gates, times in self._segments:
            total = total.plus(count(gates), times)
        return total

    @property
    def qubits(self) -> int:
        """Signal, ancilla, system and work qubits."""
        return 1 + int(self.encoding.qubits) + self.counts.work_qubits

    @functools.cached_property
    def depth(self) -> int:
        """Layers of gates on one and two qubits in one run."""
        return round(sum(times * depth(gates) for gates, times in self._segments))

    @property
    def t_per_rotation(self) -> float:
        """T gates, on average, of one rotation."""
        rotations = max(self.counts.rotations, 1)
        return 1.149 * math.log2(max(rotations / self.accuracy, 1.0)) + 9.2

    @property
    def t_count(self) -> int:
        """T gates of one run."""
        counts = self.counts
        return math.ceil(counts.rotations * self.t_per_rotation + 4 * counts.toffoli + counts.t)

    @functools.cached_property
    def t_depth(self) -> int:
        """Layers of T gates of one run."""
        layers = sum(times * t_depth(gates, self.t_per_rotation) for gates, times in self._segments)
        return math.ceil(layers)

    def runs(self, amplified: bool = False) -> float:
        """Expected runs until one succeeds: 1/p, or with amplitude amplification about π/(2 √p).

        Amplified (Brassard, Høyer, Mosca & Tapp 2002), r = ⌊π/4θ⌋ rounds with sin² θ = p take
        2r + 1 runs and succeed with probability sin² (2r + 1)θ. The reflections between them are
        left out. NaN where p is not known, Inf where it is 0.
        """
        p = self.success_probability
        if p is None:
            return math.nan
        if not p > 0:
            return math.inf
        if not amplified:
            return 1 / p
        angle = math.asin(math.sqrt(min(p, 1.0)))
        runs = 2 * math.floor(math.pi / (4 * angle)) + 1
        return min(1 / p, runs / math.sin(runs * angle) ** 2)

    def queries(self, amplified: bool = False) -> float:
        """Expected calls of the block encoding until one run succeeds."""
        return self.degree * self.runs(amplified)

    def seconds(self, gate_time: float, amplified: bool = False) -> float:
        """Projected time until the solution's state is there, once, at `gate_time` a layer.

        That is one state, not its amplitudes: reading them takes as many runs as there are shots.
        """
        return self.depth * self.runs(amplified) * gate_time

    def report(self, gate_time: float) -> dict[str, float]:
        """The rows of a summary."""
        return {
            "qubits, with work qubits": self.qubits,
            "depth": self.depth,
            "gates on one qubit": self.counts.one_qubit,
            "gates on two qubits": self.counts.two_qubit,
            "T-count": self.t_count,
            "T-depth": self.t_depth,
            "expected queries": self.queries(),
            "expected queries, amplified": self.queries(amplified=True),
            f"projected seconds at {gate_time:g} s": self.seconds(gate_time),
            "projected seconds, amplified": self.seconds(gate_time, amplified=True),
        }


def count(gates: Sequence[Gate]) -> Counts:
    """Gates on one and two qubits that these come to."""
    total = Counts()
    for gate in gates:
        total = total.plus(_cost_of(gate).counts)
    return total


def depth(gates: Sequence[Gate]) -> float:
    """Layers of gates on one and two qubits, each gate as early as its wires allow."""
    return _longest(gates, [float(_cost_of(gate).depth) for gate in gates])


def t_depth(gates: Sequence[Gate], t_per_rotation: float) -> float:
    """Layers of T gates, each gate as early as its wires allow."""
    costs = [_cost_of(gate) for gate in gates]
    return _longest(gates, [c.rotation_layers * t_per_rotation + c.t_layers for c in costs])


def _longest(gates: Sequence[Gate], lengths: Sequence[float]) -> float:
    ready: dict[int, float] = {}
    for gate, length in zip(gates, lengths, strict=True):
        wires = (*gate.qubits, *gate.controls)
        end = max(ready.get(wire, 0.0) for wire in wires) + length
        ready.update(dict.fromkeys(wires, end))
    return max(ready.values(), default=0.0)


def _cost_of(gate: Gate) -> _Cost:
    return _cost(gate.kind, len(gate.controls), gate.values.count(0))


@functools.cache
def _cost(kind: str, controls: int, zeros: int) -> _Cost:
    """The table in the module's docstring."""
    if kind == "swap":
        middle = _cost("x", controls + 1, zeros)
        return _then(middle, Counts(two_qubit=2), depth=2)
    if kind == "zz":
        return _then(_cost("rz", controls, zeros), Counts(two_qubit=2), depth=2)
    # Controls that are left when work qubits hold the AND of the others.
    left = min(controls, 2 if kind in ("x", "z") else 1)
    folded = controls - left
    levels = math.ceil(math.log2(folded + 1)) if folded else 0
    counts = Counts(
        one_qubit=2 * zeros + 2 * 9 * folded,
        two_qubit=2 * 6 * folded,
        toffoli=folded,
        work_qubits=folded,
    )
    around = _Cost(counts, (2 if zeros else 0) + 2 * _TOFFOLI_DEPTH * levels, 0, levels)
    if kind in ("ry", "rz"):
        if left == 0:
            return _then(around, Counts(one_qubit=1, rotations=1), 1, 1)
        return _then(around, Counts(one_qubit=2, two_qubit=2, rotations=2), 4, 2)
    if kind == "h" and left == 1:
        return _then(around, Counts(one_qubit=2, two_qubit=1, t=2), 3, 0, 2)
    if left == 2:
        # The figure is X; Z does without the H at both ends.
        ends = 2 if kind == "x" else 0
        toffoli = Counts(one_qubit=7 + ends, two_qubit=6, toffoli=1)
        return _then(around, toffoli, _TOFFOLI_DEPTH, 0, 1)
    if left == 1:
        return _then(around, Counts(two_qubit=1), 1)
    return _then(around, Counts(one_qubit=1), 1)


def _then(cost: _Cost, counts: Counts, depth: int, rotations: int = 0, t: int = 0) -> _Cost:
    return _Cost(
        cost.counts.plus(counts),
        cost.depth + depth,
        cost.rotation_layers + rotations,
        cost.t_layers + t,
    )
