"""Variants of tests that take long; others of the same test run in `make test`.

`make test-all` runs all of them. Each line is how the names of variants begin. There is a file for
each folder that has many.
"""

from tests.slow_variants import curvature, optimizer, others, solvers

SLOW_VARIANTS = {
    **curvature.SLOW_VARIANTS,
    **optimizer.SLOW_VARIANTS,
    **others.SLOW_VARIANTS,
    **solvers.SLOW_VARIANTS,
}
