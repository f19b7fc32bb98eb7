"""Whether the blocks that are to be formed, and what forms them, fit into memory; asked before."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Sequence

from keras_qnewton.curvature.blocks import Part

# Bytes for each of the N² numbers of a block: the single precision matrix and its parts,
# and in double precision the system, its factor and the factorisation's working copy. Measured:
# 12,560 weights (MNIST's first layer) took 39 N² beyond the process.
_BYTES_PER_ENTRY = 40.0
# Matrices of its size that forming a block takes beside it: its rows, and its parts.
_FORMING = 2.0
# Share of what is available that one batch's intermediate results may take.
_SHARE = 0.25
# Limits of a container, control groups of version 2 and 1: folder, limit, what is used, and of
# that in `memory.stat` what are files, which make way.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_cache",
    ),
)


def available_memory() -> float:
    """Bytes that can be had without swapping; infinite where the system does not say."""
    return min(_of_machine(), *(_of_container(*group) for group in _GROUPS))


def memory_of_a_batch(least: float) -> float:
    """Bytes that forming blocks from all examples at once may take: `least`, or more to be had."""
    free = available_memory()
    return least if math.isinf(free) else max(least, _SHARE * free)


def _of_container(folder: str, limit: str, used: str, files: str) -> float:
    group = pathlib.Path(folder)
    try:
        # "max", where there is no limit, is no number.
        free = float((group / limit).read_text()) - float((group / used).read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = next((line.split()[1] for line in lines if line.split()[0] == files), "0")
        return max(free + float(cached), 0.0)
    except (OSError, ValueError, IndexError):
        return math.inf


def _of_machine() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024.0 * float(line.split()[1])
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def check_memory(parts: Sequence[Part], kept: int, available: float) -> None:
    """Refuses blocks that would not fit, before the first step.

    Args:
        parts: The blocks.
        kept: How many matrices of a formed block's size are kept from step to step; one in double
            precision counts as two.
        available: Bytes.

    Raises:
        ValueError: With the number of weights that would fit, and the setting to change.
    """
    dense = [part for part in parts if part.dense]
    if not dense:
        return
    largest = max(dense, key=lambda part: part.size)
    needed = _needed([part.size for part in dense], kept)
    if needed <= available:
        return
    fits = math.isqrt(int(available / (_BYTES_PER_ENTRY + 4.0 * kept)))
    # Memory that smaller blocks keep is not there for the largest.
    while _needed([part.size for part in dense if part.size <= fits], kept) > available:
        fits = max(part.size for part in dense if part.size <= fits) - 1
    raise ValueError(
        f"Hessian block {largest.name!r} does not fit into memory: N = {largest.size:,} weights "
        f"take about {needed / 1e9:,.1f} GB to form and to solve, with what is kept of all blocks, "
        f"and {available / 1e9:,.1f} GB are available, enough for {fits:,} weights. "
        f"Pass blocks=Blocks(..., max_size={fits}) or less, so that larger blocks are not formed, "
        'or smaller blocks: blocks="layer" or '
        f'"variable". Received: max_size >= {largest.size}'
    )


def check_formed(parts: Sequence[Part], bytes_per_number: int, available: float) -> None:
    """Refuses blocks that would not fit, all of which are to be formed and returned.

    Args:
        parts: The blocks.
        bytes_per_number: Precision of their matrices.
        available: Bytes.

    Raises:
        ValueError: With the number of weights that would fit, and what to do instead.
    """
    largest = max(parts, key=lambda part: part.size)
    all_of_them = sum(part.size**2 for part in parts)
    needed = bytes_per_number * (all_of_them + _FORMING * largest.size**2)
    if needed <= available:
        return
    fits = math.isqrt(int(available / (bytes_per_number * (1 + _FORMING))))
    raise ValueError(
        f"Hessian blocks do not fit into memory: {len(parts)} of them, the largest "
        f"{largest.name!r} of N = {largest.size:,} weights, take about {needed / 1e9:,.1f} GB, and "
        f"{available / 1e9:,.1f} GB are available, enough for one of {fits:,} weights. Pass fewer "
        'variables, or smaller blocks: blocks="layer" or "variable". `hvp` multiplies by the '
        f"Hessian without forming it. Received: blocks of {sum(p.size for p in parts):,} weights"
    )


def _needed(sizes: Sequence[int], kept: int) -> float:
    """Bytes for blocks of these sizes: for the largest, and for what is kept of all."""
    if not sizes:
        return 0.0
    state = 4.0 * kept * sum(size**2 for size in sizes)
    return _BYTES_PER_ENTRY * max(sizes) ** 2 + state
