"""Quasi-Newton: an inverse Hessian that is learned from differences of gradients."""

from keras_qnewton.quasi_newton.dense import DenseInverse
from keras_qnewton.quasi_newton.inverse import InverseHessian
from keras_qnewton.quasi_newton.line_search import Point, Searched, StrongWolfe
from keras_qnewton.quasi_newton.policy import QuasiNewton

__all__ = ["DenseInverse", "InverseHessian", "Point", "QuasiNewton", "Searched", "StrongWolfe"]
