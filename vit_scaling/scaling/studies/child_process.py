"""Run a command that ends with its parent: `child_process.py PARENT COMMAND …`.

On Linux the kernel kills the command when the process PARENT ends, even by SIGKILL.
Elsewhere a run's lock keeps a second trainer out of the folder of one that is left.
"""
# SPDX-License-Identifier: Apache-2.0

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etils import epath

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>; exec keeps it.


def run_command(
    command: Sequence[str],
    log: "epath.PathLike",
    show: Callable[[str], None] = lambda line: None,
) -> int:
    """Run a command, append its output to `log`, return its exit code.

    Args:
        command: The program and its arguments.
        log: A file; on an object store it appears when the command has ended.
        show: Called with every line of the output.
    """
    # Not at the top, since the command's process starts by running this file.
    from etils import epath

    from vit_scaling.io_files import is_remote

    process = subprocess.Popen(
        _words(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with epath.Path(log).open("ab") as file, process:
        for line in process.stdout or ():
            file.write(line)
            if not is_remote(log):  # There, a flush would send the file again.
                file.flush()
            show(line.decode(errors="replace").rstrip())
    return process.returncode


def run_and_show(command: Sequence[str], log: "epath.PathLike") -> int:
    """Run a command as `run_command` does, and print its output on standard error."""
    return run_command(
        command, log, lambda line: print(line, file=sys.stderr, flush=True)
    )


def _words(command: Sequence[str]) -> list[str]:
    """Return the command that ends with this process."""
    return [sys.executable, __file__, str(os.getpid()), *command]


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
