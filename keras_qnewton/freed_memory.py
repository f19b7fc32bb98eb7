"""Memory that a step frees stays with the process, for the next step.

glibc returns freed memory to the system once more of it is free at the heap's top than twice the
largest block that was freed so far. Arrays of the next step are then mapped anew, page by page,
which of small models takes a good part of a step.

References:
    mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: how both follow the largest freed block.
"""

from __future__ import annotations

import functools

import numpy as np

# Bytes of the largest block that glibc's thresholds follow, 32 MB, less what it writes beside one.
_LARGEST = 2**25 - 2**16


@functools.cache
def keep_freed_memory() -> None:
    """Has glibc keep up to 64 MB of freed memory a heap; once a process, nothing elsewhere.

    The block is never written to, so that it takes no memory and next to no time.
    """
    np.empty(_LARGEST, np.uint8)
