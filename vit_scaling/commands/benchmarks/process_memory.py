"""The memory of this process, and of functions that are called in fresh processes."""
# SPDX-License-Identifier: Apache-2.0

import concurrent.futures
import multiprocessing
import pathlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

PROCESS = pathlib.Path("/proc/self")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def call_in_fresh_process(
    function: Callable[Parameters, Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Return the result of a function in a process that has done nothing before."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def status_bytes(name: str) -> int:
    """Return a value of /proc/self/status: VmRSS is the memory, VmHWM its peak."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
