"""The outputs z of a network in which its loss is convex, and C = d²/dz² of its terms."""

from keras_qnewton.curvature.outputs.base import (
    Candidate,
    ConvexOutput,
    ConvexPart,
    CurvatureByTapes,
    LossRule,
    OutputCurvature,
)
from keras_qnewton.curvature.outputs.ctc import ConnectionistTemporalClassification
from keras_qnewton.curvature.outputs.registered import ConvexLoss, convex_loss
from keras_qnewton.curvature.outputs.sigmoid import SigmoidCrossEntropy
from keras_qnewton.curvature.outputs.softmax import SoftmaxCrossEntropy

__all__ = [
    "Candidate",
    "ConnectionistTemporalClassification",
    "ConvexLoss",
    "ConvexOutput",
    "ConvexPart",
    "CurvatureByTapes",
    "LossRule",
    "OutputCurvature",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "convex_loss",
]
