"""What "auto" does with more weights than a matrix is formed of: rows, data, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, QNewton, explain
from keras_qnewton.curvature import row_count
from keras_qnewton.loss import record

LEARNED, FEW = "quasi_newton", "woodbury"
# Of ten outputs each: 4,000 rows, and 320, where 2,048 are the most that are solved by.
MANY, SOME = 400, 32


def some_blocks() -> Blocks:
    return Blocks(max_size=100)


def data(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 6)).astype("float32")
    y = np.tanh(x @ generator.normal(size=(6, 10))).astype("float32")
    return x, y


def network(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(10)]
    return keras.Sequential([keras.layers.Input((6,)), *layers])


def stepper(
    optimizer: QNewton, batch: tuple[Any, Any], seed: int = 0
) -> tuple[keras.Model, Callable[[], tf.Tensor]]:
    """A network, and a step of its squared error on one batch."""
    model, (x, y) = network(seed), (tf.convert_to_tensor(of) for of in batch)

    def loss() -> tf.Tensor:
        return tf.reduce_mean(tf.square(model(x) - y))

    step: Callable[[], tf.Tensor] = tf.function(
        lambda: optimizer.minimize(loss, model.trainable_variables), autograph=False
    )
    return model, step


def compiled(optimizer: QNewton, **kwargs: Any) -> keras.Model:
    model = network()
    model.compile(optimizer=optimizer, loss="mse", **kwargs)
    return model


def routes(optimizer: QNewton) -> list[str]:
    return [decision.route for decision in optimizer.decisions]


def test_data_that_stay_and_many_rows_are_learned_from() -> None:
    optimizer = QNewton(blocks=some_blocks())
    _, step = stepper(optimizer, data(MANY))
    losses = [float(step()) for _ in range(30)]
    assert set(routes(optimizer)) == {LEARNED}
    assert losses[-1] < 0.1 * losses[0]


def test_few_rows_are_solved_by() -> None:
    optimizer = QNewton(blocks=some_blocks())
    _, step = stepper(optimizer, data(SOME))
    for _ in range(3):
        step()
    assert set(routes(optimizer)) == {FEW}


def test_the_decision_says_why_no_system_is_solved() -> None:
    optimizer = QNewton(blocks=some_blocks())
    _, step = stepper(optimizer, data(MANY))
    step()
    (decision,) = optimizer.decisions
    for words in ("no linear system", "data that stay", "rows"):
        assert words in decision.reason


def test_a_full_batch_in_fit_is_learned_from_after_its_first_step() -> None:
    optimizer = QNewton(blocks=some_blocks())
    x, y = data(MANY)
    history = compiled(optimizer).fit(x, y, batch_size=MANY, epochs=20, verbose=0, shuffle=False)
    first, *others = routes(optimizer)
    assert (first, set(others)) == ("cg", {LEARNED})
    assert history.history["loss"][-1] < 0.1 * history.history["loss"][0]


@pytest.mark.slow
def test_a_full_batch_in_another_order_is_the_same_data() -> None:
    optimizer = QNewton(blocks=some_blocks())
    x, y = data(MANY)
    compiled(optimizer).fit(x, y, batch_size=MANY, epochs=10, verbose=0, shuffle=True)
    assert set(routes(optimizer)[1:]) == {LEARNED}


@pytest.mark.parametrize("examples", [SOME, MANY])
def test_steps_on_data_that_change_are_newtons(examples: int) -> None:
    x, y = data(3 * examples)
    weights = []
    for curvature in ("auto", "gauss_newton"):
        model = compiled(QNewton(curvature=curvature, blocks=some_blocks()))
        model.fit(x, y, batch_size=examples, epochs=2, verbose=0)
        assert LEARNED not in routes(model.optimizer)
        weights.append(model.get_weights())
    # Threads add up in any order, and conjugate gradients multiply the difference.
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)


@pytest.mark.slow
def test_data_that_change_once_take_one_newton_step() -> None:
    optimizer = QNewton(blocks=some_blocks())
    model = compiled(optimizer)
    for seed in (0, 1):
        model.fit(*data(MANY, seed), batch_size=MANY, epochs=4, verbose=0, shuffle=False)
    assert routes(optimizer) == ["cg", *[LEARNED] * 3, "cg", *[LEARNED] * 3]


@pytest.mark.slow
def test_no_step_raises_the_loss_where_kinds_alternate() -> None:
    optimizer = QNewton(blocks=some_blocks())
    model = compiled(optimizer)
    for seed in (0, 1, 0):
        model.fit(*data(MANY, seed), batch_size=MANY, epochs=3, verbose=0, shuffle=False)
    assert all(d.loss_after <= d.loss for d in optimizer.decisions)


@pytest.mark.parametrize(
    "setting",
    [
        {"curvature": "gauss_newton"},
        {"curvature": "hessian"},
        {"damping": Adaptive(retries=3)},
        {"sparsity": 0.5},
        {"update_every": 2},
        {"blocks": Blocks("layer", max_size=20)},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_of_linear_systems_are_kept_to(setting: dict[str, Any]) -> None:
    optimizer = QNewton(**({"blocks": some_blocks()} | setting))
    _, step = stepper(optimizer, data(MANY))
    for _ in range(3):
        step()
    assert LEARNED not in routes(optimizer)


@pytest.mark.slow
def test_training_goes_on_from_a_file_bit_for_bit(tmp_path) -> None:
    x, y = data(MANY)
    model = compiled(QNewton(blocks=some_blocks()))
    model.fit(x, y, batch_size=MANY, epochs=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        one.fit(x, y, batch_size=MANY, epochs=3, verbose=0, shuffle=False)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_state_of_a_file_without_a_learned_inverse_is_loaded() -> None:
    x, y = data(MANY)
    newton = compiled(QNewton(curvature="gauss_newton", blocks=some_blocks()))
    newton.fit(x, y, batch_size=MANY, epochs=1, verbose=0)
    saved: dict[str, Any] = {}
    newton.optimizer.save_own_variables(saved)
    either = compiled(QNewton(blocks=some_blocks()))
    either.optimizer.build(either.trainable_variables)
    either.optimizer.load_own_variables(saved)
    assert len(either.optimizer.variables) > len(saved)
    for k, value in saved.items():
        np.testing.assert_array_equal(either.optimizer.variables[int(k)].numpy(), value)


def test_explain_says_when_a_block_is_learned() -> None:
    model = compiled(QNewton(blocks=some_blocks()))
    text = str(explain(model, *data(MANY)))
    assert "learned" in text


def test_an_exact_hessian_of_many_weights_is_learned_where_data_stay() -> None:
    w = tf.Variable(np.linspace(-1, 1, 150), dtype="float64")
    optimizer = QNewton(blocks=some_blocks())

    def loss() -> tf.Tensor:  # not convex in anything
        return tf.reduce_sum(tf.sin(w) * tf.cos(3 * w)) + tf.reduce_sum(w**4)

    step = tf.function(lambda: optimizer.minimize(loss, [w]), autograph=False)
    losses = [float(step()) for _ in range(20)]
    assert set(routes(optimizer)) == {LEARNED}
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("twice", [False, True])
def test_rows_that_cost_more_than_the_largest_system_are_learned_from(twice: bool) -> None:
    """U Uᵀ of r rows and n columns takes r²n products: here more than 2048³, of 1,600 rows."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(1600, 60)), tf.float32)
    y = tf.reduce_sum(x[:, :2], 1)
    start = generator.normal(size=(60, 60)) / 8
    first, second = (tf.Variable(start, dtype=tf.float32) for _ in range(2))

    def loss() -> tf.Tensor:
        hidden = tf.tanh(x @ first)
        return tf.reduce_mean(
            tf.square(tf.reduce_sum(hidden @ (first if twice else second), 1) - y)
        )

    optimizer = QNewton(blocks=some_blocks())
    weights = [first] if twice else [first, second]
    step = tf.function(lambda: optimizer.minimize(loss, weights), autograph=False)
    step()
    assert routes(optimizer) == [LEARNED if twice else FEW]
    assert ("more rows than" in optimizer.decisions[-1].reason) == twice


@pytest.mark.parametrize("penalised", [False, True])
def test_a_penalty_makes_no_rows_dear(penalised: bool) -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(9, 30)), tf.float32)
    kernel = tf.Variable(tf.ones([30, 5]))

    def loss() -> tf.Tensor:
        fit = tf.reduce_mean(tf.square(x @ kernel))
        return fit + 0.1 * tf.reduce_sum(tf.square(kernel)) if penalised else fit

    found = []

    @tf.function(autograph=False)
    def traced() -> None:
        found.append(row_count.formed_columns(record(loss, [kernel])))

    traced.get_concrete_function()
    assert found == [0]


@pytest.mark.parametrize("columns", [0, 2048, 3600, 45_000, 10**6])
def test_the_limit_of_rows_follows_from_their_columns(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_count, "formed_columns", lambda loss: columns)
    limit, work = row_count.row_limit(None), max(columns, 2048)  # type: ignore[arg-type]
    assert limit**2 * work <= 2048**3 < (limit + 1) ** 2 * work
