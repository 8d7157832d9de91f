"""Keep freed memory in the process, which saves CPU time in every train step on Linux.

XLA allocates the temporaries of a step anew at every call. glibc serves blocks of that size by
`mmap` and gives them back at once, so that the kernel faults in and zeroes every page in every
step. Two settings make the pages stay in the main arena; but XLA allocates in its own threads,
whose arenas shrink all the same, so a third has all threads share the main one.
`benchmarks/train_step.py --system-malloc` measures the step without them.
"""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to hand memory back to the kernel.

    To be called before JAX computes anything: a thread that has an arena keeps it.

    Returns:
        Whether it was done; False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = [mallopt(_M_ARENA_MAX, 1), mallopt(_M_MMAP_MAX, 0)]
    done.append(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    return all(done)
