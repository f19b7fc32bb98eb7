"""Which direction a block takes."""

from __future__ import annotations

from keras_qnewton.directions.compiling import check_compiles
from keras_qnewton.directions.direction import AnyDirection
from keras_qnewton.directions.elsewhere import Elsewhere
from keras_qnewton.directions.matrix_free import MatrixFree
from keras_qnewton.directions.problem import BlockProblem
from keras_qnewton.directions.rescaled import Rescaled
from keras_qnewton.directions.saddle_free import Absolute, SaddleFree
from keras_qnewton.directions.scheduled import Scheduled
from keras_qnewton.directions.traits import is_bounded
from keras_qnewton.directions.woodbury import Woodbury
from keras_qnewton.settings import Settings


def direction(problem: BlockProblem, settings: Settings, elsewhere: bool = False) -> AnyDirection:
    """The direction of `problem`: by its rows where they are few on this batch, else as it is.

    Args:
        problem: The block's.
        settings: The policies of the step.
        elsewhere: Whether another worker solves it where it is formed.
    """
    chosen = _full_rank(problem, settings, elsewhere)
    return chosen if problem.low_rank is None else Woodbury(settings, otherwise=chosen)


def _full_rank(problem: BlockProblem, settings: Settings, elsewhere: bool) -> AnyDirection:
    if not problem.part.dense:
        return MatrixFree(settings)
    chosen = Elsewhere(settings) if elsewhere else _of_matrix(problem, settings)
    return chosen if problem.rescaled is False else Rescaled(settings, chosen)


def _of_matrix(problem: BlockProblem, settings: Settings) -> AnyDirection:
    linear = settings.scheduler.quantum is not None or problem.semidefinite
    if not settings.damping.saddle_free(linear=linear):
        check_compiles(settings.scheduler, problem.size, is_bounded(problem, settings))
        return Scheduled(settings)
    if Absolute.possible(settings.scheduler, problem.size):
        check_compiles(settings.scheduler, problem.size, definite=False)
        return Absolute(settings)
    return SaddleFree(settings)
