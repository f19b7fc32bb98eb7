"""Symmetric linear systems: one solver a file, all with the same two stages.

`solve(matrix, rhs)` is `compute(init(matrix), rhs)`; see `LinearSolver`. A solver that
cannot solve a system does not raise inside a graph: its residual says so (NaN, Inf or large),
and the caller goes on to the next route.
"""

from keras_qnewton.solvers.cg import ConjugateGradient
from keras_qnewton.solvers.cholesky import Cholesky
from keras_qnewton.solvers.eigen import Eigen
from keras_qnewton.solvers.lapack import Lapack
from keras_qnewton.solvers.ldl import LDL
from keras_qnewton.solvers.linear_solver import LinearSolver
from keras_qnewton.solvers.lu import LU
from keras_qnewton.solvers.quantum.adiabatic import AdiabaticWalk
from keras_qnewton.solvers.quantum.damped_least_squares import DampedLeastSquares
from keras_qnewton.solvers.quantum.hhl import HHL
from keras_qnewton.solvers.quantum.qsvt import QSVT
from keras_qnewton.solvers.quantum.readout import Exact, Shots
from keras_qnewton.solvers.quantum.shortcut import Shortcut
from keras_qnewton.solvers.sparse_lu import SparseLU

__all__ = [
    "HHL",
    "LDL",
    "LU",
    "QSVT",
    "AdiabaticWalk",
    "Cholesky",
    "ConjugateGradient",
    "DampedLeastSquares",
    "Eigen",
    "Exact",
    "Lapack",
    "LinearSolver",
    "Shortcut",
    "Shots",
    "SparseLU",
]
