"""Two processes never hold the lock on one folder; stale locks are taken over."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.training import small
from vit_scaling import io_files, runs
from vit_scaling.training.run_lock import Claim, RunLockedError, hold_run_lock
from vit_scaling.training.strategy import make_strategy

HOLD = """
import sys, time
from vit_scaling.training.run_lock import RunLockedError, hold_run_lock
try:
    with hold_run_lock(sys.argv[1]):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
except RunLockedError as error:
    print("rejected", error, flush=True)
"""


def start(folder, seconds):
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock on `tmp_path`."""
    with start(tmp_path, 600) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def claims(folder):
    return sorted((folder / "lock").glob("[!.]*.json"))


def test_a_second_training_process_gets_an_error_that_names_the_first(tmp_path, holder):
    message = (
        rf"`model_dir` .* is in use by process {holder.pid} on .*, since 2.* "
        "End that process, or take another --model_dir"
    )
    with pytest.raises(RunLockedError, match=message):
        runs.train(small.experiment(), model_dir=tmp_path, strategy=make_strategy())
    assert len(list(tmp_path.rglob("*"))) == 2  # The lock's folder and its claim.


def test_training_holds_the_lock_and_releases_it(tmp_path):
    seen = []

    def texts():
        seen.append(io_files.read_json(*claims(tmp_path)))
        return {}

    runs.train(
        small.experiment(), model_dir=tmp_path, strategy=make_strategy(), texts=texts
    )
    assert [claim["process"] for claim in seen] == [os.getpid()] * 3
    assert not (tmp_path / "lock").exists()


def test_a_rejected_run_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="`batch_size`"):
        runs.train(
            small.experiment(batch_size=-1),
            model_dir=tmp_path / "run",
            strategy=make_strategy(),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parent_waits", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over_at_once(
    tmp_path, holder, parent_waits
):
    holder.send_signal(signal.SIGKILL)
    if parent_waits:
        holder.wait()
    with hold_run_lock(tmp_path):
        (claim,) = claims(tmp_path)
        assert io_files.read_json(claim)["process"] == os.getpid()
    assert not claims(tmp_path)


def test_of_processes_that_start_together_at_most_one_holds_the_lock(tmp_path):
    processes = [start(tmp_path, 3) for _ in range(4)]
    lines = [process.communicate()[0].split()[0] for process in processes]
    assert collections.Counter(lines)["held"] <= 1


def test_a_later_process_with_the_number_of_the_first_does_not_keep_the_lock(tmp_path):
    ended = dataclasses.replace(Claim.of_this_process(), process_start="1")
    write(tmp_path, ended)
    with hold_run_lock(tmp_path):
        assert len(claims(tmp_path)) == 1


def test_a_process_cannot_take_the_lock_twice(tmp_path):
    with hold_run_lock(tmp_path):
        with (
            pytest.raises(RunLockedError, match=f"by process {os.getpid()} "),
            hold_run_lock(tmp_path),
        ):
            pytest.fail("The lock is held twice.")
        assert len(claims(tmp_path)) == 1


def write(folder, claim):
    io_files.write_json(folder / "lock" / "other.json", dataclasses.asdict(claim))


def elsewhere(**changes):
    """Return a claim of another machine, made by a clock that is a day late."""
    other = {"host": "elsewhere", "machine": "another", "process": 1}
    since = time.time() - 86400
    return dataclasses.replace(Claim.of_this_process(), **other, since=since, **changes)


def test_an_unchanged_claim_of_another_machine_expires(tmp_path):
    write(tmp_path, elsewhere())
    started = time.monotonic()
    with hold_run_lock(tmp_path, expires_seconds=1.0):
        assert time.monotonic() - started >= 1.0
        assert not (tmp_path / "lock" / "other.json").exists()


def test_a_renewed_claim_of_another_machine_is_named(tmp_path, monkeypatch):
    write(tmp_path, elsewhere())

    def renew(seconds):
        write(tmp_path, elsewhere(renewals=1))

    monkeypatch.setattr(time, "sleep", renew)
    with (
        pytest.raises(RunLockedError, match="in use by process 1 on elsewhere"),
        hold_run_lock(tmp_path),
    ):
        pytest.fail("Both hold the lock.")
    assert len(claims(tmp_path)) == 1


def test_the_lock_is_renewed_while_it_is_held(tmp_path):
    with hold_run_lock(tmp_path, renew_seconds=0.01) as lock:
        (path,) = claims(tmp_path)
        before = io_files.read_json(path)
        deadline = time.monotonic() + 10
        while io_files.read_json(path)["renewals"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert io_files.read_json(path)["since"] == before["since"]
        lock.check()


def test_a_process_that_lost_its_lock_learns_of_it(tmp_path):
    with hold_run_lock(tmp_path, renew_seconds=0.01) as lock:
        (path,) = claims(tmp_path)
        path.unlink()  # As another process that takes over does.
        time.sleep(0.1)
        with pytest.raises(RunLockedError, match="Another process took over"):
            lock.check()
        assert not claims(tmp_path)
