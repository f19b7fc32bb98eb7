"""Conditions and loops whose functions are prepared when they first run."""

import pytest
import tensorflow as tf

from keras_qnewton import _tf_private


def _lowering(graph):
    """Whether TensorFlow writes the bodies of conditions and loops into the graph, by type."""
    kinds = ("If", "StatelessIf", "While", "StatelessWhile")
    found = [op for op in graph.get_operations() if op.type in kinds]
    return {op.type: op.get_attr("_lower_using_switch_merge") for op in found}


def _conditional(x):
    return _tf_private.cond(x > 0, lambda: (2 * x, x + 1), lambda: (x * x, -x))


def _loop(x):
    return _tf_private.while_loop(lambda k, _: k < 3, lambda k, y: (k + 1, 2 * y), (0, x))


def _rare(x):
    return _tf_private.rarely(x > 0, lambda: (2 * x, x + 1), lambda: (x * x, -x))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("function", [_conditional, _rare, _loop])
def test_results_are_tensorflows(function, jit_compile):
    traced = tf.function(function, jit_compile=jit_compile, autograph=False)
    for x in (3.0, -3.0):
        expected = [t.numpy() for t in function(tf.constant(x))]
        assert [t.numpy() for t in traced(tf.constant(x))] == expected


@pytest.mark.parametrize("function", [_conditional, _loop])
def test_bodies_stay_functions(function):
    traced = tf.function(function, autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec([], tf.float32)).graph
    assert list(_lowering(graph).values()) == [False]


def test_gradients_pass_through():
    @tf.function(autograph=False)
    def slopes(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = _conditional(x)[0] + _loop(x)[1]
        return tape.gradient(y, x)

    assert slopes(tf.constant(3.0)).numpy() == 2 + 8
    assert slopes(tf.constant(-3.0)).numpy() == -6 + 8
