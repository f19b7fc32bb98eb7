"""Newton's method for Keras, with every linear system scheduled between classical and
quantum solvers (Q-Newton, arXiv:2405.00252)."""

import sys as _sys

from keras_qnewton.version import __version__ as __version__


def _is_command() -> bool:
    """Whether Python was started by `-m keras_qnewton`, whose commands need no TensorFlow.

    While Python looks for a module to run, `sys.argv` begins with "-m".
    """
    given = _sys.orig_argv
    return (
        _sys.argv[:1] == ["-m"]
        and "-m" in given[:-1]
        and given[given.index("-m") + 1] in (__name__, f"{__name__}.__main__")
    )


if not _is_command():
    import keras as _keras

    if _keras.backend.backend() != "tensorflow":
        raise ImportError(
            "keras_qnewton needs Keras on TensorFlow: set the environment variable "
            "KERAS_BACKEND=tensorflow before importing keras. "
            f"Received: {_keras.backend.backend()!r}"
        )

    from keras_qnewton.audit import audit
    from keras_qnewton.callbacks import NewtonLog
    from keras_qnewton.conditioning import Adaptive, Constant, Pruning
    from keras_qnewton.curvature import Blocks
    from keras_qnewton.explain import explain
    from keras_qnewton.optimizer import QNewton
    from keras_qnewton.quasi_newton import QuasiNewton, StrongWolfe
    from keras_qnewton.scheduling import Scheduler
    from keras_qnewton.types import Decision, Solution
    from keras_qnewton.virtual_clock import project

__all__ = [
    "Adaptive",
    "Blocks",
    "Constant",
    "Decision",
    "NewtonLog",
    "Pruning",
    "QNewton",
    "QuasiNewton",
    "Scheduler",
    "Solution",
    "StrongWolfe",
    "audit",
    "explain",
    "project",
]
