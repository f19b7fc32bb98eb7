"""Scikit-learn and KerasTuner around a model, and names of optimizers.

Each test is a row of `docs/compatibility.md`.
"""

import keras
import numpy as np
import pytest

from keras_qnewton import QNewton
from tests.compatibility.cells import L, X, Y, cell, compiled, falls, fitted, small


@cell("Wrappers", "`SKLearnRegressor`, `clone` and `cross_val_score` of scikit-learn")
@pytest.mark.slow
def test_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")

    def build(X, y):
        del X, y
        return compiled()

    wrapped = keras.wrappers.SKLearnRegressor(build, fit_kwargs={"epochs": 6, "verbose": 0})
    scores = selection.cross_val_score(wrapped, X, Y[:, 0], cv=2, scoring="neg_mean_squared_error")
    assert np.isfinite(scores).all()


@cell("Wrappers", "`SKLearnClassifier` in a `GridSearchCV` over settings of the optimizer")
@pytest.mark.slow
def test_grid_search():
    selection = pytest.importorskip("sklearn.model_selection")

    def build(X, y, blocks):
        del X, y
        model = small()
        model.pop()
        model.add(L.Dense(2, activation="softmax"))
        model.compile(QNewton(blocks=blocks), "categorical_crossentropy")
        return model

    wrapped = keras.wrappers.SKLearnClassifier(
        build, model_kwargs={"blocks": "full"}, fit_kwargs={"epochs": 8, "verbose": 0}
    )
    grid = {"model_kwargs": [{"blocks": name} for name in ("full", "layer")]}
    search = selection.GridSearchCV(wrapped, grid, cv=2, error_score="raise")
    search.fit(X, (Y[:, 0] > 0).astype(int))
    assert search.best_score_ > 0.8


@cell("Wrappers", "KerasTuner: a search over settings of the optimizer")
@pytest.mark.filterwarnings("ignore:Skipping variable loading")  # with any optimizer
def test_a_tuner(tmp_path):
    tuner = pytest.importorskip("keras_tuner")

    def build(choices):
        kinds = ["gauss_newton", "quasi_newton"]
        rate = choices.Float("learning_rate", 0.5, 1.0)
        return compiled(curvature=choices.Choice("curvature", kinds), learning_rate=rate)

    options = {"objective": "val_loss", "max_trials": 2, "seed": 1, "directory": tmp_path}
    search = tuner.RandomSearch(build, **options)
    fit = {"batch_size": len(X), "epochs": 4, "validation_data": (X, Y), "verbose": 0}
    search.search(X, Y, **fit)
    best = search.get_best_models(1)[0]
    assert best.evaluate(X, Y, verbose=0) < 0.5
    assert falls(fitted(best, epochs=8))


@cell("Names", "two optimizers of one name, numbered as Keras does it")
def test_names_of_instances():
    keras.utils.clear_session()
    assert [QNewton().name for _ in range(3)] == ["qnewton", "qnewton_1", "qnewton_2"]
    assert QNewton(name="mine").name == "mine"
