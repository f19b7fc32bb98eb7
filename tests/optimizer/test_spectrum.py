"""What a direction knows of its block."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.directions import spectrum


@pytest.mark.parametrize("size", [8, 12, 13, 21])
@pytest.mark.parametrize("shifted", [False, True])
def test_nonzeros_of_rows_counted_a_few_at_a_time(monkeypatch, size, shifted):
    monkeypatch.setattr(spectrum, "_LARGE", 10)
    monkeypatch.setattr(spectrum, "_ROWS", 4)
    rng = np.random.default_rng(size)
    for seed in range(20):
        matrix = rng.normal(size=(size, size)) * (rng.uniform(size=(size, size)) < seed / 20)
        # The fullest row is the last one in half of the cases.
        matrix[-1 if seed % 2 else 0, 1:-1] = 1.0
        system = matrix + 7 * np.eye(size) if shifted else matrix
        expected = np.count_nonzero(system, axis=1).max()
        found = tf.function(spectrum.row_nonzeros)(tf.constant(matrix), shifted)
        assert found.dtype == tf.float64
        assert found == expected


@pytest.fixture(scope="module")
def fitted():
    """The graph of a step on a curve, and the step's optimizer."""
    rng = np.random.default_rng(3)
    x, y = tf.constant(rng.normal(size=(40, 2))), tf.constant(rng.normal(size=(40, 1)))
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(7, activation="tanh", dtype="float64"),
        keras.layers.Dense(1, dtype="float64"),
    ]
    model = keras.Sequential([keras.Input((2,), dtype="float64"), *layers])
    optimizer = QNewton()

    def loss():
        return tf.reduce_mean(tf.square(model(x) - y))

    step = tf.function(lambda: optimizer.minimize(loss, model.trainable_variables), autograph=False)
    matrices = []
    for _ in range(3):
        matrices.append(gauss_newton(model, x))
        step()
    return step.get_concrete_function().graph, optimizer, matrices


def gauss_newton(model, x):
    """Of the mean squared error of `model` at `x`, by a tape's Jacobian."""
    weights = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        outputs = model(x)[:, 0]
    rows = [tf.reshape(t, [len(x), -1]).numpy() for t in tape.jacobian(outputs, weights)]
    rows = np.concatenate(rows, 1) * np.sqrt(2 / len(x))
    return rows.T @ rows


def test_what_is_logged_of_a_system_is_its_own(fitted):
    _, optimizer, matrices = fitted
    assert len(optimizer.decisions) == len(matrices)
    for decision, matrix in zip(optimizer.decisions, matrices, strict=True):
        shifted = matrix + decision.damping * np.eye(len(matrix))
        assert decision.sparsity == np.count_nonzero(shifted, axis=1).max()
        # An upper bound, whose largest eigenvalue Lanczos has found to a per cent.
        kappa = np.linalg.cond(matrix + decision.damping * np.eye(len(matrix)))
        assert 0.99 <= decision.condition_number / kappa <= 1.05
        assert decision.condition_number < 0.99 * (1 + np.linalg.norm(matrix) / decision.damping)


def waited_for(op):
    """All operations that one waits for, but for what only the other branch of a condition takes.

    A condition that TensorFlow writes into the graph around it waits for what its branch takes.
    """
    found, left = set(), [op]
    while left:
        current = left.pop()
        for other in (*(t.op for t in current.inputs), *current.control_inputs):
            if other in found:
                continue
            found.add(other)
            is_condition = other.type in ("If", "StatelessIf")
            if not (is_condition and other.get_attr("_lower_using_switch_merge")):
                left.append(other)
    return found


def finding_eigenvalues(graph):
    """Its operations that call a function which has an eigendecomposition in it."""
    bodies = {f.signature.name: f.node_def for f in graph.as_graph_def().library.function}

    def finds(name):
        calls = (v.func.name for node in bodies[name] for v in node.attr.values())
        kinds = {node.op for node in bodies[name]}
        return "SelfAdjointEigV2" in kinds or any(finds(of) for of in calls if of in bodies)

    calls = [op for op in graph.get_operations() if op.type.endswith("PartitionedCall")]
    return {op for op in calls if finds(op.get_attr("f").name)}


def test_no_attempt_waits_for_the_largest_eigenvalue(fitted):
    graph, _, _ = fitted
    loops = [op for op in graph.get_operations() if op.type in ("While", "StatelessWhile")]
    attempts = next(op for op in loops if not waited_for(op) & set(loops))
    assert finding_eigenvalues(graph)
    assert not waited_for(attempts) & finding_eigenvalues(graph)
