"""Decode images for trainers on other machines: a tf.data service dispatcher + worker.

Start it on every machine that shall decode, and give the trainer all addresses:
--gin_param="DATA_SERVICE = 'HOST:5050,OTHER:5050'". It runs until it is stopped.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until SIGTERM or Ctrl-C; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("--host", default="localhost", help="name under which trainers reach it")
    add("--port", type=int, default=5050, help="the first port; 0: any free ports")
    add("--workers", type=int, default=1, help="one uses all cores")
    servers: list[Any] = []  # They would stop if they were deleted.

    def start(arguments: argparse.Namespace) -> Mapping[str, Any]:
        from vit_scaling.data import tf_data_service

        servers.extend(
            tf_data_service.start_servers(
                arguments.host, arguments.port, arguments.workers
            )
        )
        return {"addresses": ",".join(address for address, _ in servers)}

    # Installed before anything listens, so that no early signal is missed.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    code = cli.run(parser, argv, start, _format)
    sys.stdout.flush()
    # Polled every second: a signal handled by another thread does not wake this one.
    while not code and not stop.wait(1.0):
        pass
    if not code:
        # Deleted servers wait for the threads that tune their pipelines, up to a minute
        # each; they hold nothing that could be lost.
        os._exit(0)
    return code


def _format(result: Mapping[str, Any]) -> str:
    return f"DATA_SERVICE = {result['addresses']!r}"


if __name__ == "__main__":
    raise SystemExit(main())
