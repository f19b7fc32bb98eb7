"""Problems on which quasi-Newton methods are compared, by name."""

from __future__ import annotations

from .equations import convection, reaction, wave
from .fits import LOGISTIC, POISSON2D, REGRESSION, ROSENBROCK
from .fronts import allen_cahn, burgers
from .networks import NETWORKS
from .problem import Problem, Setup, Task
from .race_tasks import RACE

_EQUATIONS = (convection(20), convection(40), reaction(5), wave(5), burgers(), allen_cahn())
_FITS = (REGRESSION, LOGISTIC, ROSENBROCK, *NETWORKS, *RACE)
_ALL = (POISSON2D, *(e.problem() for e in _EQUATIONS), *_FITS)
PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in _ALL}

__all__ = ["PROBLEMS", "Problem", "Setup", "Task"]
