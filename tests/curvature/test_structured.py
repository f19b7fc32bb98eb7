"""Structured blocks: equal to the generic ones where they hold, replaced where they do not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton.curvature import Blocks, hessian
from keras_qnewton.curvature.structured_hessian import StructuredHessian
from keras_qnewton.loss import as_tensors, record
from keras_qnewton.loss.structure import dense_layers
from tests.curvature.test_layers import closure, data
from tests.derivatives import fd_hessian, relative_error

L = keras.layers


pytestmark = pytest.mark.usefixtures("double_precision")


def mlp():
    layers = [L.Dense(4, activation="tanh"), L.Dense(3, activation="gelu"), L.Dense(3)]
    return keras.Sequential([L.Input((5,)), *layers])


def without_bias():
    layers = [L.Dense(4, activation="tanh", use_bias=False), L.Dense(3, use_bias=False)]
    return keras.Sequential([L.Input((5,)), *layers])


def regularised():
    decay = keras.regularizers.L2(0.2)
    layers = [
        L.Dense(4, activation="tanh", kernel_regularizer=decay),
        L.Dense(3, bias_regularizer=decay),
    ]
    return keras.Sequential([L.Input((5,)), *layers])


def dead_inputs():
    """Wide enough for zeros to be left out: pixels that are always black, inactive units."""
    mask = (np.arange(300) % 3 > 0).astype(float)
    layers = [L.Rescaling(mask), L.Dense(3, activation="relu"), L.Dense(3)]
    return keras.Sequential([L.Input((5,)), L.RepeatVector(60), L.Flatten(), *layers])


def branches():
    x = L.Input((5,))
    a = L.Dense(4, activation="tanh")(x)
    b = L.Dense(4, activation="softplus")(x)
    return keras.Model(x, L.Dense(3)(L.Concatenate()([L.Add()([a, b]), b])))


def dropout():
    layers = [L.Dense(4, activation="tanh"), L.Dropout(0.4, seed=3), L.Dense(3)]
    return keras.Sequential([L.Input((5,)), *layers])


def coupled_examples():
    layers = [L.Dense(4), L.BatchNormalization(), L.Activation("tanh"), L.Dense(3)]
    return keras.Sequential([L.Input((5,)), *layers])


def shared_layer():
    x = L.Input((5,))
    shared = L.Dense(5, activation="tanh")
    return keras.Model(x, L.Dense(3)(shared(shared(x))))


def quartic_regulariser():
    layers = [
        L.Dense(4, activation="tanh", kernel_regularizer=lambda w: tf.reduce_sum(w**2) ** 2),
        L.Dense(3),
    ]
    return keras.Sequential([L.Input((5,)), *layers])


STRUCTURED = [mlp, without_bias, regularised, dead_inputs, branches, dropout]
UNSTRUCTURED = [coupled_examples, shared_layer, quartic_regulariser]


def assembled_and_generic(model, loss_fn, partition):
    """Blocks (assembled, generic) where layers were recognised for the whole block."""
    variables = as_tensors(model.trainable_variables)
    parts = Blocks(partition).split(model.trainable_variables)

    @tf.function
    def run():
        loss = record(loss_fn, variables)
        at = StructuredHessian(loss, loss.at_variables(), parts, 1e9)
        out = []
        for k in range(len(parts)):
            layers = at._covering(k)
            if layers is not None:
                out.append((at._assemble(k, layers), at.block_by_products(k)))
        return out

    return run()


@pytest.mark.parametrize("partition", ["full", "layer", "variable"])
@pytest.mark.parametrize("build", STRUCTURED, ids=lambda f: f.__name__)
def test_assembled_blocks_equal_generic_ones(build, partition):
    model = build()
    pairs = assembled_and_generic(model, closure(model, *data((5,))), partition)
    assert len(pairs) == len(Blocks(partition).split(model.trainable_variables))
    for assembled, generic in pairs:
        assert relative_error(assembled, generic) < 1e-12


@pytest.mark.parametrize("build", STRUCTURED + UNSTRUCTURED, ids=lambda f: f.__name__)
def test_the_block_is_right_either_way(build):
    model = build()
    loss_fn = closure(model, *data((5,)))
    (block,) = hessian(loss_fn, model.trainable_variables)
    reference = fd_hessian(loss_fn, model.trainable_variables)
    assert relative_error(block.matrix, reference) < 1e-10


def test_assembly_alone_would_be_wrong_where_examples_interact():
    model = quartic_regulariser()
    ((assembled, generic),) = assembled_and_generic(model, closure(model, *data((5,))), "full")
    assert relative_error(assembled, generic) > 1e-2


def test_sample_weights_and_variable_order():
    model = mlp()
    x, y = data((5,))
    loss_fn = closure(model, x, y, sample_weight=np.linspace(0.1, 2.0, len(x)))
    variables = model.trainable_variables[::-1]
    (block,) = hessian(loss_fn, variables)
    assert relative_error(block.matrix, fd_hessian(loss_fn, variables)) < 1e-10


@pytest.mark.slow
def test_large_assemblies_are_done_in_pieces(monkeypatch):
    from keras_qnewton.curvature import example_sums

    model = mlp()
    loss_fn = closure(model, *data((5,)))
    (whole,) = hessian(loss_fn, model.trainable_variables)
    monkeypatch.setattr(example_sums, "_MAX_ELEMENTS", 100)
    (pieces,) = hessian(loss_fn, model.trainable_variables)
    assert relative_error(pieces.matrix, whole.matrix) < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["layer", "variable"])
def test_blocks_of_many_inputs_equal_those_of_few(monkeypatch, partition):
    from keras_qnewton.curvature import example_sums

    model = dead_inputs()
    loss_fn = closure(model, *data((5,)))
    monkeypatch.setattr(example_sums, "_PIECES", 7)
    large = hessian(loss_fn, model.trainable_variables, blocks=partition)
    monkeypatch.setattr(example_sums, "MANY_INPUTS", 1000)
    small = hessian(loss_fn, model.trainable_variables, blocks=partition)
    for a, b in zip(large, small, strict=True):
        matrix = a.matrix.numpy()
        np.testing.assert_array_equal(matrix, matrix.T)
        assert relative_error(a.matrix, b.matrix) < 1e-13


def test_recognised_layers():
    def layers_of(model):
        variables = as_tensors(model.trainable_variables)
        found = []

        @tf.function
        def run():
            loss = record(closure(model, *data((5,))), variables)
            found.extend(dense_layers(loss))
            return loss.value

        run()
        return [(layer.kernel, layer.bias, layer.inputs, layer.outputs) for layer in found]

    assert layers_of(mlp()) == [(0, 1, 5, 4), (2, 3, 4, 3), (4, 5, 3, 3)]
    assert layers_of(without_bias()) == [(0, None, 5, 4), (1, None, 4, 3)]
    assert layers_of(shared_layer()) == [(2, 3, 5, 3)]
