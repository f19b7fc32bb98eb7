"""Scheduling: what a solve would cost by each route, and which route it takes."""

from keras_qnewton.scheduling.asymptotic import AsymptoticQLSA
from keras_qnewton.scheduling.cg_time import CGTime
from keras_qnewton.scheduling.circuit import CircuitQLSA
from keras_qnewton.scheduling.detailed import DetailedQLSA
from keras_qnewton.scheduling.few_preparations import FewPreparationsQLSA
from keras_qnewton.scheduling.forcing import Forcing
from keras_qnewton.scheduling.lu_time import LUTime
from keras_qnewton.scheduling.reshape import Reshape
from keras_qnewton.scheduling.scheduler import Scheduler
from keras_qnewton.scheduling.shortcut import ShortcutQLSA
from keras_qnewton.scheduling.solver_time import SolverTime
from keras_qnewton.scheduling.sparse_lu_time import SparseLUTime

__all__ = [
    "AsymptoticQLSA",
    "CGTime",
    "CircuitQLSA",
    "DetailedQLSA",
    "FewPreparationsQLSA",
    "Forcing",
    "LUTime",
    "Reshape",
    "Scheduler",
    "ShortcutQLSA",
    "SolverTime",
    "SparseLUTime",
]
