"""Whether XLA compiles the route of a block, asked while the graph is traced.

XLA's own error comes when the step is first run, and names an operation in the place of a setting.
"""

from __future__ import annotations

from keras_qnewton import _tf_private
from keras_qnewton.conditioning import estimator_compiles
from keras_qnewton.scheduling import Scheduler

_ADVICE = (
    "Pass `jit_compile=False` to `compile` or `tf.function`; or leave `scheduler` out, or pass one "
    'whose routes XLA compiles, `Scheduler(classical="cholesky", quantum=None)` for one (so does '
    '"ldl", "eigen", or "cg"). No weight was changed.'
)


def check_compiles(scheduler: Scheduler, size: int, definite: bool) -> None:
    """Refuses a scheduler with a route that XLA does not compile, in a graph that it will.

    Args:
        scheduler: The optimizer's.
        size: N of the block.
        definite: Whether its systems are known to be positive definite.

    Raises:
        ValueError: With both settings, and what to change.
    """
    if not _tf_private.compiled_by_xla():
        return
    # The others are not in the graph.
    possible = scheduler.possible(size, definite)
    routes = [str(s.name) for s in scheduler.solvers if s.name in possible and not _compiles(s)]
    if routes:
        raise ValueError(
            f"`jit_compile=True` does not go with this `scheduler`: XLA does not compile its "
            f"{'routes' if routes[1:] else 'route'} {', '.join(map(repr, routes))} (a host call, "
            "as all circuits are, or an operation that XLA does not have, as LU is). "
            f"{_ADVICE} Received: jit_compile=True, scheduler={scheduler!r}"
        )
    estimator = scheduler.estimator
    if estimator is not None and not estimator_compiles(estimator):
        raise ValueError(
            "`jit_compile=True` does not go with the scheduler's `estimator`: XLA compiles "
            f'"exact" alone. {_ADVICE} Received: jit_compile=True, estimator={estimator!r}'
        )


def _compiles(solver: object) -> bool:
    return bool(getattr(solver, "compiles", True)) and not getattr(solver, "host", False)
