"""SIGTERM: finish the loop in hand, save, and leave with a code of its own."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
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
        """Note SIGTERM inside a `with`; a second one ends the process as ever.

        Only the main thread may hold signals: in another nothing is watched.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def given(self) -> bool:
        """Return whether any process was asked to end; all must call it together."""
        return self.agree(self._signals) > 0

    def _note(self, number: int, _: Any) -> None:
        self._signals += 1
        signal.signal(number, signal.SIG_DFL)
