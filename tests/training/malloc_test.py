"""Freed memory stays with the process: counted by the pages that are mapped again."""
# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys

PROGRAM = """
import ctypes, resource, sys
if sys.argv[1] == "keep":
    from vit_scaling.training.malloc import keep_freed_memory
    assert keep_freed_memory() is (sys.argv[2] == "glibc")
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size = 64 * 2**20
for turn in range(6):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
ONE_BLOCK = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")


def pages_mapped_again(*arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_blocks_are_used_again_instead_of_mapped_again():
    assert pages_mapped_again("keep", "glibc") < ONE_BLOCK
    assert pages_mapped_again("plain") > 4 * ONE_BLOCK


def test_what_the_environment_says_of_malloc_is_left_alone():
    again = pages_mapped_again("keep", "environment", MALLOC_TOP_PAD_="131072")
    assert again > 4 * ONE_BLOCK
