"""How variables are grouped, and that saving a model changes nothing about it."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import QNewton
from keras_qnewton.curvature import Blocks, fisher, gauss_newton, hessian, memory
from keras_qnewton.curvature.memory import available_memory, check_formed, check_memory

L = keras.layers


def towers():
    """Two submodels whose layers have the same name."""

    def tower(name):
        layer = L.Dense(3, activation="tanh", name="h")
        return keras.Sequential([L.Input((4,)), layer], name=name)

    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    both = L.Concatenate()([tower("a")(x), tower("b")(x)])
    return keras.Model(x, L.Dense(3, name="z")(both))


def parts(variables, partition="layer"):
    return [(p.name, p.indices, p.size) for p in Blocks(partition).split(variables)]


def test_layers_of_a_sequential_model_are_named_without_the_model():
    model = keras.Sequential([L.Input((3,)), L.Dense(2, name="a"), L.Dense(1, name="b")])
    assert parts(model.trainable_variables) == [("a", (0, 1), 8), ("b", (2, 3), 3)]
    names = [name for name, _, _ in parts(model.trainable_variables, "variable")]
    assert names == ["a/kernel", "a/bias", "b/kernel", "b/bias"]
    assert parts(model.trainable_variables, "full") == [("full", (0, 1, 2, 3), 11)]


def test_bare_variables_are_blocks_of_their_own():
    same = [tf.Variable(tf.zeros(n), name="v") for n in (2, 3)]
    assert parts(same) == [("v", (0,), 2), ("v#2", (1,), 3)]
    assert parts(same, "variable") == [("v", (0,), 2), ("v#2", (1,), 3)]


def test_auto_is_one_block_which_is_formed_up_to_the_cap():
    model = keras.Sequential([L.Input((3,)), L.Dense(2), L.Dense(1)])
    for cap, dense in ((11, True), (10, False)):
        (part,) = Blocks("auto", max_size=cap).split(model.trainable_variables)
        assert (part.name, part.dense) == ("full", dense)


def test_memory_check_says_how_many_weights_would_fit():
    model = keras.Sequential([L.Input((99,)), L.Dense(10)])
    blocks = Blocks("full").split(model.trainable_variables)
    check_memory(blocks, False, available=1e9)
    with pytest.raises(ValueError, match=r"N = 1,000 .*enough for (\d+) weights") as caught:
        check_memory(blocks, False, available=1e7)
    fits = int(re.search(r"max_size=(\d+)", str(caught.value)).group(1))
    small = keras.Sequential([L.Input((fits - 1,)), L.Dense(1)])
    check_memory(Blocks("full").split(small.trainable_variables), False, available=1e7)
    check_memory(Blocks("full", max_size=fits).split(model.trainable_variables), False, 1e7)
    check_memory(blocks, False, available=4.1e7)
    with pytest.raises(ValueError, match="N = 1,000"):
        check_memory(blocks, True, available=4.1e7)


@pytest.mark.parametrize("compute", [hessian, gauss_newton, fisher])
def test_blocks_that_would_not_fit_are_not_begun(compute):
    w = tf.Variable(tf.zeros([10**7]))

    def loss_fn():
        raise AssertionError("differentiated")

    with pytest.raises(ValueError, match=r"N = 10,000,000 .*enough for one of .*`hvp`"):
        compute(loss_fn, [w])


def test_check_of_formed_blocks_says_how_many_weights_would_fit():
    sizes = [np.zeros(n, "float32") for n in (300, 200)]
    parts = Blocks("variable").split([tf.Variable(v) for v in sizes])
    most = 4 * (300**2 + 200**2 + 2 * 300**2)
    check_formed(parts, 4, most)
    with pytest.raises(ValueError, match="2 of them, the largest") as caught:
        check_formed(parts, 4, most - 1)
    fits = int(re.search(r"one of (\d+) weights", str(caught.value)).group(1))
    check_formed(Blocks("full").split([tf.Variable(tf.zeros(fits))]), 4, most - 1)
    with pytest.raises(ValueError):
        check_formed(Blocks("full").split([tf.Variable(tf.zeros(fits + 1))]), 4, most - 1)


@pytest.mark.parametrize("version", [0, 1])
def test_a_containers_limit_counts(version, tmp_path, monkeypatch):
    groups = list(memory._GROUPS)
    _, limit, used, files = groups[version]
    monkeypatch.setattr(memory, "_GROUPS", [(str(tmp_path), limit, used, files)])
    of_machine = available_memory()
    (tmp_path / limit).write_text("max\n")
    (tmp_path / used).write_text("3000\n")
    (tmp_path / "memory.stat").write_text(f"anon 2000\n{files} 900\n")
    assert available_memory() >= 0.5 * of_machine
    (tmp_path / limit).write_text("10000\n")
    assert available_memory() == 10000 - 3000 + 900
    (tmp_path / used).write_text("12000\n")
    assert available_memory() == 0


def test_memory_check_of_many_blocks_names_a_size_that_fits():
    """What is kept of the others counts, too."""
    layers = [L.Dense(n, use_bias=False) for n in (40, 50, 60, 70)]
    model = keras.Sequential([L.Input((30,)), *layers])
    available = 8e8

    def check(**arguments):
        parts = Blocks("layer", **arguments).split(model.trainable_variables)
        check_memory(parts, 2, available)

    with pytest.raises(ValueError, match="does not fit") as caught:
        check(max_size=10_000)
    fits = int(re.search(r"max_size=(\d+)", str(caught.value)).group(1))
    check(max_size=fits)
    with pytest.raises(ValueError, match="does not fit"):
        check(max_size=min(n for n in (1200, 2000, 3000, 4200) if n > fits))


@pytest.mark.slow
def test_partition_survives_saving(tmp_path):
    """And every block keeps its own matrix, which the last two steps before are of."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    model = towers()
    model.compile(QNewton(blocks="layer", update_every=3), "mse")
    model.fit(x, y, batch_size=30, epochs=4, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    sizes = [size for _, _, size in parts(model.trainable_variables)]
    assert sizes == [size for _, _, size in parts(loaded.trainable_variables)] == [15, 15, 21]
    for m in (model, loaded):
        m.fit(x, y, batch_size=30, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
