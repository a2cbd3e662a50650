"""Decode on other machines (tf.data service), batches the same bit for bit.

Each address is a dispatcher with one worker (tools/data_service.py starts them). Of N
workers, worker i makes the chunks i, i + N, … of the stream, and the trainer takes them
in turn: the order is that of one process, which tf.data service by itself does not
promise. Every worker reads all records and decodes its share, the dear part.
"""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Chunk = dict[str, tf.Tensor]
_REQUESTS_AHEAD = 4  # Of each worker, in chunks: what is held decoded.
# As in reading.py: nothing here for AutoGraph to rewrite.
_as_graph = tf.autograph.experimental.do_not_convert


def addresses(text: str | Sequence[str]) -> list[str]:
    """Return `host:port` of every worker.

    >>> addresses("one:5050, two:5050")
    ['one:5050', 'two:5050']

    Args:
        text: Separated by commas, or a sequence.

    Raises:
        ValueError: An address has no port, or one comes twice.
    """
    given = text.split(",") if isinstance(text, str) else list(text)
    found = [part.strip() for part in given if part.strip()]
    wrong = [part for part in found if not part.rpartition(":")[2].isdigit()]
    if wrong or not found or len(set(found)) < len(found):
        raise ValueError(
            "`service` must be different addresses HOST:PORT, separated by commas, as "
            f"tools/data_service.py prints them; received {text!r}."
        )
    return found


def decode_elsewhere(
    chunks: tf.data.Dataset, decode: Callable[[Chunk], Chunk], service: Sequence[str]
) -> tf.data.Dataset:
    """Return decoded chunks in the order of `chunks`, made by workers.

    Args:
        chunks: Of records; the same on every machine.
        decode: From a chunk of records to a chunk of images.
        service: Addresses; the number of workers decides who makes what.
    """
    numbered = chunks.enumerate()
    parts = [
        numbered.shard(len(service), worker)
        .map(
            _as_graph(lambda number, chunk: (number, decode(chunk))),
            num_parallel_calls=tf.data.AUTOTUNE,  # As many as the worker has cores.
            deterministic=True,
        )
        .apply(
            tf.data.experimental.service.distribute(
                processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
                service=f"grpc://{address}",
                max_outstanding_requests=_REQUESTS_AHEAD,
                compression=None,  # Pixels do not shrink.
            )
        )
        for worker, address in enumerate(service)
    ]
    turns = tf.data.Dataset.range(len(parts)).repeat()
    in_turn = tf.data.Dataset.choose_from_datasets(parts, turns)
    return in_turn.enumerate().map(_as_graph(_in_order))


def _in_order(expected: tf.Tensor, found: tuple[tf.Tensor, Chunk]) -> Chunk:
    """Return a chunk if it is the one whose turn it is."""
    number, chunk = found
    # A worker that was started anew would begin again at its first chunk.
    same = tf.debugging.Assert(
        number == expected,
        [
            "A data service worker sent another chunk than the one whose turn it was "
            "(was it started anew?). Start the run again: it goes on exactly from its "
            "last checkpoint. Expected and received:",
            expected,
            number,
        ],
    )
    with tf.control_dependencies([same] if same is not None else []):
        return {name: tf.identity(value) for name, value in chunk.items()}


def serve(host: str, port: int, workers: int) -> list[tuple[str, Any]]:
    """Start workers, each with its dispatcher; they run while the result is held.

    Args:
        host: Under which trainers reach this machine.
        port: Dispatcher i listens on port + 2 i, its worker on the next one; 0 takes
            any free ports.
        workers: How many; one uses all cores.

    Returns:
        (address, servers) of each.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1; received {workers}.")
    service = tf.data.experimental.service
    made = []
    for number in range(workers):
        first = port + 2 * number if port else 0
        dispatcher = service.DispatchServer(
            service.DispatcherConfig(port=first, protocol="grpc")
        )
        own = dispatcher.target.rpartition(":")[2]
        worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=f"localhost:{own}",
                worker_address=f"{host}:%port%",
                port=first + 1 if port else 0,
            )
        )
        made.append((f"{host}:{own}", (dispatcher, worker)))
    return made
