"""Serialized records in the order of an epoch: blocks are read, windows shuffled."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf

from vit_scaling.data import table_files
from vit_scaling.data.block_table import BlockTable
from vit_scaling.data.epoch_order import EpochOrder
from vit_scaling.data.table_files import Arrays

UNREADABLE = b""  # Replaces the data of a record that fails its checksum.
_RETRY_BYTES = 256 * 1024
READ_AHEAD_BYTES = 128 * 2**20
_MAX_BLOCKS_AT_ONCE = 512  # Each takes a thread.
# Opening a file in a graph takes about a millisecond, so small subsets of scattered
# records are read once and kept in memory.
_MAX_IN_MEMORY_BYTES = 256 * 2**20
_SCATTERED = 2  # Mean number of adjacent records below which they are scattered.
# A decorator. Our graph functions contain no Python control flow over tensors, and
# AutoGraph's conversion would add seconds to every start.
without_autograph = tf.autograph.experimental.do_not_convert


def _read_from(
    path: tf.Tensor, offset: tf.Tensor, buffer_bytes: tf.Tensor | int
) -> tf.data.Dataset:
    """Return the data of a file's records from a byte offset to the end."""
    # tf.data.TFRecordDataset has no argument for the offset, only its operation has.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        buffer_size=tf.cast(buffer_bytes, tf.int64),
        byte_offsets=offset[None],
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


class BlockReader:
    """Reads one block of a `BlockTable` inside a TensorFlow graph.

    The table's arrays are tensors outside the graph, which therefore stays small for
    any size of the set. A run of adjacent records is read in one piece.

    Args:
        table: The blocks.
        read_ahead_bytes: Size of the blocks, of mean size, that are read at the same
            time or wait for an earlier one; at least one, and at most 512 blocks.
        arrays: The table's arrays as tensors, e.g. read by this graph from a file.
    """

    def __init__(
        self,
        table: BlockTable,
        read_ahead_bytes: int = READ_AHEAD_BYTES,
        arrays: Arrays | None = None,
    ) -> None:
        self._block_records = table.block_records
        mean_bytes = table.size_bytes // max(1, table.num_blocks) + 1
        affordable = max(1, read_ahead_bytes // mean_bytes)
        self.blocks_at_once = min(_MAX_BLOCKS_AT_ONCE, affordable)
        self._num_records = table.num_records
        arrays = arrays or table_files.make_tensors(table)
        self._paths, self._offsets = arrays["paths"], arrays["offsets"]
        self._run_file, self._run_first = arrays["run_file"], arrays["run_first"]
        self._run_number, self._run_bytes = arrays["run_number"], arrays["run_bytes"]
        self._block_run = arrays["block_run"]

    def read(self, block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the data and the record numbers of a block, both (block_records,).

        Numbers are -1 after the end of a short last block, and for every record of
        block -1. The data of a record that cannot be read is `UNREADABLE`.
        """
        size = self._block_records
        numbers = block * size + tf.range(size, dtype=tf.int64)
        exists = (block >= 0) & (numbers < self._num_records)
        count = tf.reduce_sum(tf.cast(exists, tf.int32))
        data = tf.cond(
            count > 0,
            lambda: self._read_data(block, numbers, count),
            lambda: tf.fill([size], UNREADABLE),
        )
        return tf.ensure_shape(data, [size]), tf.where(exists, numbers, -1)

    def _read_data(
        self, block: tf.Tensor, numbers: tf.Tensor, count: tf.Tensor
    ) -> tf.Tensor:
        """Return the data of a block with `count` records, read run by run."""
        runs = tf.data.Dataset.range(self._block_run[block], self._block_run[block + 1])
        end = numbers[0] + tf.cast(count, tf.int64)
        records = runs.flat_map(lambda run: self._read_run(run, end))
        # Filled to the block's length, so that the shape is static.
        size = self._block_records
        filling = tf.data.Dataset.from_tensors((end, UNREADABLE)).repeat(size)
        records = records.concatenate(filling).take(size).batch(size)
        read_numbers, data = records.get_single_element()
        return tf.cond(
            read_numbers[count - 1] == end - 1,
            lambda: data,
            lambda: self._retry_missing(numbers, end, read_numbers, data),
        )

    def _read_run(self, run: tf.Tensor, end: tf.Tensor) -> tf.data.Dataset:
        """Return (number, data) of a run, cut short at a damaged record."""
        first = self._run_first[run]
        next_run = tf.minimum(run + 1, tf.size(self._run_first, tf.int64) - 1)
        run_end = tf.where(next_run > run, self._run_first[next_run], end)
        records = _read_from(
            self._paths[self._run_file[run]], self._offsets[first], self._run_bytes[run]
        )
        # Not `enumerate`, which optimizes a graph each time it is called.
        numbers = tf.data.Dataset.range(first, tf.minimum(run_end, end))
        return tf.data.Dataset.zip((numbers, records.ignore_errors()))

    def _retry_missing(
        self,
        numbers: tf.Tensor,
        end: tf.Tensor,
        read_numbers: tf.Tensor,
        data: tf.Tensor,
    ) -> tf.Tensor:
        """Move the data to its rows, and read the missing records one by one."""
        is_read = tf.where(read_numbers < end)[:, 0]
        rows = tf.gather(read_numbers, is_read)[:, None] - numbers[0]
        placed = tf.tensor_scatter_nd_update(
            tf.fill([self._block_records], UNREADABLE), rows, tf.gather(data, is_read)
        )
        is_missing = (tf.strings.length(placed) == 0) & (numbers < end)
        missing = tf.where(is_missing)[:, 0]
        retried = tf.map_fn(
            lambda row: self._read_record(numbers[0] + row),
            missing,
            fn_output_signature=tf.string,
        )
        return tf.tensor_scatter_nd_update(placed, missing[:, None], retried)

    def _read_record(self, number: tf.Tensor) -> tf.Tensor:
        path = self._paths[self._run_file[self._run_of(number)]]
        record = (
            _read_from(path, self._offsets[number], _RETRY_BYTES)
            .take(1)
            .ignore_errors()
        )
        unreadable = tf.data.Dataset.from_tensors(UNREADABLE)
        return record.concatenate(unreadable).take(1).get_single_element()

    def shards_of(self, numbers: tf.Tensor) -> tf.Tensor:
        """Return the number of the file of each record, int64 of the same shape."""
        runs = tf.searchsorted(self._run_first, numbers, side="right") - 1
        return tf.gather(self._run_file, runs)

    def _run_of(self, number: tf.Tensor) -> tf.Tensor:
        return tf.searchsorted(self._run_first, number[None], side="right")[0] - 1

    def describe(self, number: tf.Tensor) -> tf.Tensor:
        """Return `PATH, record N` for a record number: a string scalar."""
        run = self._run_of(number)
        number_in_file = self._run_number[run] + number - self._run_first[run]
        parts = [self._paths[self._run_file[run]], tf.strings.as_string(number_in_file)]
        return tf.strings.join(parts, ", record ")


class InMemoryBlockReader(BlockReader):
    """A `BlockReader` that reads all records at first and keeps them in memory."""

    def __init__(
        self,
        table: BlockTable,
        read_ahead_bytes: int = READ_AHEAD_BYTES,
        arrays: Arrays | None = None,
    ) -> None:
        super().__init__(table, read_ahead_bytes, arrays)
        reader = BlockReader(table, read_ahead_bytes, arrays)
        blocks = tf.data.Dataset.range(table.num_blocks).map(
            without_autograph(lambda block: reader.read(block)[0]),
            num_parallel_calls=self.blocks_at_once,
            deterministic=True,
        )
        data = blocks.batch(table.num_blocks).get_single_element()
        with tf.device("/cpu:0"):
            self._data = tf.identity(data)  # (blocks, block_records)

    def _read_data(
        self, block: tf.Tensor, numbers: tf.Tensor, count: tf.Tensor
    ) -> tf.Tensor:
        return self._data[block]


def make_block_reader(
    table: BlockTable,
    read_ahead_bytes: int = READ_AHEAD_BYTES,
    arrays: Arrays | None = None,
) -> BlockReader:
    """Return a reader of a table for many epochs.

    A subset of at most 256 MB whose records are scattered over the files is kept in
    memory; other tables are read from the files when needed.
    """
    is_scattered = table.num_records < _SCATTERED * len(table.run_first)
    fits = 0 < table.size_bytes <= _MAX_IN_MEMORY_BYTES
    kind = InMemoryBlockReader if is_scattered and fits else BlockReader
    return kind(table, read_ahead_bytes, arrays)


@dataclasses.dataclass(frozen=True)
class RecordStream:
    """The stream of one host's records.

    Args:
        blocks: Reads blocks.
        order: The order of the blocks and of the records in each window.
    """

    blocks: BlockReader
    order: EpochOrder

    def dataset(
        self, *, start: int, epochs: int | None, chunk_records: int
    ) -> tf.data.Dataset:
        """Return chunks of records, from position `start` on.

        Each element has `number` (of each record in the block table) and `position` (in
        the run), int64 of the same length, at most `chunk_records`; and `data` and
        `rows`: the records' data is `data[rows]`. The decoding threads gather it, since
        copying strings is expensive.

        Args:
            start: First position; at most one window is read to reach it.
            epochs: Number of epochs; None is endless.
            chunk_records: Records in a chunk; a window's last may have fewer.
        """
        order = self.order
        epoch, window, _ = order.locate(start)
        first = epoch * order.num_windows + window
        end = tf.int64.max if epochs is None else epochs * order.num_windows
        numbers = tf.data.Dataset.range(first, end).flat_map(
            without_autograph(self._blocks_of)
        )
        blocks = numbers.map(
            without_autograph(self.blocks.read),
            num_parallel_calls=self.blocks.blocks_at_once,
            deterministic=True,
        )
        windows = blocks.batch(order.window_blocks).enumerate(first)
        shuffled = windows.map(
            without_autograph(lambda number, read: self._shuffle(number, read, start))
        )
        return shuffled.prefetch(1).flat_map(
            without_autograph(lambda window: _cut(window, chunk_records))
        )

    def _blocks_of(self, window: tf.Tensor) -> tf.data.Dataset:
        """Return the numbers of a window's blocks; -1 fills an epoch's last window.

        All at once: drawing the order for each block takes longer than reading it.
        """
        order = self.order
        epoch, window = window // order.num_windows, window % order.num_windows
        first = window * order.window_blocks
        slots = first + tf.range(order.window_blocks, dtype=tf.int64)
        blocks = order.block(epoch, tf.minimum(slots, order.num_blocks - 1))
        blocks = tf.where(slots < order.num_blocks, blocks, -1)
        return tf.data.Dataset.from_tensor_slices(blocks)

    def _shuffle(
        self, window: tf.Tensor, read: tuple[tf.Tensor, tf.Tensor], start: int
    ) -> dict[str, tf.Tensor]:
        order = self.order
        epoch, window = window // order.num_windows, window % order.num_windows
        data, number = (tf.reshape(part, [-1]) for part in read)
        rows = tf.where(number >= 0)[:, 0]
        permutation = order.window_permutation(epoch, window, tf.size(rows))
        position = epoch * order.num_records + window * order.window_records
        skip = tf.nn.relu(start - position)
        rows = tf.gather(rows, permutation)[tf.cast(skip, tf.int32) :]
        return {
            "data": data,
            "rows": rows,
            "number": tf.gather(number, rows),
            "position": position + skip + tf.range(tf.size(rows, tf.int64)),
        }


def _cut(window: dict[str, tf.Tensor], chunk_records: int) -> tf.data.Dataset:
    """Cut a window into chunks, which share its data by reference."""

    def chunk(first: tf.Tensor) -> dict[str, tf.Tensor]:
        part = {
            name: window[name][first : first + chunk_records]
            for name in ("rows", "number", "position")
        }
        return {"data": window["data"], **part}

    end = tf.size(window["rows"], tf.int64)
    return tf.data.Dataset.range(0, end, chunk_records).map(without_autograph(chunk))
