"""Inexact Newton: how far a circuit's solution is from the system's, step by step.

    ‖A x - g‖ ≤ η_k ‖g‖,    η_k = γ (‖g_k‖ / ‖g_{k-1}‖)^α,    η_k ≥ γ η_{k-1}^α where that is > 0.1

(Eisenstat & Walker 1996, SIAM J. Sci. Comput. 17(1), choice 2 and its safeguard). Early steps are
cut or damped anyway, and an exact solution is worth no more than a coarse one (Dembo, Eisenstat &
Steihaug 1982). Where gradients fall fast, η falls with the square of that, so that the last steps
converge as exact ones do.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_number
from keras_qnewton.registry import Policy

# η above which the next may not fall at once.
_SAFEGUARD = 0.1


@keras.saving.register_keras_serializable(package="keras_qnewton")
class Forcing(Policy):
    """η_k of each step; see the module.

    Args:
        factor: γ, in (0, 1].
        power: α, in (1, 2].
        first: η of the first step.
        largest: No η is above; where the data change from step to step, each is.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self, factor: float = 0.9, power: float = 2.0, first: float = 0.1, largest: float = 0.1
    ) -> None:
        self.power = check_number("power", power, "above 1 and at most 2", least=1.0, most=2.0)
        fraction = "a number above 0 and at most 1"
        self.factor = check_number("factor", factor, fraction, most=1.0)
        self.first = check_number("first", first, fraction, most=1.0)
        self.largest = check_number("largest", largest, fraction, most=1.0)

    def term(self, norm: tf.Tensor, last_norm: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """η_k, scalar float64.

        Args:
            norm: ‖g_k‖, scalar float64.
            last_norm: ‖g_{k-1}‖; not positive before the first step.
            last: η_{k-1}.
        """
        first, largest = (tf.constant(v, tf.float64) for v in (self.first, self.largest))
        ratio = tf.math.divide_no_nan(norm, last_norm)
        found = self.factor * tf.pow(ratio, self.power)
        before = self.factor * tf.pow(last, self.power)
        found = tf.where(before > _SAFEGUARD, tf.maximum(found, before), found)
        known = (last_norm > 0) & tf.math.is_finite(last_norm) & tf.math.is_finite(found)
        return tf.minimum(tf.where(known, found, first), largest)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "power": self.power,
            "first": self.first,
            "largest": self.largest,
        }


def forcing_policy(given: Any) -> Forcing | None:
    """The policy that the argument `forcing` asks for, or None.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(given, Forcing):
        return given
    if isinstance(given, bool):
        return Forcing() if given else None
    raise ValueError(
        f"Argument `forcing` must be True, False or a `Forcing`. Received: forcing={given!r}"
    )
