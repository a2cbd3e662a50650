"""The command that decodes for trainers elsewhere."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start_server(*flags):
    """A running command, and the addresses that it prints when it listens."""
    command = [sys.executable, str(ROOT / "tools/data_service.py"), "--json", *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    printed = ""
    while not printed.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, "The command ended."
        printed += line
    return process, json.loads(printed)["addresses"]


def stop_server(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    process.stdout.close()


def test_the_command_listens_until_it_is_stopped():
    process, addresses = start_server("--port=0", "--workers=2")
    assert len(set(addresses.split(","))) == 2
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=20).close()
    assert process.poll() is None
    stop_server(process)


def test_a_port_in_use_is_reported():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        command = [sys.executable, str(ROOT / "tools/data_service.py")]
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*command, f"--port={port}"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
    assert done.returncode == 1
    assert "error:" in done.stderr
