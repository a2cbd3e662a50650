"""Serialized records in an epoch's order: blocks are read, windows shuffled."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf

from vit_scaling.data.block_table import BlockTable
from vit_scaling.data.epoch_order import EpochOrder

UNREADABLE = b""  # Stands for a record whose bytes fail their checksum.
_BUFFER_BYTES = 256 * 1024
_BLOCKS_AT_ONCE = 4
# Opening a file in a graph costs about a millisecond, so records that lie apart are
# kept in memory after one reading, up to so many bytes.
_HELD_BYTES = 256 * 2**20
_SCATTERED = 2  # Records in a run, on average, below which they lie apart.
# Our graph functions hold no Python control flow over tensors; AutoGraph's rewriting
# would only take seconds at every start.
as_graph = tf.autograph.experimental.do_not_convert


def records_from(
    path: tf.Tensor | str, offset: tf.Tensor, *, buffer_bytes: int = _BUFFER_BYTES
) -> tf.data.Dataset:
    """Return the bytes of a file's records from a byte offset on, to its end."""
    # tf.data.TFRecordDataset offers no `byte_offsets`; its own operation does.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.convert_to_tensor(path)[None],
        compression_type="",
        buffer_size=tf.constant(buffer_bytes, tf.int64),
        byte_offsets=offset[None],
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


class BlockReader:
    """Reads one block of a `BlockTable` inside a TensorFlow graph.

    The table's arrays are held as tensors outside the graph, so a graph stays small
    whatever the size of the set.
    """

    def __init__(self, table: BlockTable) -> None:
        self._k = table.block_records
        self._records = table.num_records
        with tf.device("/cpu:0"):
            self._paths = tf.constant(list(table.paths), tf.string)
            self._offsets = tf.constant(table.offsets, tf.int64)
            self._run_file = tf.constant(table.run_file, tf.int64)
            self._run_first = tf.constant(table.run_first, tf.int64)
            self._run_number = tf.constant(table.run_number, tf.int64)
            self._block_run = tf.constant(table.block_run, tf.int64)

    def read(self, block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the bytes and the record numbers of a block, both (block_records,).

        Numbers are -1 behind the end of a short last block, and for every record of
        block -1. A record that cannot be read is `UNREADABLE`.
        """
        numbers = block * self._k + tf.range(self._k, dtype=tf.int64)
        exists = (block >= 0) & (numbers < self._records)
        size = tf.reduce_sum(tf.cast(exists, tf.int32))
        empty = tf.fill([self._k], UNREADABLE)
        data = tf.cond(
            size > 0, lambda: self._bytes_of(block, numbers, size), lambda: empty
        )
        return tf.ensure_shape(data, [self._k]), tf.where(exists, numbers, -1)

    def _bytes_of(
        self, block: tf.Tensor, numbers: tf.Tensor, size: tf.Tensor
    ) -> tf.Tensor:
        """Return the bytes of a block that is not empty, read run by run."""
        runs = tf.data.Dataset.range(self._block_run[block], self._block_run[block + 1])
        end = numbers[0] + tf.cast(size, tf.int64)
        found = runs.flat_map(lambda run: self._run(run, end))
        # Filled up to the block's length, so that the shape is always the same.
        past = tf.data.Dataset.from_tensors((end, UNREADABLE)).repeat(self._k)
        found = found.concatenate(past).take(self._k).batch(self._k)
        got, data = found.get_single_element()
        whole = got[size - 1] == end - 1
        return tf.cond(
            whole, lambda: data, lambda: self._repair(numbers, end, got, data)
        )

    def _run(self, run: tf.Tensor, end: tf.Tensor) -> tf.data.Dataset:
        """Return (number, bytes) of a run, cut short where a record is damaged."""
        first = self._run_first[run]
        following = tf.minimum(run + 1, tf.size(self._run_first, tf.int64) - 1)
        until = tf.where(following > run, self._run_first[following], end)
        count = tf.minimum(until, end) - first
        return (
            records_from(self._paths[self._run_file[run]], self._offsets[first])
            .take(count)
            .ignore_errors()
            .enumerate(first)
        )

    def _repair(
        self, numbers: tf.Tensor, end: tf.Tensor, got: tf.Tensor, data: tf.Tensor
    ) -> tf.Tensor:
        """Put what was read in its place, and read what is missing one by one."""
        rows = tf.where(got < end)
        slots = tf.gather(got, rows[:, 0])[:, None] - numbers[0]
        placed = tf.tensor_scatter_nd_update(
            tf.fill([self._k], UNREADABLE), slots, tf.gather(data, rows[:, 0])
        )
        missing = (tf.strings.length(placed) == 0) & (numbers < end)
        rows = tf.where(missing)[:, 0]
        again = tf.map_fn(
            lambda row: self._one(numbers[0] + row),
            rows,
            fn_output_signature=tf.string,
        )
        return tf.tensor_scatter_nd_update(placed, rows[:, None], again)

    def _one(self, number: tf.Tensor) -> tf.Tensor:
        path = self._paths[self._run_file[self._run_of(number)]]
        one = records_from(path, self._offsets[number])
        missing = tf.data.Dataset.from_tensors(UNREADABLE)
        either = one.take(1).ignore_errors().concatenate(missing).take(1)
        return either.get_single_element()

    def _run_of(self, number: tf.Tensor) -> tf.Tensor:
        return tf.searchsorted(self._run_first, number[None], side="right")[0] - 1

    def name(self, number: tf.Tensor) -> tf.Tensor:
        """Return `file, record n` for a record number: a string scalar."""
        run = self._run_of(number)
        in_file = self._run_number[run] + number - self._run_first[run]
        parts = [self._paths[self._run_file[run]], tf.strings.as_string(in_file)]
        return tf.strings.join(parts, ", record ")


class HeldReader(BlockReader):
    """A `BlockReader` that has read all records once and keeps them in memory."""

    def __init__(self, table: BlockTable) -> None:
        super().__init__(table)
        files = BlockReader(table)
        blocks = tf.data.Dataset.range(table.num_blocks).map(
            as_graph(lambda block: files.read(block)[0]),
            num_parallel_calls=_BLOCKS_AT_ONCE,
            deterministic=True,
        )
        whole = blocks.batch(table.num_blocks).get_single_element()
        with tf.device("/cpu:0"):
            self._data = tf.identity(whole)  # (blocks, block_records)

    def _bytes_of(
        self, block: tf.Tensor, numbers: tf.Tensor, size: tf.Tensor
    ) -> tf.Tensor:
        return self._data[block]


def block_reader(table: BlockTable) -> BlockReader:
    """Return a reader of a table for many epochs.

    A small subset (up to 256 MB) whose records lie scattered over the files is held in
    memory; all else is read from the files as it is needed.
    """
    scattered = table.num_records < _SCATTERED * len(table.run_first)
    held = scattered and table.num_records and table.size_bytes <= _HELD_BYTES
    return HeldReader(table) if held else BlockReader(table)


@dataclasses.dataclass(frozen=True)
class Reader:
    """The stream of records of one host.

    Args:
        blocks: What reads a block.
        order: Of the epochs.
    """

    blocks: BlockReader
    order: EpochOrder

    def dataset(
        self, *, start: int, epochs: int | None, chunk_records: int
    ) -> tf.data.Dataset:
        """Return chunks of records, from position `start` on.

        Each element holds `number` (of each record in the block table) and `position`
        (of the run), int64 of one length, at most `chunk_records`; and `data` and
        `rows`: the records' bytes are `data[rows]`. Gathering them is left to whoever
        decodes, in parallel: strings are expensive to copy.

        Args:
            start: The first position; reaching it reads at most one window.
            epochs: How many epochs to read; None is without end.
            chunk_records: Records in a chunk; a window's last may have fewer.
        """
        order = self.order
        epoch, window, _ = order.locate(start)
        slots = order.num_windows * order.window_blocks  # of an epoch
        first = epoch * slots + window * order.window_blocks
        end = tf.int64.max if epochs is None else epochs * slots
        read = tf.data.Dataset.range(first, end).map(
            as_graph(self._read),
            num_parallel_calls=_BLOCKS_AT_ONCE,
            deterministic=True,
        )
        windows = read.batch(order.window_blocks).enumerate(
            epoch * order.num_windows + window
        )
        shuffled = windows.map(
            as_graph(lambda number, element: self._shuffle(number, element, start))
        )
        return shuffled.prefetch(1).flat_map(
            as_graph(lambda window: _chunks(window, chunk_records))
        )

    def _read(self, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        order = self.order
        slots = order.num_windows * order.window_blocks
        epoch, slot = place // slots, place % slots
        inside = slot < order.num_blocks  # The last window may have fewer blocks.
        block = order.block(epoch, tf.minimum(slot, order.num_blocks - 1))
        return self.blocks.read(tf.where(inside, block, -1))

    def _shuffle(
        self, window: tf.Tensor, read: tuple[tf.Tensor, tf.Tensor], start: int
    ) -> dict[str, tf.Tensor]:
        order = self.order
        epoch, window = window // order.num_windows, window % order.num_windows
        data, number = (tf.reshape(part, [-1]) for part in read)
        rows = tf.where(number >= 0)[:, 0]
        mixed = order.window_permutation(epoch, window, tf.size(rows))
        position = epoch * order.num_records + window * order.window_records
        skip = tf.nn.relu(start - position)
        rows = tf.gather(rows, mixed)[tf.cast(skip, tf.int32) :]
        return {
            "data": data,
            "rows": rows,
            "number": tf.gather(number, rows),
            "position": position + skip + tf.range(tf.size(rows, tf.int64)),
        }


def _chunks(window: dict[str, tf.Tensor], size: int) -> tf.data.Dataset:
    """Cut a window into chunks; its data goes along whole, by reference."""

    def chunk(first: tf.Tensor) -> dict[str, tf.Tensor]:
        part = {
            name: window[name][first : first + size]
            for name in ("rows", "number", "position")
        }
        return {"data": window["data"], **part}

    end = tf.size(window["rows"], tf.int64)
    return tf.data.Dataset.range(0, end, size).map(as_graph(chunk))
