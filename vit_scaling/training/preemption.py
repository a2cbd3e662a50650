"""Preemption by SIGTERM: noted here, so that the run saves and stops after its loop."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

# "Temporary failure, try again" of sysexits.h.
EXIT_CODE = 75


class PreemptedError(RuntimeError):
    """Training was stopped by SIGTERM; it has saved and can be started again."""


class PreemptionNotice:
    """Whether any process of the run received SIGTERM.

    Example:
        >>> notice = PreemptionNotice()
        >>> with notice.catch_sigterm():
        ...     signal.raise_signal(signal.SIGTERM)
        >>> notice.is_given()
        True
    """

    def __init__(self, sum_over_processes: Callable[[int], int] = int) -> None:
        """Create a notice that is not given yet.

        Args:
            sum_over_processes: From `strategy.sum_over_processes`.
        """
        self.sum_over_processes = sum_over_processes
        self._signals = 0

    @contextlib.contextmanager
    def catch_sigterm(self) -> Iterator[None]:
        """Context manager: note a first SIGTERM; a second one ends the process at once.

        Signals reach only the main thread: in another thread nothing is caught.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            with _exit_at_second_sigterm():
                yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def is_given(self) -> bool:
        """Whether any process received SIGTERM; all processes must call it together."""
        return self.sum_over_processes(self._signals) > 0

    def _note(self, number: int, _: Any) -> None:
        self._signals += 1
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _exit_at_second_sigterm() -> Iterator[None]:
    """Context manager: exit at a second SIGTERM, even while TensorFlow runs a loop.

    Python calls a signal handler only between two lines of the main thread, here after
    the loop. It writes each signal's number to a pipe at once, which a thread reads.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    thread = threading.Thread(target=_exit_at_second_signal, args=(reads,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writes)  # The thread reads the end of the pipe and returns.
        thread.join()


def _exit_at_second_signal(reads: int) -> None:
    count = 0
    with open(reads, "rb", buffering=0) as pipe:
        while numbers := pipe.read(64):
            count += numbers.count(signal.SIGTERM)
            if count > 1:
                os._exit(128 + signal.SIGTERM)  # The exit code that a shell reports.
