"""A parametrised quantum circuit as a Keras model: QNewton against Adam.

Three classes of iris flowers; four features re-uploaded into every layer of a circuit of four
qubits, whose rotations are trained. The circuit is Cirq's. TensorFlow Quantum's operations cannot
be differentiated twice, so its Pauli-Z expectations are computed by TensorFlow's own, whose
derivatives are exact to any order. First of all they are compared with TensorFlow Quantum's
(with Cirq's, if that is not installed), and second derivatives with parameter shifts run there.

    python examples/quantum_classifier.py [--quick] [--draw]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cirq
import keras
import numpy as np
import sympy
import tensorflow as tf
from hybrid_iris import iris
from newton_table import NewtonTable, make_console, verdict
from rich.console import Console
from rich.table import Table

from keras_qnewton import QNewton
from keras_qnewton.curvature import hessian

QUBITS = cirq.GridQubit.rect(1, 4)
LAYERS = 3
ADAM_LEARNING_RATES = (1e-2, 3e-2, 1e-1)

# Values of all symbols `[B, S]` -> ⟨Z⟩ of each qubit, float64 `[B, n]`.
Expectations = Callable[[np.ndarray], np.ndarray]


def reuploading(layers: int, qubits: Sequence[cirq.Qid]) -> tuple[cirq.Circuit, list[sympy.Symbol]]:
    """A data re-uploading circuit (Pérez-Salinas et al. 2020), and its symbols for data.

    A layer is Rx(feature), Rz, Ry on every qubit; a ring of CZ is between two layers.
    """
    circuit, data = cirq.Circuit(), []
    for k in range(layers):
        if k > 0:
            circuit.append(cirq.CZ(q, qubits[j - 1]) for j, q in enumerate(qubits))
        for gate, letter in ((cirq.rx, "x"), (cirq.rz, "z"), (cirq.ry, "y")):
            symbols = [sympy.Symbol(f"{letter}{k}{j}") for j in range(len(qubits))]
            circuit.append(cirq.Moment(gate(s)(q) for s, q in zip(symbols, qubits, strict=True)))
            data += symbols if letter == "x" else []
    return circuit, data


class PauliZ(keras.layers.Layer):
    """⟨Z⟩ of each qubit after a circuit on |0…0⟩, differentiable as often as wanted.

    Rotations of one moment commute: in their common basis they multiply amplitude k by
    exp(-i φ_k), φ linear in the angles. The rest of the circuit is constant matrices between such
    moments, taken from Cirq. Matrices have 2^(n+2) rows: for a few qubits.

    Args:
        circuit: Its gates are rotations by one symbol each, or have no symbol.
        data: Symbols for the inputs `[B, len(data)]`, each times a trained scale. All other
            symbols are trained.
        qubits: n of them, the most significant first.

    Raises:
        ValueError: If a gate with a symbol is no rotation by it.
    """

    def __init__(
        self,
        circuit: cirq.Circuit,
        data: Sequence[sympy.Symbol],
        qubits: Sequence[cirq.Qid],
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.data = list(data)
        self.trained = sorted(cirq.parameter_symbols(circuit) - set(data), key=str)
        size = 2 ** len(qubits)
        phases, matrices, matrix = [], [], np.eye(size)
        for moment in circuit:
            rotations = [op for op in moment if cirq.is_parameterized(op)]
            matrix = _unitary([op for op in moment if op not in rotations], qubits) @ matrix
            if rotations:
                generators = {_symbol(op): _generator(op, qubits) for op in rotations}
                # Powers of 2: every pattern of the eigenvalues ±1 has a sum of its own.
                basis = np.linalg.eigh(sum(2**k * g for k, g in enumerate(generators.values())))[1]
                phases.append(np.zeros((len(self.symbols), size)))
                for symbol, g in generators.items():
                    values = np.einsum("ak,ab,bk->k", basis.conj(), g, basis).real
                    phases[-1][self.symbols.index(symbol)] += values / 2
                matrices.append(_real(basis.conj().T @ matrix))
                matrix = basis
        # A state is a row: real parts, imaginary parts, then the same times -i. Multiplied by
        # (cos φ, cos φ, sin φ, sin φ), the halves add up to the state times exp(-i φ).
        twice = np.hstack([np.eye(2 * size), _real(-1j * np.eye(size)).T])
        add = np.vstack([np.eye(2 * size)] * 2)
        first, *between = [m.T @ twice for m in matrices]
        self._first, self._between = first[0], [add @ m for m in between]
        self._last = add @ _real(matrix).T
        self._phases = np.stack(phases, 1)
        bits = np.indices((2,) * len(qubits)).reshape(len(qubits), size)
        self._signs = np.tile(1.0 - 2.0 * bits, 2).T

    @property
    def symbols(self) -> list[sympy.Symbol]:
        """All of them: data, then trained."""
        return self.data + self.trained

    def build(self, shape: tuple) -> None:
        self.scales = self.add_weight(shape=(len(self.data),), initializer="ones", name="scales")
        turns = keras.initializers.RandomUniform(-np.pi, np.pi)
        self.angles = self.add_weight(shape=(len(self.trained),), initializer=turns, name="angles")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        def constant(a: np.ndarray) -> tf.Tensor:
            return tf.constant(a, inputs.dtype)

        data, trained = np.split(self._phases, [len(self.data)])
        phases = tf.tensordot(inputs * self.scales, constant(data), 1)  # [B, moments, 2^n]
        phases += tf.tensordot(tf.convert_to_tensor(self.angles), constant(trained), 1)
        cos, sin = tf.cos(phases), tf.sin(phases)
        first, *others = tf.unstack(tf.concat([cos, cos, sin, sin], 2), axis=1)
        state = constant(self._first) * first
        for matrix, factors in zip(self._between, others, strict=True):
            state = (state @ constant(matrix)) * factors
        return tf.square(state @ constant(self._last)) @ constant(self._signs)


def _unitary(ops: Sequence[cirq.Operation], qubits: Sequence[cirq.Qid]) -> np.ndarray:
    """Of some operations among `qubits`, `[2^n, 2^n]`."""
    circuit = cirq.Circuit(ops)
    return circuit.unitary(qubit_order=qubits, qubits_that_should_be_present=qubits)


def _real(matrix: np.ndarray) -> np.ndarray:
    """What a complex matrix does to a state's real parts and imaginary parts."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _symbol(op: cirq.Operation) -> sympy.Symbol:
    return next(iter(cirq.parameter_symbols(op)))


def _generator(op: cirq.Operation, qubits: Sequence[cirq.Qid]) -> np.ndarray:
    """P, with P² = 1, of a rotation exp(-i v P/2) by the symbol v."""

    def rotation(angle: float) -> np.ndarray:
        return _unitary([cirq.resolve_parameters(op, {_symbol(op): angle})], qubits)

    if len(cirq.parameter_symbols(op)) == 1:
        generator = 1j * rotation(np.pi)
        expected = np.cos(0.5) * np.eye(len(generator)) - 1j * np.sin(0.5) * generator
        if np.allclose(rotation(1.0), expected):
            return generator
    raise ValueError(
        f"Argument `circuit` must have symbols in rotations only, one each. Received: {op!r}"
    )


def by_cirq(circuit: cirq.Circuit, symbols: Sequence[sympy.Symbol]) -> Expectations:
    """Expectations by Cirq's simulator in double precision."""
    simulator = cirq.Simulator(dtype=np.complex128)
    observables = [cirq.Z(q) for q in sorted(circuit.all_qubits())]

    def expectations(values: np.ndarray) -> np.ndarray:
        sweep = [cirq.ParamResolver(dict(zip(symbols, row, strict=True))) for row in values]
        found = simulator.simulate_expectation_values_sweep(circuit, observables, sweep)
        return np.real(found)

    return expectations


def by_tfq(circuit: cirq.Circuit, symbols: Sequence[sympy.Symbol]) -> Expectations:
    """Expectations by TensorFlow Quantum in single precision."""
    import tensorflow_quantum as tfq

    run = tfq.get_expectation_op()
    observables = [1.0 * cirq.Z(q) for q in sorted(circuit.all_qubits())]

    def expectations(values: np.ndarray) -> np.ndarray:
        circuits = tf.repeat(tfq.convert_to_tensor([circuit]), len(values))
        wanted = tf.repeat(tfq.convert_to_tensor([observables]), len(values), axis=0)
        names = [str(s) for s in symbols]
        return run(circuits, names, tf.cast(values, tf.float32), wanted).numpy().astype(float)

    return expectations


def second_derivatives(
    expectations: Expectations, values: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """d²⟨Z⟩/dv_i dv_j of each qubit, `[len(pairs), n]`, by the parameter-shift rule, twice.

    Exact: d⟨Z⟩/dv = (⟨Z⟩(v + π/2) - ⟨Z⟩(v - π/2)) / 2 for a symbol of one rotation.

    Args:
        values: Of all symbols, `[S]`.
        pairs: Their indices i, j.
    """
    unit = np.pi / 2 * np.eye(len(values))
    signs = [(a, b) for a in (1, -1) for b in (1, -1)]
    shifted = np.stack([values + a * unit[i] + b * unit[j] for i, j in pairs for a, b in signs])
    found = expectations(shifted).reshape(len(pairs), len(signs), -1)
    return np.einsum("psn,s->pn", found, [a * b / 4 for a, b in signs])


def check(console: Console, circuit: cirq.Circuit, layer: PauliZ, inputs: np.ndarray) -> bool:
    """Prints by how much the layer differs from a quantum simulator; whether by 1e-5 at most."""
    try:
        name, reference = "TensorFlow Quantum", by_tfq(circuit, layer.symbols)
    except (ImportError, tf.errors.NotFoundError):
        name, reference = "Cirq", by_cirq(circuit, layer.symbols)
    angles = np.tile(layer.angles.numpy(), (len(inputs), 1))
    values = np.concatenate([inputs * layer.scales.numpy(), angles], 1)
    forward = np.abs(layer(inputs).numpy() - reference(values)).max()

    # Of the first example, with respect to 20 random pairs of trained angles.
    count = len(layer.trained)
    pairs = np.random.default_rng(0).integers(count, size=(20, 2))
    # Of the sum of the qubits' ⟨Z⟩.
    shifts = second_derivatives(reference, values[0], pairs + len(layer.data)).sum(1)
    block = hessian(lambda: tf.reduce_sum(layer(inputs[:1])), [layer.angles])[0]
    second = np.abs(block.matrix.numpy()[tuple(pairs.T)] - shifts).max()
    console.print(
        f"Largest differences from {name}: expectations {forward:.0e}, second derivatives "
        f"{second:.0e} (parameter shifts, up to {np.abs(shifts).max():.2f})"
    )
    return bool(forward <= 1e-5 and second <= 1e-5)


def classifier(seed: int) -> tuple[keras.Model, PauliZ, cirq.Circuit]:
    """Circuit, then 4-3 dense; 36 + 15 weights. Weight decay bounds the dense layer's."""
    keras.utils.set_random_seed(seed)
    circuit, data = reuploading(LAYERS, QUBITS)
    layer = PauliZ(circuit, data, QUBITS, name="circuit")
    decay = keras.regularizers.L2(1e-4)
    model = keras.Sequential(
        [
            keras.layers.Input((len(data),)),
            layer,
            keras.layers.Dense(3, kernel_regularizer=decay, name="output"),
        ]
    )
    return model, layer, circuit


def train(
    optimizer: keras.optimizers.Optimizer, seed: int, epochs: int, **fit_arguments
) -> tuple[float, float, float]:
    """Full-batch training; loss, accuracy, seconds with tracing."""
    x, y = iris()
    x = np.tile(x, LAYERS)
    model, _, _ = classifier(seed)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    model.fit(x, y, batch_size=len(x), epochs=epochs, verbose=0, **fit_arguments)
    seconds = time.perf_counter() - start
    loss, accuracy = model.evaluate(x, y, batch_size=len(x), verbose=0)
    return loss, accuracy, seconds


def compare(
    console: Console, title: str, rows: Sequence[tuple[str, int, float, float, float]]
) -> None:
    """Prints the optimizers' results; seconds include tracing."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("optimizer", "epochs", "loss", "accuracy", "seconds"):
        table.add_column(name, justify="left" if name == "optimizer" else "right")
    for name, epochs, loss, accuracy, seconds in rows:
        table.add_row(name, f"{epochs}", f"{loss:.4f}", f"{accuracy:.4f}", f"{seconds:.1f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer epochs, Adam at one rate")
    parser.add_argument("--draw", action="store_true", help="print the circuit")
    parser.add_argument("--seed", type=int, default=0, help="of the model's weights")
    arguments = parser.parse_args()
    console = make_console()

    model, layer, circuit = classifier(arguments.seed)
    if arguments.draw:
        console.print(circuit.to_text_diagram(transpose=True), markup=False, highlight=False)
    right = check(console, circuit, layer, np.tile(iris()[0], LAYERS))

    steps, more = (10, 100) if arguments.quick else (30, 600)
    rates = ADAM_LEARNING_RATES[-1:] if arguments.quick else ADAM_LEARNING_RATES
    rows = []
    for curvature in ("auto",) if arguments.quick else ("auto", "hessian"):
        with NewtonTable(f"iris, curvature={curvature!r}", console) as table:
            optimizer = QNewton(curvature=curvature)
            found = train(optimizer, arguments.seed, steps, callbacks=[table.log])
        rows.append((f"QNewton, curvature={curvature!r}", steps, *found))
    for epochs in (steps, more):
        runs = {r: train(keras.optimizers.Adam(r), arguments.seed, epochs) for r in rates}
        best = min(runs, key=lambda r: runs[r][0])
        rows.append((f"Adam, learning rate {best:g}", epochs, *runs[best]))
    compare(console, f"iris, full batch, {model.count_params()} weights", rows)

    (_, _, newton, accuracy, _), (_, _, adam, _, _), (_, _, longer, _, _) = rows[0], *rows[-2:]
    verdict(
        console,
        right and newton < adam / 2 and accuracy >= 0.96,
        f"{steps} epochs: QNewton's loss {newton:.4f}, Adam's {adam:.4f}; "
        f"{more} epochs of Adam: {longer:.4f}",
    )


if __name__ == "__main__":
    main()
