"""How λ follows the trust ratio."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_qnewton import Adaptive

RATIOS = st.floats(-1e6, 1e6)


def updated(ratio, damping=1.0, accepted=True, scale=1.0):
    def tensor(value):
        return tf.constant(value, tf.float64)

    return float(
        Adaptive().update(tensor(damping), tensor(ratio), tf.constant(accepted), tensor(scale))
    )


@pytest.mark.parametrize(
    "ratio, factor",
    [(0.1, 4), (0.25, 1), (0.5, 1), (0.75, 0.75), (0.9, 0.36), (1, 0.25), (1.5, 0.25), (-1, 4)],
)
def test_falls_after_a_good_step_and_rises_after_a_poor_one(ratio, factor):
    np.testing.assert_allclose(updated(ratio), factor, rtol=1e-12)


@given(RATIOS, RATIOS)
def test_the_better_a_step_the_lower(one, other):
    worse, better = sorted([one, other])
    assert updated(better) <= updated(worse)
    assert 0.25 <= updated(better) <= 4


@given(RATIOS)
def test_a_refused_step_raises_it(ratio):
    assert updated(ratio, accepted=False) == 8


def test_it_stays_where_a_ratio_is_hidden_and_returns_to_the_start_if_it_was_above():
    start = float(Adaptive().start(tf.constant(1.0, tf.float64)))
    assert updated(np.nan, damping=start / 3) == start / 3
    assert updated(np.nan, damping=1.0) == 0.25
    assert updated(np.nan, damping=2 * start) == start


@given(RATIOS, st.sampled_from([1e-9, 1.0, 1e9]))
def test_a_scale_of_the_loss_changes_nothing(ratio, scale):
    np.testing.assert_allclose(updated(ratio, scale, scale=scale), scale * updated(ratio))


@given(RATIOS | st.just(np.nan), st.floats(1e-20, 1.0), st.sampled_from([1e-9, 1.0, 1e9]))
def test_it_is_stuck_where_it_is_smallest_and_the_model_right(ratio, damping, scale):
    arguments = (tf.constant(v, tf.float64) for v in (damping * scale, ratio, scale))
    assert bool(Adaptive().stuck(*arguments)) == (damping * scale < 1e-11 * scale and ratio >= 0.75)
