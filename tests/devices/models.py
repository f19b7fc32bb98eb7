"""Trainings that two replicas and one device have to agree on, float64.

What one device is given is what both replicas are given together, with Keras's weighting: each
replica's mean counts for one half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton import Adaptive, Blocks, QNewton

L = keras.layers
STEPS = 10
REPLICAS = 2


class Case(NamedTuple):
    """A training.

    Attributes:
        model: Makes it.
        loss: A mean over the examples, which Keras divides by the number of replicas.
        x: Inputs.
        y: Targets.
        options: Of `QNewton`.
        steps: How many.
        batch: Examples of a global batch; all, if None.
        by_fit: Whether two replicas are trained by `fit`, and not by `minimize`.
        apart: Whether one device sees the replicas' halves apart, as they do.
        weighted: Whether it sees them as one batch, with the weights that they come to.
    """

    model: Callable[[], keras.Model]
    loss: keras.losses.Loss
    x: np.ndarray
    y: np.ndarray
    options: Mapping[str, Any] = MappingProxyType({})
    steps: int = STEPS
    batch: int | None = None
    by_fit: bool = True
    apart: bool = False
    weighted: bool = False


class Run(NamedTuple):
    """What came of a training.

    Attributes:
        weights: All weights that are trained, one after the other.
        decisions: The optimizer's.
        copies: How far the replicas' copies of weights are apart.
    """

    weights: np.ndarray
    decisions: list[Any]
    copies: float


def curve(n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 3))
    return x, np.sin(x @ [1.0, -0.5, 0.3])[:, None]


def dense(hidden: int = 8, outputs: int = 1, *extra: keras.layers.Layer) -> keras.Model:
    layers = [L.Dense(hidden, activation="tanh"), *extra, L.Dense(outputs)]
    return keras.Sequential([L.Input((3,)), *layers])


def wide() -> keras.Model:
    """More than twice as many weights as the batch has rows."""
    layers = [L.Dense(30, activation="tanh"), L.Dense(12, activation="tanh"), L.Dense(1)]
    return keras.Sequential([L.Input((3,)), *layers])


def convolutional() -> keras.Model:
    layers = [L.Conv2D(2, 3, activation="tanh"), L.Flatten(), L.Dense(3)]
    return keras.Sequential([L.Input((6, 6, 1)), *layers])


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(48, 6, 6, 1)), rng.integers(0, 3, size=48)


def residual_of_poisson(model: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """Σ over points of (u'' + sin x)² + u² at the ends, of an equation on [-1, 1]."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            u = model(x)
        slope = inner.gradient(u, x)
    bend = outer.gradient(slope, x)
    return tf.reduce_mean(tf.square(bend + tf.sin(3 * x))) + tf.reduce_mean(
        tf.square(model(tf.constant([[-1.0], [1.0]], x.dtype)))
    )


def small_network() -> keras.Model:
    return keras.Sequential([L.Input((3,)), L.Dense(2, activation="tanh"), L.Dense(1)])


def cases() -> dict[str, Case]:
    # Made here: a loss keeps the precision that is Keras's when it is made.
    squares = keras.losses.MeanSquaredError()
    classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = curve()
    labels = (y[:, 0] > 0).astype(int)
    all_free = Blocks("full", max_size=4)
    odd_x, odd_y = curve(65)
    four = {"gradient_accumulation_steps": 4}
    points = np.linspace(-1, 1, 24)[:, None]
    return {
        "squares": Case(dense, squares, x, y),
        "classes": Case(lambda: dense(8, 2), classes, x, labels),
        "hessian": Case(dense, squares, x, y, {"curvature": "hessian"}),
        "two blocks": Case(dense, squares, x, y, {"blocks": "layer"}),
        "few rows": Case(wide, squares, x, y),
        "few rows, not formed": Case(dense, squares, x, y, {"blocks": all_free}),
        "products": Case(
            small_network, squares, x, y, {"blocks": all_free, "curvature": "hessian"}, steps=6
        ),
        "convolutions": Case(convolutional, classes, *images()),
        "quasi-Newton": Case(dense, squares, x, y, {"curvature": "quasi_newton"}),
        "mini-batches": Case(dense, squares, x[:48], y[:48], batch=32, steps=12),
        "penalties": Case(
            lambda: keras.Sequential(
                [L.Input((3,)), L.Dense(8, activation="tanh", kernel_regularizer="l2"), L.Dense(1)]
            ),
            squares,
            x,
            y,
        ),
        "clipped, decayed": Case(
            dense, squares, x, y, {"clipnorm": 0.5, "weight_decay": 1e-3, "use_ema": True}
        ),
        "kept blocks": Case(dense, squares, x, y, {"update_every": 2}),
        "minimize": Case(dense, squares, x, y, by_fit=False),
        "batch normalisation": Case(
            lambda: dense(6, 1, L.BatchNormalization()), squares, x, y, apart=True
        ),
        "ragged": Case(dense, squares, odd_x, odd_y, by_fit=False, apart=True),
        "ragged last batch": Case(dense, squares, odd_x, odd_y, batch=40, apart=True),
        "equation": Case(
            lambda: keras.Sequential([L.Input((1,)), L.Dense(8, activation="tanh"), L.Dense(1)]),
            squares,
            points,
            points,
            by_fit=False,
        ),
        "fisher": Case(lambda: dense(8, 2), classes, x, labels, {"curvature": "fisher"}),
        "fisher, few rows": Case(wide, squares, x, y, {"curvature": "fisher"}),
        "fisher, ragged": Case(
            dense, squares, odd_x, odd_y, {"curvature": "fisher"}, by_fit=False, weighted=True
        ),
        "accumulated": Case(dense, squares, x, y, {**four, "blocks": "layer"}, steps=40, batch=16),
        "accumulated, decayed": Case(
            dense,
            squares,
            x,
            y,
            {**four, "weight_decay": 1e-3, "use_ema": True, "ema_momentum": 0.5},
            steps=40,
            batch=16,
        ),
        "accumulated, minimize": Case(dense, squares, x, y, four, steps=40, by_fit=False),
        "accumulated fisher": Case(
            dense, squares, x, y, {**four, "curvature": "fisher"}, steps=20, batch=16
        ),
        "two hundred steps": Case(
            lambda: dense(4, 2),
            classes,
            x,
            np.random.default_rng(7).integers(0, 2, len(x)),
            {"damping": Adaptive(initial=1e-6, retries=1)},
            steps=200,
        ),
    }


def train(name: str, strategy: tf.distribute.Strategy | None, fits: bool = True) -> Run:
    """The training of that name, by a strategy of two replicas or on one device.

    Args:
        name: Of one of `cases`.
        strategy: None for one device.
        fits: Whether Keras's `fit` works with the strategy.
    """
    case = cases()[name]
    keras.utils.set_random_seed(1)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model, optimizer = case.model(), QNewton(**case.options)
        if fits and case.by_fit and not (strategy is None and case.apart):
            model.compile(optimizer, case.loss)
            data = tf.data.Dataset.from_tensor_slices((case.x, case.y))
            # An epoch of several replicas takes as long to begin as many steps.
            batches = data.batch(case.batch or len(case.x)).repeat()
            model.fit(batches, steps_per_epoch=case.steps, shuffle=False, verbose=0)
        elif strategy is None:
            _minimize(case, name, model, optimizer)
        else:
            _minimize_together(case, name, model, optimizer, strategy)
    copies = (
        []
        if strategy is None
        else [strategy.experimental_local_results(v.value) for v in model.trainable_variables]
    )
    return Run(
        np.concatenate([np.ravel(v) for v in model.trainable_variables]),
        list(optimizer.decisions),
        max((np.abs(a - b).max() for a, *others in copies for b in others), default=0.0),
    )


def _loss(case: Case, name: str, model: keras.Model, x: Any, y: Any) -> Any:
    if name == "equation":
        return residual_of_poisson(model, x) / _replicas()
    # Keras divides by the number of replicas, in their contexts.
    together = case.weighted and _replicas() == 1
    given = {"sample_weight": weights_of_halves(len(case.x))} if together else {}
    return case.loss(y, model(x, training=True), **given) + sum(model.losses) / _replicas()


def weights_of_halves(count: int) -> np.ndarray:
    """What each example of a batch counts for, in a mean over all, if each half counts for one."""
    sizes = [len(half) for half in halves(np.zeros(count))]
    return np.concatenate([np.full(n, count / (REPLICAS * n)) for n in sizes])


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def halves(a: np.ndarray) -> list[np.ndarray]:
    """As `MirroredStrategy` deals a batch out: the first replica has the odd example."""
    middle = -(-len(a) // REPLICAS)
    return [a[:middle], a[middle:]]


def _minimize(case: Case, name: str, model: keras.Model, optimizer: QNewton) -> None:
    """On one device: the mean over the halves, or of all."""

    @tf.function(reduce_retracing=True)
    def step(xs: Any, ys: Any) -> Any:
        def loss() -> Any:
            found = [_loss(case, name, model, x, y) for x, y in zip(xs, ys, strict=True)]
            return tf.add_n(found) / len(found)

        return optimizer.minimize(loss, model.trainable_variables)

    size = case.batch or len(case.x)
    starts = range(0, len(case.x), size)
    for k in range(case.steps):
        start = starts[k % len(starts)]
        batch = [a[start : start + size] for a in (case.x, case.y)]
        step(*([tf.constant(a) for a in (halves(b) if case.apart else [b])] for b in batch))


def _minimize_together(
    case: Case,
    name: str,
    model: keras.Model,
    optimizer: QNewton,
    strategy: tf.distribute.Strategy,
) -> None:
    """By two replicas, each of which knows its half."""

    def part(a: np.ndarray) -> Any:
        dealt = halves(a)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(dealt[context.replica_id_in_sync_group])
        )

    @tf.function
    def step(x: Any, y: Any) -> Any:
        def by_replica(x: Any, y: Any) -> Any:
            return optimizer.minimize(
                lambda: _loss(case, name, model, x, y), model.trainable_variables
            )

        return strategy.run(by_replica, args=(x, y))

    x, y = part(case.x), part(case.y)
    for _ in range(case.steps):
        step(x, y)
