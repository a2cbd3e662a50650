"""Serve an export over gRPC and REST, for development: a stand-in server.

It runs until SIGTERM or Ctrl-C. In production use TensorFlow Serving, with the files
that vit-scaling export --serving_kit=NAME writes; its protocol is the same.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until SIGTERM or Ctrl-C; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("export", help="a SavedModel, its numbered versions, or a serving kit")
    add("--port", type=int, default=8500, help="of gRPC; 0: a free one")
    add("--rest_api_port", type=int, default=8501, help="of REST; 0: a free one")
    add("--host", default="127.0.0.1", help="0.0.0.0: reachable by other machines")
    add("--name", default="vit", help="of the model in requests; a kit has its own")
    # Installed before anything listens, so that no early signal is missed.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as servers:

        def start(arguments: argparse.Namespace) -> Mapping[str, Any]:
            return _start(arguments, servers)

        code = cli.run(parser, argv, start, _format)
        sys.stdout.flush()
        # Polled: a signal handled by another thread does not wake this one.
        while not code and not stop.wait(1.0):
            pass
    return code


def _start(
    arguments: argparse.Namespace, servers: contextlib.ExitStack
) -> Mapping[str, Any]:
    from vit_scaling.export import clients

    clients.check_api_installed("vit-scaling serve")
    from vit_scaling.export import development_server
    from vit_scaling.export.served_models import ServedModels

    models = ServedModels(epath.Path(arguments.export), name=arguments.name)
    host = arguments.host
    grpc_server = development_server.serve_grpc(models, host=host, port=arguments.port)
    rest_server = development_server.serve_rest(
        models, host=host, port=arguments.rest_api_port
    )
    return {
        "models": models.names,
        "grpc": servers.enter_context(grpc_server),
        "rest": servers.enter_context(rest_server),
    }


def _format(result: Mapping[str, Any]) -> str:
    name = result["models"][0]
    return "\n".join(
        [
            f"Serving {', '.join(result['models'])} at {result['grpc']} and "
            f"{result['rest']} (development only).",
            f"vit-scaling predict --server={result['grpc']} --model={name} "
            "--images=FOLDER",
            f"POST {result['rest']}/v1/models/{name}:predict "
            '{"instances": [{"b64": "…"}]}',
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
