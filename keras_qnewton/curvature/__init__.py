"""Curvature of a loss, as blocks and as products: exact, Gauss-Newton or empirical Fisher."""

from keras_qnewton.curvature.blocks import Block, Blocks
from keras_qnewton.curvature.closures import fisher, gauss_newton, hessian, hvp
from keras_qnewton.curvature.fisher import EmpiricalFisher
from keras_qnewton.curvature.gauss_newton import AutoCurvature, GaussNewton
from keras_qnewton.curvature.hessian import ExactHessian
from keras_qnewton.curvature.linearized import Linearized
from keras_qnewton.curvature.policy import Curvature

__all__ = [
    "AutoCurvature",
    "Block",
    "Blocks",
    "Curvature",
    "EmpiricalFisher",
    "ExactHessian",
    "GaussNewton",
    "Linearized",
    "fisher",
    "gauss_newton",
    "hessian",
    "hvp",
]
