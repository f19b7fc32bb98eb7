"""What a direction knows of its block."""

import numpy as np
import pytest
import tensorflow as tf

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
