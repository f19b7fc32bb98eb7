"""The quantum circuit of the example: against Cirq, parameter shifts and finite differences."""

import pathlib
import sys

import cirq
import keras
import numpy as np
import pytest
import sympy
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

from quantum_classifier import PauliZ, by_cirq, reuploading, second_derivatives

from keras_qnewton.curvature import hessian
from tests.derivatives import fd_hessian, relative_error, set_precision

QUBITS = cirq.GridQubit.rect(1, 3)


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    set_precision(request.param)
    yield request.param
    set_precision("float32")


@pytest.fixture
def double():
    set_precision("float64")
    yield
    set_precision("float32")


def made(seed=0, examples=3):
    """A circuit of two layers, its layer at random weights, inputs, and all symbols' values."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    circuit, data = reuploading(2, QUBITS)
    layer = PauliZ(circuit, data, QUBITS)
    inputs = tf.constant(rng.normal(size=(examples, len(data))), keras.config.floatx())
    layer(inputs)
    layer.scales.assign(rng.uniform(0.5, 1.5, len(data)))
    angles = np.tile(layer.angles.numpy(), (examples, 1))
    values = np.concatenate([inputs.numpy() * layer.scales.numpy(), angles], 1)
    return circuit, layer, inputs, values


def test_expectations_are_cirqs(precision):
    circuit, layer, inputs, values = made()
    expected = by_cirq(circuit, layer.symbols)(values)
    tolerance = 2e-6 if precision == "float32" else 1e-12
    np.testing.assert_allclose(layer(inputs), expected, rtol=0, atol=tolerance)


def test_gates_on_several_qubits():
    a, b, c = sympy.symbols("a b c")
    p, q, r = QUBITS
    circuit = cirq.Circuit(
        cirq.H(q),
        cirq.rx(a)(p),
        cirq.ry(b)(r),
        cirq.CNOT(q, p),
        cirq.ZZPowGate(exponent=c / sympy.pi, global_shift=-0.5)(p, r),
        cirq.ry(a)(p),  # its symbol a second time
        cirq.ISWAP(q, r),
        cirq.rx(b)(q),
    )
    layer = PauliZ(circuit, [a], QUBITS)
    inputs = np.array([[0.3], [-1.2]], "float32")
    found = layer(inputs).numpy()
    values = np.concatenate([inputs, np.tile(layer.angles.numpy(), (2, 1))], 1)
    np.testing.assert_allclose(found, by_cirq(circuit, layer.symbols)(values), atol=2e-6)


def test_second_derivatives_are_parameter_shifts_run_by_cirq(double):
    circuit, layer, inputs, values = made(examples=1)
    block = hessian(lambda: tf.reduce_sum(layer(inputs)), [layer.angles])[0]
    pairs = np.random.default_rng(1).integers(len(layer.trained), size=(30, 2))
    run = by_cirq(circuit, layer.symbols)
    shifts = second_derivatives(run, values[0], pairs + len(layer.data)).sum(axis=1)
    assert np.abs(shifts).max() > 0.1
    np.testing.assert_allclose(block.matrix.numpy()[tuple(pairs.T)], shifts, rtol=0, atol=1e-12)


def test_hessian_of_a_classifiers_loss(double):
    _, layer, inputs, _ = made(examples=5)
    dense = keras.layers.Dense(3)
    dense(layer(inputs))
    classes = tf.constant([0, 1, 2, 1, 0])
    variables = [*layer.trainable_variables, *dense.trainable_variables]
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss():
        return cross_entropy(classes, dense(layer(inputs)))

    expected = fd_hessian(loss, variables)
    assert relative_error(hessian(loss, variables)[0].matrix.numpy(), expected) < 1e-9


@pytest.mark.parametrize("exponent", [sympy.Symbol("a"), sympy.Symbol("a") + sympy.Symbol("b")])
def test_other_gates_with_symbols_are_refused(exponent):
    circuit = cirq.Circuit(cirq.X(QUBITS[0]) ** exponent)
    with pytest.raises(ValueError, match="rotations only"):
        PauliZ(circuit, [], QUBITS)
