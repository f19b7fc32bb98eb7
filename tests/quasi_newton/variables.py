"""Variables of an inverse Hessian without an optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_qnewton.quasi_newton.inverse import Initializer


def add_variable(
    shape: Sequence[int], dtype: str, name: str, initializer: Initializer
) -> keras.Variable:
    """As an optimizer's `add_variable` does."""
    return keras.Variable(
        keras.initializers.get(initializer), shape=shape, dtype=dtype, name=name, trainable=False
    )
