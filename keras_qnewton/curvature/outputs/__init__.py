"""The output z of a network in which its loss is convex, and C = d²L/dz²: one file a loss."""

from keras_qnewton.curvature.outputs.base import (
    Candidate,
    ConvexOutput,
    ConvexPart,
    CurvatureByTapes,
    LossRule,
    OutputCurvature,
)
from keras_qnewton.curvature.outputs.registered import convex_output
from keras_qnewton.curvature.outputs.sigmoid import SigmoidCrossEntropy
from keras_qnewton.curvature.outputs.softmax import SoftmaxCrossEntropy
from keras_qnewton.curvature.outputs.squared_error import SquaredError

__all__ = [
    "Candidate",
    "ConvexOutput",
    "ConvexPart",
    "CurvatureByTapes",
    "LossRule",
    "OutputCurvature",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "convex_output",
]
