"""Functions of a graph's tensors that its branches call."""

import tensorflow as tf

from keras_qnewton.loss.called import Called


def _run(branches):
    """Both branches of a condition, which call one function of a tensor of the graph around it."""
    traces = []

    @tf.function(autograph=False)
    def step(x, y):
        called = Called(tf.compat.v1.get_default_graph())
        scale = tf.exp(y)  # of this graph, seen by both branches

        def scaled(x):
            traces.append(x.shape)
            return scale * x

        def call(x):
            return called("scaled", scaled, [x])

        return branches(call, x)

    return step, traces


def test_branches_call_one_function():
    step, traces = _run(lambda call, x: tf.cond(x > 0, lambda: call(x), lambda: call(-2 * x)))
    assert step(tf.constant(3.0), tf.constant(0.0)).numpy() == 3
    assert step(tf.constant(-3.0), tf.constant(0.0)).numpy() == 6
    assert len(traces) == 1


def test_a_branch_inside_of_a_loop():
    def nested(call, x):
        def body(k, x):
            return k + 1, tf.cond(k > 0, lambda: call(x), lambda: call(x + 1))

        return tf.while_loop(lambda k, _: k < 3, body, (0, x))[1]

    step, traces = _run(nested)
    assert step(tf.constant(1.0), tf.math.log(2.0)).numpy() == 16
    assert len(traces) == 1


def test_functions_are_told_apart_by_their_keys():
    @tf.function(autograph=False)
    def step(x):
        called = Called(tf.compat.v1.get_default_graph())
        return called("double", lambda x: 2 * x, [x]) + called("square", lambda x: x * x, [x])

    assert step(tf.constant(3.0)).numpy() == 15
