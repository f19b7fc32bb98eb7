"""What a step leaves to the next: when a kept value is used, and when it is computed anew."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Constant, QNewton
from keras_qnewton.conditioning import Spectrum
from keras_qnewton.curvature.blocks import Part
from keras_qnewton.curvature.formation import Formation, Formed
from keras_qnewton.solvers.packing import Packed
from keras_qnewton.state import FactorKind, KeptBlock, newton_state

SIZE = 3


def block(update_every=2, **shapes):
    """A block with zeros for what it keeps, and the count of steps."""
    shapes = {"hessian": [(SIZE, SIZE)], **shapes}
    iteration = keras.Variable(0, dtype="int64", trainable=False)
    variables = {
        name: [keras.Variable(np.zeros(shape), dtype="float64") for shape in each]
        for name, each in shapes.items()
    }
    return KeptBlock(variables, update_every, lambda: iteration), iteration


def formed(value):
    return lambda: Formed(value * tf.eye(SIZE, dtype=tf.float64), tf.constant(Formation.LAYERS))


def matrices(kept, iteration, values, count):
    """The matrix of each of successive steps, of which the k-th would form values[k] I."""
    out = []
    for step, value in enumerate(values):
        iteration.assign(step)

        @tf.function
        def found(value=value):
            now = kept.matrix(formed(value), count)
            return (kept.keep(now, count), *now[1:])

        found = found()
        out.append((float(found[0][0, 0]), int(found[1]), bool(found[2])))
    return out


def test_a_matrix_is_formed_every_so_many_steps():
    kept, iteration = block(update_every=3)
    found = matrices(kept, iteration, [1.0, 2.0, 3.0, 4.0, 5.0], tf.constant(1.0, tf.float64))
    assert [value for value, _, _ in found] == [1, 1, 1, 4, 4]


def test_a_kept_matrix_says_so():
    kept, iteration = block()
    found = matrices(kept, iteration, [1.0, 2.0, 3.0], tf.constant(1.0, tf.float64))
    assert [how for _, how, _ in found] == [Formation.LAYERS, Formation.KEPT, Formation.LAYERS]
    assert [unchanged for _, _, unchanged in found] == [False, True, False]


def test_a_matrix_that_was_never_formed_is():
    kept, iteration = block()
    iteration.assign(1)
    matrix, how, unchanged = kept.matrix(formed(7.0), tf.constant(1.0, tf.float64))
    assert (float(matrix[0, 0]), int(how), bool(unchanged)) == (7, Formation.LAYERS, False)


@pytest.mark.parametrize("count, expected", [(1, 6), (2, 6), (3, 4), (6, 3.5)])
def test_a_matrix_is_averaged_over_the_batches(count, expected):
    """H̄ + (H - H̄) / m, where what is kept is of m - 1 batches: with m = 2 it is older."""
    kept, iteration = block(update_every=1)
    matrices(kept, iteration, [3.0], tf.constant(2.0, tf.float64))
    ((found, _, _),) = matrices(kept, iteration, [6.0], tf.constant(float(count), tf.float64))
    assert found == pytest.approx(expected)


def test_a_matrix_is_not_assigned_before_it_is_to_be_kept():
    kept, _ = block(update_every=1)
    tf.function(lambda: kept.matrix(formed(3.0), tf.constant(2.0, tf.float64)))()
    np.testing.assert_array_equal(kept.variables["hessian"][0], np.zeros((SIZE, SIZE)))


def spectrum_of(value):
    return Spectrum(*(tf.constant(value, tf.float64) for _ in Spectrum._fields))


def test_a_spectrum_lives_as_long_as_its_matrix():
    kept, _ = block(spectrum=[(len(Spectrum._fields),)])

    @tf.function
    def found(unchanged, value):
        return kept.spectrum(unchanged, lambda: spectrum_of(1.0) if value else spectrum_of(2.0))

    first = found(tf.constant(False), True)
    assert float(first.lambda_max) == 1 and float(first.products) == 1
    again = found(tf.constant(True), False)
    assert float(again.lambda_max) == 1 and float(again.products) == 0
    assert float(found(tf.constant(False), False).lambda_max) == 2


FACTOR = {"factor": [(2,), (SIZE,), (SIZE, SIZE)]}


def factors(kept, requests):
    """Which of the requests (unchanged, kind, shift) factorised."""
    counter = tf.Variable(0)

    def factorise():
        counter.assign_add(1)
        identity = tf.eye(SIZE, dtype=tf.float32)
        return Packed(tf.ones([SIZE], tf.float32), identity)

    made = []
    for unchanged, kind, shift in requests:
        before = int(counter)
        packed = tf.function(
            lambda unchanged=unchanged, kind=kind, shift=shift: kept.factor(
                tf.constant(unchanged), kind, shift, factorise
            )
        )()
        assert packed.factor.dtype == tf.float64
        made.append(int(counter) > before)
    return made


def test_a_factorisation_serves_while_its_shift_stays():
    kept, _ = block(**FACTOR)
    lu = FactorKind.FIRST_ROUTE
    requests = [(False, lu, 0.5), (True, lu, 0.5), (True, lu, 0.25), (True, lu, 0.25)]
    assert factors(kept, requests) == [True, False, True, False]


def test_a_factorisation_of_another_kind_or_matrix_does_not_serve():
    kept, _ = block(**FACTOR)
    requests = [(False, FactorKind.EIGEN, 0.0), (True, FactorKind.MIXED, 0.0)]
    requests += [(False, FactorKind.MIXED, 0.0), (True, FactorKind.MIXED, 0.0)]
    assert factors(kept, requests) == [True, True, True, False]


def test_without_variables_everything_is_computed():
    kept = KeptBlock()
    assert float(kept.matrix(formed(5.0), tf.constant(3.0))[0][0, 0]) == 5
    assert kept.spectrum(True, lambda: spectrum_of(2.0)).lambda_max == 2
    assert factors_of_nothing(kept) == 2


def factors_of_nothing(kept):
    counter = []
    identity = tf.eye(SIZE, dtype=tf.float64)
    for _ in range(2):
        kept.factor(True, 1, 0.0, lambda: counter.append(1) or Packed(identity[0], identity))
    return len(counter)


def optimizer_of(weights, **arguments):
    optimizer = QNewton(**arguments)
    optimizer.build(weights)
    return optimizer


# Saved files and checkpoints hold variables by their position.
ORDER = ["iteration", "learning_rate", "damping", "log", "log_count"]


@pytest.mark.parametrize(
    "arguments, names",
    [
        ({"damping": Adaptive(memory=1)}, ["batches_averaged", "last_loss"]),
        ({}, ["hessian", "batches_averaged", "last_loss", "last_weights"]),
        (
            {"update_every": 2},
            ["hessian", "batches_averaged", "last_loss", "last_weights", "spectrum"]
            + ["factor"] * 3,
        ),
    ],
    ids=["nothing kept", "averages", "factors"],
)
def test_variables_keep_their_order(arguments, names):
    optimizer = optimizer_of([keras.Variable(np.ones(SIZE), name="w")], **arguments)
    found = [v.name.removeprefix("w_") for v in optimizer.variables]
    assert found == ORDER + names


def test_frozen_weights_make_another_block():
    optimizer = optimizer_of([keras.Variable(np.ones(SIZE), name="w")], update_every=2)
    state = optimizer._state
    kept = state.block(Part("full", (0,), SIZE, dense=True))
    assert kept.has_factor
    smaller = state.block(Part("full", (0,), SIZE - 1, dense=True))
    assert not smaller.variables


def test_a_policy_that_is_replaced_before_training_is_used():
    optimizer, w = QNewton(curvature="hessian"), keras.Variable([1.0, 1.0])
    optimizer.damping = Constant(0.5)
    optimizer.minimize(lambda: w[0] ** 2 + 3 * w[1] ** 2, [w])
    # ε times the largest eigenvalue.
    assert optimizer.decisions[-1].damping == pytest.approx(0.5 * 6)


def test_blocks_that_do_not_fit_leave_the_optimizer_unbuilt(monkeypatch):
    monkeypatch.setattr(newton_state, "available_memory", lambda: 100.0)
    optimizer = QNewton()
    for _ in range(2):
        with pytest.raises(ValueError, match="does not fit into memory"):
            optimizer.build([keras.Variable(np.ones(SIZE))])
    assert not optimizer.built and len(optimizer.variables) == 2
