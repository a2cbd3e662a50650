"""Decode images for trainers on other machines: a tf.data service dispatcher + worker.

Start it on every machine that is to help, and give the trainer all addresses:
--gin_param="DATA_SERVICE = 'HOST:5050,OTHER:5050'". It runs until it is stopped.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until SIGTERM or Ctrl-C; return its exit code."""
    made = cli.make_parser(__doc__ or "")
    made.add_argument("--host", default="localhost", help="under which trainers see it")
    made.add_argument("--port", type=int, default=5050, help="the first; 0: any free")
    made.add_argument("--workers", type=int, default=1, help="one uses all cores")
    held: list[Any] = []

    def start(arguments: argparse.Namespace) -> Mapping[str, Any]:
        from vit_scaling.data import tf_data_service

        held.extend(
            tf_data_service.start_servers(
                arguments.host, arguments.port, arguments.workers
            )
        )
        return {"addresses": ",".join(address for address, _ in held)}

    # Asked for before anything listens, so that no early signal is missed.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    code = cli.run(made, argv, start, _show)
    sys.stdout.flush()
    # In turns of a second: a signal that another thread got does not wake this one.
    while not code and not stop.wait(1.0):
        pass
    return code


def _show(result: Mapping[str, Any]) -> str:
    return f"DATA_SERVICE = {result['addresses']!r}"
