"""Keep the memory that a step frees, because getting it back costs time on a CPU."""
# SPDX-License-Identifier: Apache-2.0

import ctypes
import os
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1
_GROW_BY_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step; call it before the first step.

    TensorFlow frees a step's arrays at its end. By default glibc returns large ones to
    the system at once, which then clears and maps every page again in the next step.
    The process keeps the memory of its largest step until it ends.

    Returns:
        Whether it took effect: not without glibc, nor if the environment sets
        `MALLOC_…` or `GLIBC_TUNABLES`, which are respected.
    """
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    if not sys.platform.startswith("linux") or is_set or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # Another C library.
        return False
    options = (
        (_MMAP_MAX, 0),
        (_TRIM_THRESHOLD, _NEVER),
        (_TOP_PAD, _GROW_BY_BYTES),
    )
    return all([mallopt(name, value) == 1 for name, value in options])
