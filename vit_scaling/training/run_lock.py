"""A lock on a run's folder, so that two processes never train in it at once.

The lock is a lease: a file `lock/CLAIM.json` that names host, process and time, renewed
by a thread while the run lasts. To take the lock, a process lists the folder, writes a
claim under a unique name, and lists again. It owns the lock if its claim is the only
live one. Otherwise it removes its claim, and tries again if both arrived together.

This rests on one primitive: a listing contains every file that was written before it.
Local file systems, Google Cloud Storage and Amazon S3 guarantee it; an NFS client reads
a folder again after writing into it. Of two claims written at the same time, at least
one listing contains both, so that two processes never own the lock. A file that only
one process can create (O_EXCL, `os.link`) would not do: `tf.io.gfile` has no such call
on object stores, and a stale one cannot be replaced in one step.
"""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from etils import epath

from vit_scaling import io_files

LOCK_FOLDER = "lock"
RENEW_SECONDS = 20.0
EXPIRES_SECONDS = 120.0  # A claim of another machine that stays unchanged is stale.
_ATTEMPTS = 5


class RunLockedError(RuntimeError):
    """Another process trains in the same folder."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """Who holds or wants the lock.

    Attributes:
        host: Name of the machine, for people.
        machine: Identifies where the process number is unique.
        process: Number of the process.
        process_start: When the process started, which tells it from a later one with
            the same number. Empty where the system does not tell.
        since: When the claim was made, in seconds since 1970.
        renewals: How often it was renewed.
    """

    host: str
    machine: str
    process: int
    process_start: str
    since: float
    renewals: int = 0

    @classmethod
    def of_this_process(cls) -> "Claim":
        """Return a new claim."""
        process = os.getpid()
        start = _process_start(process) or ""
        return cls(socket.gethostname(), _machine(), process, start, time.time())

    @property
    def is_local(self) -> bool:
        """Whether the process is on this machine, so that its end can be seen."""
        return self.machine == _machine()

    def has_ended(self) -> bool:
        """Whether the process, which is on this machine, no longer runs."""
        start = _process_start(self.process)
        return start is None or bool(start and start != self.process_start)


class RunLock:
    """The lock while it is held; it is renewed until it is released."""

    def __init__(self, path: epath.Path, claim: Claim, renew_seconds: float) -> None:
        """Start to renew a claim that owns the lock."""
        self._path, self._claim, self._renew_seconds = path, claim, renew_seconds
        self._checked = time.monotonic()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that no other process took over, which looks at the file rarely.

        Raises:
            RunLockedError: One did, since this process stood still for too long.
        """
        now = time.monotonic()
        if now - self._checked < self._renew_seconds:
            return
        self._checked = now
        if not self._path.exists():
            raise RunLockedError(
                f"Another process took over `model_dir` {self._path.parent.parent}, "
                f"since this one did not renew {self._path} for "
                f"{EXPIRES_SECONDS:.0f} seconds. Let the other one train."
            )

    def release(self) -> None:
        """Stop renewing the claim and remove it."""
        self._released.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(self._renew_seconds):
            renewals = self._claim.renewals + 1
            self._claim = dataclasses.replace(self._claim, renewals=renewals)
            try:
                if self._path.exists():  # Otherwise another process took over.
                    _write_claim(self._path, self._claim)
            except Exception as error:  # Of any file system.
                logging.warning("The lock could not be renewed: %s", error)


@contextlib.contextmanager
def hold_run_lock(
    model_dir: epath.PathLike,
    *,
    flag: str = "model_dir",
    renew_seconds: float = RENEW_SECONDS,
    expires_seconds: float = EXPIRES_SECONDS,
) -> Iterator[RunLock]:
    """Context manager: hold the lock on a run's folder.

    The claim of a process of this machine that has ended is removed at once. The claim
    of another machine is watched: it is stale if it stays unchanged for
    `expires_seconds`. Only this machine's clock counts.

    Args:
        model_dir: The run's folder; created if missing.
        flag: The flag that gives the folder, for messages.
        renew_seconds: Time between renewals.
        expires_seconds: How long a claim of another machine is watched.

    Raises:
        RunLockedError: Another process holds the lock; the message names it.
    """
    folder = epath.Path(model_dir) / LOCK_FOLDER
    new_folders = [path for path in (folder, folder.parent) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path, claim = folder / f"{uuid.uuid4().hex}.json", Claim.of_this_process()
    _acquire(path, claim, _Watch(folder, expires_seconds), flag)
    lock = RunLock(path, claim, renew_seconds)
    try:
        yield lock
    finally:
        lock.release()
        if not io_files.is_remote(folder):
            with contextlib.suppress(OSError):  # They are not empty.
                for path in new_folders:
                    os.rmdir(path)  # `epath` raises ValueError instead.


def _acquire(path: epath.Path, claim: Claim, watch: "_Watch", flag: str) -> None:
    """Write this process's claim, and return once it is the only live one."""
    attempts = 0
    while True:
        other = watch.other_claim(path)
        if other is None:
            _write_claim(path, claim)
            other = watch.other_claim(path)
            if other is None:
                return
            path.unlink(missing_ok=True)
        attempts += other.is_local
        if attempts == _ATTEMPTS or watch.was_renewed(other):
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(other.since))
            raise RunLockedError(
                f"`{flag}` {path.parent.parent} is in use by process "
                f"{other.process} on {other.host}, since {since}. End that process, or "
                f"take another --{flag}."
            )
        # Two that arrive together must not stay in step.
        time.sleep(random.uniform(0.05, 0.5))


class _Watch:
    """The claims of other processes as they change while this one waits."""

    def __init__(self, folder: epath.Path, expires_seconds: float) -> None:
        self._folder = folder
        self._expires_seconds = expires_seconds
        self._first_seen: dict[str, tuple[Claim, float]] = {}

    def other_claim(self, own: epath.Path) -> Claim | None:
        """Return the oldest live claim besides `own`; remove stale claims."""
        live = []
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.name == own.name or not path.match("[!.]*.json"):
                continue  # Other files are being written, or are a file system's own.
            claim = _read_claim(path)
            if claim is None:
                continue
            if self._is_stale(path.name, claim):
                path.unlink(missing_ok=True)
            else:
                live.append(claim)
        return min(live, key=lambda claim: claim.since, default=None)

    def was_renewed(self, claim: Claim) -> bool:
        """Whether a claim of another machine changed since it was first seen."""
        seen = [first for first, _ in self._first_seen.values()]
        return not claim.is_local and claim not in seen

    def _is_stale(self, name: str, claim: Claim) -> bool:
        if claim.is_local:
            return claim.has_ended()
        if name not in self._first_seen:
            logging.warning(
                "`model_dir` was in use by process %d on %s. If it does not renew its "
                "lock within %.0f seconds, this process takes over.",
                claim.process,
                claim.host,
                self._expires_seconds,
            )
            self._first_seen[name] = claim, time.monotonic()
        first, seen = self._first_seen[name]
        return claim == first and time.monotonic() - seen >= self._expires_seconds


def _read_claim(path: epath.Path) -> Claim | None:
    """Return the claim in a file, or None if the file has just been removed."""
    try:
        return Claim(**io_files.read_json(path))
    except FileNotFoundError:
        return None


def _write_claim(path: epath.Path, claim: Claim) -> None:
    io_files.write_json(path, dataclasses.asdict(claim))


def _machine() -> str:
    """Return what identifies a boot of this machine and, in a container, that one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # Not Linux.
        return socket.gethostname()


def _process_start(process: int) -> str | None:
    """Return when a process of this machine started, or None if it has ended."""
    with contextlib.suppress(OSError):  # Not Linux, or another user's process.
        stat = Path(f"/proc/{process}/stat").read_text()
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]  # Z: its parent has not waited.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
