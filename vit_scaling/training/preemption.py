"""SIGTERM: finish the loop in hand, save, and leave with a code of its own."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

# "Temporary failure, try again" of sysexits.h: no success, and no error of the run's.
EXIT_CODE = 75


class PreemptedError(RuntimeError):
    """Training was asked to end by SIGTERM; it has saved and can be started again."""


class Notice:
    """Whether this process, or another of the run's, was asked to end.

    Example:
        >>> notice = Notice()
        >>> with notice.watched():
        ...     signal.raise_signal(signal.SIGTERM)
        >>> notice.given()
        True
    """

    def __init__(self, agree: Callable[[int], int] = int) -> None:
        """Take the sum over the run's processes (`agreement.sum_over_processes`)."""
        self.agree = agree
        self._signals = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator["Notice"]:
        """Note SIGTERM inside a `with`; a second one ends the process at once.

        Only the main thread may hold signals: in another nothing is watched.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            with _ended_by_a_second():
                yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def given(self) -> bool:
        """Return whether any process was asked to end; all must call it together."""
        return self.agree(self._signals) > 0

    def _note(self, number: int, _: Any) -> None:
        self._signals += 1
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _ended_by_a_second() -> Iterator[None]:
    """End the process at a second SIGTERM also while TensorFlow runs a loop of steps.

    Python calls a handler only between two lines of the main thread, so once the loop
    has ended; but it writes each signal's number to a pipe at once: a thread reads it.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    thread = threading.Thread(target=_end_at_the_second, args=(reads,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writes)  # The thread reads the pipe's end, and ends too.
        thread.join()


def _end_at_the_second(reads: int) -> None:
    told = 0
    with open(reads, "rb", buffering=0) as pipe:
        while numbers := pipe.read(64):
            told += numbers.count(signal.SIGTERM)
            if told > 1:
                os._exit(128 + signal.SIGTERM)  # As a shell tells of such an end.
