"""Equal forms of operations whose gradients TensorFlow cannot differentiate once more.

An operation of a row of `FORMS` is run again as that: the same value and the same first
derivative, by operations that tapes differentiate as often as wanted. One file a kind.
"""

from keras_qnewton.loss.forms import (
    cross_entropy,
    cumulative,
    determinants,
    elementwise,
    images,
    pooling,
    products,
    quantization,
    segment_products,
    segments,
    special,
    spectra,
    zero_factors,
)
from keras_qnewton.loss.forms.table import FORMS, Form, form

__all__ = [
    "FORMS",
    "Form",
    "cross_entropy",
    "cumulative",
    "determinants",
    "elementwise",
    "form",
    "images",
    "pooling",
    "products",
    "quantization",
    "segment_products",
    "segments",
    "special",
    "spectra",
    "zero_factors",
]
