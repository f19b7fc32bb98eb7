"""`explain`, and what it returns."""

from keras_qnewton.explain.explanation import BlockExplanation, Explanation, OutputExplanation
from keras_qnewton.explain.of_model import explain

__all__ = ["BlockExplanation", "Explanation", "OutputExplanation", "explain"]
