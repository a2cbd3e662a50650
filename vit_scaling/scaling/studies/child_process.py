"""Run a command that ends with its parent: `child_process.py PARENT COMMAND …`.

On Linux the kernel kills the command when the process PARENT ends, even by SIGKILL.
Elsewhere a run's lock keeps a second trainer out of the folder of one that is left.
"""
# SPDX-License-Identifier: Apache-2.0

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>; exec keeps it.


def run_command(command: Sequence[str], log: pathlib.Path) -> int:
    """Run a command, append its output to `log`, return its exit code."""
    words = [sys.executable, __file__, str(os.getpid()), *command]
    with open(log, "ab") as file:
        return subprocess.run(words, stdout=file, stderr=file, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Replace this process by the command; return 1 if the parent has ended already."""
    parent, *command = arguments
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != int(parent):  # It ended before the request.
        return 1
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
