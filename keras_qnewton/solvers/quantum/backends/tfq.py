"""QSVT circuits on TensorFlow Quantum: gates serialised once, then fed with angles."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_qnewton.arguments import check_count
from keras_qnewton.solvers.quantum.backends import Outcome, check_dtype
from keras_qnewton.solvers.quantum.backends.sampling import AmplitudeSampling
from keras_qnewton.solvers.quantum.encodings import BlockEncoding
from keras_qnewton.solvers.quantum.gates import (
    Gate,
    inverse,
    moved,
    preparation,
    preparation_angles,
    projector_phase,
)
from keras_qnewton.solvers.quantum.transforms import Transform

try:
    import cirq
    import sympy
    import tensorflow_quantum as tfq
except Exception as error:  # beside other versions of its libraries it fails in many ways
    raise ImportError(
        "The backend 'tfq' needs TensorFlow Quantum: run `python -m pip install '.[tfq]'` in the "
        "checkout. "
        f"Importing it failed: {error}"
    ) from error

_ROTATIONS = {"ry": cirq.YPowGate, "rz": cirq.ZPowGate, "zz": cirq.ZZPowGate}
# A projector phase's symbol, by its number; all of one length.
_PHASE = b"p%07d_"
_FIXED = {"h": cirq.H, "x": cirq.X, "z": cirq.Z, "swap": cirq.SWAP}


class Segment(NamedTuple):
    """A part of a circuit, serialised.

    Attributes:
        program: A serialised `Program`; one after the other, two of them are one.
        names: Of the symbols for half turns, exponents of the rotations.
        indices: Of the angle behind each symbol, int `[m]`; -1 for a constant.
        factors: Half turns per radian of that angle, or the constant's half turns, `[m]`.
        operations: Number of gates.
    """

    program: bytes
    names: tuple[bytes, ...]
    indices: np.ndarray
    factors: np.ndarray
    operations: int

    def values(self, angles: np.ndarray) -> np.ndarray:
        """Half turns of the symbols, float64 `[m]`."""
        return self.factors * np.append(angles, 1.0)[self.indices]


class Program(NamedTuple):
    """A circuit as `tfq.get_state_op()` takes it.

    Attributes:
        circuit: String tensor `[1]`.
        names: Symbols, string tensor `[m]`.
        values: Their values, float32 tensor `[1, m]`.
        operations: Number of gates.
    """

    circuit: tf.Tensor
    names: tf.Tensor
    values: tf.Tensor
    operations: int


class Backend(AmplitudeSampling):
    """The circuit of the Cirq backend in elementary gates, run by `tfq.get_state_op()`.

    TensorFlow Quantum takes circuits as serialised protocol buffers, with symbols for angles.
    Serialising a gate takes as long as simulating dozens, so it is done once for each
    signature of an encoding: U and U†, the preparation of a state and one projector phase.
    Serialised circuits one after the other are one circuit, so that one of any degree is a
    concatenation of those. A second solve serialises nothing, whatever its values, κ and degree.

    Every angle is a symbol, phases too: TensorFlow Quantum rounds numbers to six decimals, but
    not values of symbols, which are float32. Amplitudes are complex64. Where an encoding is
    U = W† M W with W on the system alone (`BlockEncoding.conjugated`), W is at the ends of the
    circuit only.

    Args:
        max_segments: Serialised segments in memory, those of a few encodings; one takes about
            100 bytes a gate.

    Attributes:
        serializations: Number of segments of circuits serialised so far.
    """

    def __init__(self, max_segments: int = 64) -> None:
        self.max_segments = check_count("max_segments", max_segments)
        self.serializations = 0
        self._segments: OrderedDict[tuple[str, Hashable], Segment] = OrderedDict()
        # A graph's host calls for several blocks may run at once.
        self._lock = threading.Lock()
        self._state_op = tfq.get_state_op()

    @property
    def segments(self) -> int:
        """Number of serialised segments in memory."""
        return len(self._segments)

    def circuit(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray
    ) -> cirq.Circuit:
        """The circuit as a `cirq.Circuit` on `cirq.GridQubit`s, without measurements."""
        program = self.program(encoding, transform, state)
        values = zip(program.names.numpy(), program.values.numpy()[0], strict=True)
        made = tfq.from_tensor(program.circuit)[0]
        return cirq.resolve_parameters(made, {name.decode(): float(v) for name, v in values})

    def run(
        self, encoding: BlockEncoding, transform: Transform, state: np.ndarray, dtype: str
    ) -> Outcome:
        """Simulates the circuit from |0…0⟩ and reads the state vector, without shots.

        Raises:
            ValueError: If `dtype` is not "complex64": there is no other simulator.
        """
        check_dtype("tfq", dtype)
        program = self.program(encoding, transform, state)
        with _quiet():
            vectors = self._state_op(program.circuit, program.names, program.values)
        _trim_heap()
        success = vectors.to_tensor()[0, : len(state)].numpy().astype(np.complex128)
        return Outcome(
            amplitudes=success.real,
            success_probability=float(np.vdot(success, success).real),
            qubits=1 + encoding.qubits,
            operations=program.operations,
        )

    def program(self, encoding: BlockEncoding, transform: Transform, state: np.ndarray) -> Program:
        """The whole circuit on `cirq.GridQubit` (0, 0), the signal, … (0, a + n).

        From its symbols to amplitudes is one op, `tfq.get_state_op()`, in any `tf.function`.
        """
        n, a = encoding.system_qubits, encoding.ancillas
        key, wires = encoding.signature, range(1, 1 + a + n)

        def part(prefix: str, which: int, inverted: bool) -> Segment:
            def gates() -> list[Gate]:
                made = moved(encoding.conjugated()[which], wires)
                return inverse(made) if inverted else made

            return self._segment(prefix, key, gates)

        prepare = self._segment("b", (n, a), lambda: _preparation(wires[a:]))
        before, after = part("w", 0, False), part("x", 0, True)
        encode = part("u", 1, False)
        decode = encode if encoding.hermitian else part("v", 1, True)
        turn = self._segment((_PHASE % 0).decode(), a, lambda: _phase(a))
        finish = self._segment("h", None, lambda: [Gate("h", (0,))])
        flip = self._segment("f", a, lambda: _reflection(a))
        (phases, flipped), angles = _reduced(transform.phases), encoding.angles
        last = len(phases) - 1
        programs = [prepare.program, before.program]
        operations = prepare.operations + before.operations + after.operations + 1
        for k in range(last, -1, -1):
            # The same bytes for another symbol: names are of one length.
            programs.append(turn.program.replace(_PHASE % 0, _PHASE % k))
            if flipped[k]:
                programs.append(flip.program)
            if k:
                call = encode if (last - k) % 2 == 0 else decode
                programs.append(call.program)
                operations += call.operations
        programs += [after.program, finish.program]
        operations += turn.operations * len(phases) + flip.operations * int(np.sum(flipped))
        # A symbol that does not occur does no harm.
        fixed = [before, encode, decode, after]
        names = [*prepare.names, *(name for segment in fixed for name in segment.names)]
        values = [prepare.values(preparation_angles(state))]
        values += [segment.values(angles) for segment in fixed]
        for name, factor in zip(turn.names, turn.factors, strict=True):
            names += [name.replace(_PHASE % 0, _PHASE % k) for k in range(len(phases))]
            values.append(factor * phases)
        return Program(
            tf.constant([b"".join(programs)]),
            tf.constant(names),
            tf.constant(np.concatenate(values)[None], tf.float32),
            operations,
        )

    def _segment(self, prefix: str, key: Hashable, gates: Callable[[], list[Gate]]) -> Segment:
        """The segment stored under this prefix and key, made of `gates` if there is none."""
        with self._lock:
            segment = self._segments.get((prefix, key))
            if segment is None:
                segment = self._segments[prefix, key] = _serialized(prefix, gates())
                self.serializations += 1
                if len(self._segments) > self.max_segments:
                    self._segments.popitem(last=False)
            self._segments.move_to_end((prefix, key))
            return segment


def _serialized(prefix: str, gates: Sequence[Gate]) -> Segment:
    """The gates with a symbol for each angle that occurs, whatever its sign."""
    symbols: dict[tuple[int, float], sympy.Symbol] = {}
    operations = []
    for gate in gates:
        wires = [cirq.GridQubit(0, wire) for wire in gate.qubits]
        if gate.kind in _ROTATIONS:
            index = -1 if gate.symbol is None else gate.symbol
            symbol = sympy.Symbol(f"{prefix}{len(symbols)}")
            symbol = symbols.setdefault((index, abs(gate.angle)), symbol)
            exponent = symbol if gate.angle >= 0 else -symbol
            made = _ROTATIONS[gate.kind](exponent=exponent, global_shift=-0.5).on(*wires)
        else:
            made = _FIXED[gate.kind].on(*wires)
        if gate.controls:
            # `made.controlled_by` would make a CCX of a CNOT, which cannot be serialised.
            controls = [cirq.GridQubit(0, wire) for wire in gate.controls]
            made = cirq.ControlledOperation(controls, made, gate.values)
        operations.append(made)
    return Segment(
        program=tfq.convert_to_tensor([cirq.Circuit(operations)]).numpy()[0],
        names=tuple(symbol.name.encode() for symbol in symbols.values()),
        indices=np.array([index for index, _ in symbols], np.intp),
        factors=np.array([angle / np.pi for _, angle in symbols]),
        operations=len(operations),
    )


def _preparation(system: Sequence[int]) -> list[Gate]:
    return [*preparation(system), Gate("h", (0,))]


def _phase(ancillas: int) -> list[Gate]:
    return [gate._replace(symbol=0) for gate in projector_phase(ancillas, 1.0)]


def _reduced(phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phases within π/4 of 0 but the first, and where 2|0⟩⟨0| - I on the ancillas follows.

    With R that reflection and Z on the signal, ``e^(iφZR) = e^(i(φ - mπ/2)ZR) (iZR)^m``. All but
    the outermost phases of a transform are close to -π/2, and float32 would round each of
    them alike, by 1e-7: an error that grows with the degree. What is left of them here is
    small, and so are its roundings. The first m is chosen to make their sum a multiple of
    four: then the factors i and the Zs, which commute with everything, come to one.
    """
    quarters = np.rint(phases / (np.pi / 2)).astype(int)
    quarters[0] = (-int(np.sum(quarters[1:])) + 1) % 4 - 1
    return phases - quarters * (np.pi / 2), quarters % 2 == 1


def _reflection(ancillas: int) -> list[Gate]:
    """2|0⟩⟨0| - I on the ancillas, up to the sign, which an even number of them loses."""
    if ancillas == 1:
        return [Gate("z", (1,))]
    controls = tuple(range(2, 1 + ancillas))
    turn = Gate("z", (1,), controls=controls, values=(0,) * len(controls))
    return [Gate("x", (1,)), turn, Gate("x", (1,))]


def _trim_heap() -> None:
    """Gives freed memory back to the system, where the C library can (glibc).

    The simulator parses a circuit into 1.2 kB a gate. It frees them, but the C library keeps
    them, so that a process would stay as large as its largest circuits.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops the warnings of TensorFlow Quantum's own cast, one for each size of a state."""

    def is_news(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (
            "casting an input of type complex64" in message or "padded_to_ragged" in message
        )

    logger = tf.get_logger()
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
