"""Decode on other machines with tf.data service; the batches are equal bit for bit.

Each address is a dispatcher with one worker (vit-scaling data serve starts them). Of N
workers, worker i makes the chunks i, i + N, … of the stream, and the trainer takes them
in turn. The order is that of a single process, which tf.data service alone does not
guarantee. Every worker reads all records but decodes only its part, which costs most.
The positions of the records reach the workers as a file (`table_files`).
"""
# SPDX-License-Identifier: Apache-2.0

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from vit_scaling.checks import check_at_least
from vit_scaling.data.reading import without_autograph
from vit_scaling.data.table_files import Arrays, read_table

Chunk = dict[str, tf.Tensor]
_REQUESTS_AHEAD = 4  # Decoded chunks that each worker keeps ready.


def parse_addresses(text: str | Sequence[str]) -> list[str]:
    """Return `host:port` of every worker.

    >>> parse_addresses("one:5050, two:5050")
    ['one:5050', 'two:5050']

    Args:
        text: Separated by commas, or a sequence.

    Raises:
        ValueError: An address has no port, or one is repeated.
    """
    given = text.split(",") if isinstance(text, str) else list(text)
    addresses = [part.strip() for part in given if part.strip()]
    wrong = [part for part in addresses if not part.rpartition(":")[2].isdigit()]
    if wrong or not addresses or len(set(addresses)) < len(addresses):
        raise ValueError(
            "`service` must be different addresses HOST:PORT, separated by commas, as "
            f"vit-scaling data serve prints them; received {text!r}."
        )
    return addresses


def decode_remotely(
    make_chunks: Callable[[Arrays], tuple[tf.data.Dataset, Callable[[Chunk], Chunk]]],
    table_path: str,
    addresses: Sequence[str],
) -> tf.data.Dataset:
    """Return decoded chunks in order, made by workers.

    Args:
        make_chunks: From the arrays of a block table to chunks of records, equal on
            every machine, and the function that decodes a chunk.
        table_path: File with the table; all workers read it.
        addresses: The workers; their number decides which worker makes which chunk.
    """

    @tf.function(autograph=False)  # Traced once, not for each worker.
    def decode_part(arrays: Arrays, worker: tf.Tensor) -> tf.data.Dataset:
        chunks, decode = make_chunks(arrays)
        return (
            chunks.enumerate()
            .shard(len(addresses), worker)
            .map(
                without_autograph(lambda number, chunk: (number, decode(chunk))),
                num_parallel_calls=tf.data.AUTOTUNE,  # By the worker's number of cores.
                deterministic=True,
            )
        )

    def part_of(worker: int) -> Callable[[Arrays], tf.data.Dataset]:
        # A tensor: each Python number would be traced.
        return functools.partial(decode_part, worker=tf.constant(worker, tf.int64))

    parts = [
        read_table(table_path)
        .flat_map(without_autograph(part_of(worker)))
        .apply(
            tf.data.experimental.service.distribute(
                processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
                service=f"grpc://{address}",
                max_outstanding_requests=_REQUESTS_AHEAD,
                compression=None,  # Pixels do not shrink.
            )
        )
        for worker, address in enumerate(addresses)
    ]
    turns = tf.data.Dataset.range(len(parts)).repeat()
    in_turn = tf.data.Dataset.choose_from_datasets(parts, turns)
    return in_turn.enumerate().map(without_autograph(_check_number))


def _check_number(expected: tf.Tensor, received: tuple[tf.Tensor, Chunk]) -> Chunk:
    """Return a chunk if its number is the expected one."""
    number, chunk = received
    # A restarted worker begins again with its first chunk.
    check = tf.debugging.Assert(
        number == expected,
        [
            "A data service worker sent another chunk than the expected one (was it "
            "restarted?). Start the run again: it continues exactly from its last "
            "checkpoint. Expected and received:",
            expected,
            number,
        ],
    )
    with tf.control_dependencies([check] if check is not None else []):
        return {name: tf.identity(value) for name, value in chunk.items()}


def start_servers(host: str, port: int, workers: int) -> list[tuple[str, Any]]:
    """Start workers, each with its dispatcher; they stop when the result is deleted.

    Args:
        host: Name under which trainers reach this machine.
        port: Dispatcher i listens on port + 2 i, its worker on the next one; 0 takes
            any free ports.
        workers: Number of workers; one uses all cores.

    Returns:
        (address, servers) of each.

    Raises:
        ValueError: `workers` is below 1.
    """
    check_at_least(1, workers=workers)
    service = tf.data.experimental.service
    servers = []
    for number in range(workers):
        first = port + 2 * number if port else 0
        dispatcher = service.DispatchServer(
            service.DispatcherConfig(port=first, protocol="grpc")
        )
        actual_port = dispatcher.target.rpartition(":")[2]
        worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=f"localhost:{actual_port}",
                worker_address=f"{host}:%port%",
                port=first + 1 if port else 0,
            )
        )
        servers.append((f"{host}:{actual_port}", (dispatcher, worker)))
    return servers
