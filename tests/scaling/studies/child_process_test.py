"""A command ends with the process that started it, even one that was killed."""
# SPDX-License-Identifier: Apache-2.0

import os
import signal
import subprocess
import sys
import time

import pytest

from vit_scaling.scaling.studies.child_process import main, run_and_show, run_command


def is_running(process):
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


def test_the_exit_code_is_returned_and_the_output_appended(tmp_path):
    log = tmp_path / "log"
    for code in (0, 3):
        command = [
            sys.executable,
            "-c",
            f"print('ends {code}'); raise SystemExit({code})",
        ]
        assert run_command(command, log) == code
    assert log.read_text() == "ends 0\nends 3\n"


def test_output_can_be_shown_while_it_is_logged(tmp_path, capfd):
    command = ["sh", "-c", "echo said; echo wrong >&2; exit 3"]
    assert run_and_show(command, tmp_path / "log") == 3
    assert (tmp_path / "log").read_text() == "said\nwrong\n"
    assert capfd.readouterr() == ("", "said\nwrong\n")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_the_command_is_killed_with_its_parent(tmp_path):
    number = tmp_path / "process"
    child = f"import os, time; open({str(number)!r}, 'w').write(str(os.getpid())); "
    child += "time.sleep(600)"
    parent = (
        "import pathlib, sys; "
        "from vit_scaling.scaling.studies.child_process import run_command; "
        f"run_command([sys.executable, '-c', {child!r}], "
        f"pathlib.Path({str(tmp_path / 'log')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    wait_for(lambda: number.exists() and number.read_text())
    trainer = int(number.read_text())
    assert is_running(trainer)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not is_running(trainer))


def test_a_command_whose_parent_has_ended_is_not_started(tmp_path):
    words = [sys.executable, "-c", f"open({str(tmp_path / 'file')!r}, 'w')"]
    script = sys.modules[main.__module__].__file__
    other = str(os.getpid() + 1)
    assert subprocess.run([sys.executable, script, other, *words]).returncode == 1
    assert not (tmp_path / "file").exists()
