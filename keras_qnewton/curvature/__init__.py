"""Curvature of a loss: Hessian-vector products and Hessian blocks, exact."""

from keras_qnewton.curvature.blocks import Block, Blocks
from keras_qnewton.curvature.closures import hessian, hvp
from keras_qnewton.curvature.hessian import ExactHessian

__all__ = ["Block", "Blocks", "ExactHessian", "hessian", "hvp"]
