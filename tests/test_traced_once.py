"""Functions that graphs call in place of having their operations anew."""

import numpy as np
import tensorflow as tf

from keras_qnewton.traced_once import traced_once


def _counted():
    traces = []

    @traced_once
    def squares(x, power):
        traces.append(x.shape)
        return tf.reduce_sum(x**power)

    return squares, traces


def test_graphs_share_what_is_traced():
    squares, traces = _counted()
    x = np.arange(3.0)

    def twice(x):
        return squares(x, 2) + squares(2 * x, 2)

    for _ in range(3):
        assert tf.function(twice, autograph=False)(x).numpy() == 5 * np.sum(x**2)
    assert len(traces) == 1


def test_models_of_many_sizes_leave_no_trace_each():
    squares, traces = _counted()
    for size in range(1, 12):
        x = np.arange(float(size))
        found = tf.function(lambda x: squares(x, 2), autograph=False)(x)
        assert found.numpy() == np.sum(x**2)
    assert len(traces) <= 3


def test_eagerly_nothing_is_traced():
    squares, traces = _counted()
    for size in (2, 3, 4, 5):
        assert squares(tf.ones([size]), 3).numpy() == size
    assert len(traces) == 4  # runs, not traces


def test_xla_compiles_a_call():
    squares, _ = _counted()
    run = tf.function(lambda x: squares(x, 2), jit_compile=True, autograph=False)
    assert run(np.arange(4.0)).numpy() == 14
