"""How far rounding moves a loss."""

from __future__ import annotations

import tensorflow as tf

# Relative error of a loss that is a mean of many terms, a few units in the last place.
ROUNDING = {tf.bfloat16: 2.0**-6, tf.float16: 2.0**-9, tf.float32: 2.0**-21, tf.float64: 2.0**-50}
