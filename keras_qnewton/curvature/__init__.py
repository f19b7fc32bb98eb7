"""Curvature of a loss: exact Hessian or Gauss-Newton, as blocks and as products."""

from keras_qnewton.curvature.blocks import Block, Blocks
from keras_qnewton.curvature.closures import gauss_newton, hessian, hvp
from keras_qnewton.curvature.gauss_newton import AutoCurvature, GaussNewton
from keras_qnewton.curvature.hessian import ExactHessian

__all__ = [
    "AutoCurvature",
    "Block",
    "Blocks",
    "ExactHessian",
    "GaussNewton",
    "gauss_newton",
    "hessian",
    "hvp",
]
