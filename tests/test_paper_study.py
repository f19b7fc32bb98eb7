"""The study's parts: data, models, the exact spectrum and the claims' arithmetic."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
from examples.paper import claims, data, models, pricing, training
from examples.paper.settings import GATE_TIMES, study
from keras_qnewton.types import Decision
from keras_qnewton.virtual_clock import project


def test_offline_data_are_real_and_split():
    lines = data.docstring_lines(words=60, length=12)
    assert lines.x.shape[1] == 12 and lines.x.max() < 60 and len(lines.x) > 1000
    counts = np.bincount(np.concatenate([lines.y, lines.y_test]))
    assert len(counts) == 4 and len(set(counts)) == 1
    text = data.characters(tokens=40, length=16)
    assert text.x.max() < 40 and len(text.x) > 1000
    np.testing.assert_array_equal(text.x[:, 1:], text.y[:, :-1])


def test_characters_of_a_given_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcab" * 40, encoding="utf-8")
    text = data.characters(tokens=3, length=5, path=str(path))
    everything = np.concatenate([text.x, text.x_test])
    # a, b are the most frequent, c is one of the others.
    assert all(row.tolist() == [1, 2, 0, 1, 2] for row in everything)


def test_the_language_model_does_not_see_what_comes_later():
    own = data.characters(tokens=20, length=8)
    model = models.gpt(own, 6)
    x = own.x[:4].copy()
    before = model(x).numpy()
    x[:, 5] = (x[:, 5] + 1) % 20
    after = model(x).numpy()
    np.testing.assert_allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert np.abs(before[:, 5:] - after[:, 5:]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_transformers_learn(name):
    family = next(f for f in study("offline").families if f.name == name)
    small = dataclasses.replace(family, hidden=8)
    run = training.newton(small, family.data(), 30, pricing.scheduler("paper"), probes=2)
    assert np.mean(run.losses[-3:]) < run.losses[0] - 0.02
    assert len({r["block"] for r in run.probes}) == 11 and not any(
        d.fallback for d in run.decisions
    )


def test_spectrum_of_a_known_matrix():
    rng = np.random.default_rng(0)
    vectors, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    values = np.concatenate([np.zeros(5), np.geomspace(1e-3, 2.0, 15)])
    matrix = (vectors * values) @ vectors.T
    found = training.spectrum(matrix, 0.01)
    shift = 0.01 * np.abs(matrix).max()
    assert found["kappa"] == pytest.approx((2 + shift) / shift, rel=1e-9)
    shifted = matrix + shift * np.eye(20)
    assert found["alpha"] == pytest.approx(np.linalg.norm(shifted) / np.linalg.norm(shifted, 2))
    assert found["kappa"] == pytest.approx(np.linalg.cond(matrix + shift * np.eye(20)), rel=1e-9)
    assert found["rank"] == 15
    masses = [np.sort(np.abs(row))[::-1][:5].sum() / np.abs(row).sum() for row in matrix]
    assert found["row_mass"]["0.25"] == pytest.approx(np.mean(masses))


def test_claims_of_a_made_up_log():
    """κ 2e4 stays classical, κ 100 does not; both fall by what they fall."""
    log = [
        Decision("lu", "", {}, 256, kappa, 256, step=step, block=block)
        for step in range(3)
        for block, kappa in (("a", 100.0), ("b", 2e4))
    ]
    names = (*pricing.SWEPT, "detailed", "shortcut", "shortcut, with readout")
    priced = pricing.priced(log, names)
    shortest = project(log, GATE_TIMES[-1], pricing.scheduler("paper"))
    probes = [
        {"step": step, "block": "a", "kappa": kappa, "log10_bound": 9.0}
        for step, kappa in ((0, 5e3), (1, 1e4), (2, 2.0))
    ]
    saved, routed, falls = claims.claims(priced, log, shortest, {"mlp": probes})
    # Half of the systems, all of one size.
    assert saved["number"] == pytest.approx(0.5, abs=1e-3) and not saved["holds"]
    assert (routed["above"], routed["number"], routed["holds"]) == (3, 1.0, True)
    assert routed["circuit_faster_all_the_same"] == 3
    assert falls["number"] == 2500 and falls["holds"]
    assert falls["blocks"][0]["largest_fall"] == 5000
