"""The order of an epoch: position → (epoch, window, offset) without reading a file."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf

# Purposes of a seed, folded in so that the random streams are independent.
_BLOCKS, _WINDOW, _RECORD, _BATCH = 1, 2, 3, 4
_VERSIONS = (1, 2)
ORDER_VERSION = _VERSIONS[-1]  # Of new runs.


@dataclasses.dataclass(frozen=True)
class EpochOrder:
    """A shuffle that can be entered at any position in constant time.

    An epoch visits the blocks (adjacent records of a file) in an order drawn from
    (seed, epoch). Every `window_blocks` of them form a window, inside which the records
    are in an order drawn from (seed, epoch, window). A short last block comes last.
    Input sorted by class is mixed, because a window has blocks from everywhere. Memory
    is one window, and position n costs the same for every n.

    Args:
        num_records: Records in an epoch (of this host).
        block_records: Records in a block.
        window_blocks: Blocks in a window.
        seed: Seed of the run.
        host: Number of the host: hosts draw different orders.
        shuffle: False keeps the order of the files.
        version: Version of the order. A run keeps the one it began with: 1 before
            versions were recorded, now `ORDER_VERSION`.

    Raises:
        ValueError: The version is unknown.
    """

    num_records: int
    block_records: int
    window_blocks: int
    seed: int
    host: int = 0
    shuffle: bool = True
    version: int = ORDER_VERSION

    def __post_init__(self) -> None:
        if self.version not in _VERSIONS:
            raise ValueError(
                f"`version` of an order must be one of {_VERSIONS}; received "
                f"{self.version!r}. Continue the run with the vit_scaling that began "
                "it, or a later one."
            )

    @property
    def num_blocks(self) -> int:
        """Blocks in an epoch."""
        return -(-self.num_records // self.block_records)

    @property
    def num_windows(self) -> int:
        """Windows in an epoch."""
        return -(-self.num_blocks // self.window_blocks)

    @property
    def window_records(self) -> int:
        """Records in every window but an epoch's last."""
        return self.window_blocks * self.block_records

    def locate(self, position: int) -> tuple[int, int, int]:
        """Return `(epoch, window, offset in the window)` of a position of the run.

        >>> EpochOrder(100, 4, 5, seed=0).locate(3 * 100 + 47)
        (3, 2, 7)
        """
        epoch, position_in_epoch = divmod(position, self.num_records)
        return (epoch, *divmod(position_in_epoch, self.window_records))

    def block(self, epoch: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
        """Return the block at place `slot` of an epoch; int64, `slot` also a vector."""
        full_blocks = self.num_records // self.block_records
        if not self.shuffle or full_blocks < 2:
            return slot
        seed = self._seed(_BLOCKS, epoch)
        index = tf.minimum(slot, full_blocks - 1)
        last = tf.constant(full_blocks - 1, tf.int64)
        if self.version == 1:
            # Orders of different epochs correlate, and repeat every 256 epochs.
            shuffled = tf.random.experimental.index_shuffle(index, seed, last)
            return tf.where(slot < full_blocks, shuffled, slot)
        # The cipher takes as few as 8 bits of each word of its key, so all three are
        # random; with fewer than 12 rounds, orders of different keys correlate.
        words = tf.random.stateless_uniform([3], seed, None, None, tf.int32)
        shuffled = tf.raw_ops.RandomIndexShuffle(
            index=index, seed=words, max_index=last, rounds=12
        )
        return tf.where(slot < full_blocks, shuffled, slot)

    def window_permutation(
        self, epoch: tf.Tensor, window: tf.Tensor, records: tf.Tensor
    ) -> tf.Tensor:
        """Return the order of a window's `records` records, int32 (records,)."""
        rows = tf.range(records)
        if not self.shuffle:
            return rows
        seed = tf.random.experimental.stateless_fold_in(
            self._seed(_WINDOW, epoch), window
        )
        return tf.random.experimental.stateless_shuffle(rows, seed, alg="philox")

    def record_seed(self, position: tf.Tensor) -> tf.Tensor:
        """Return the augmentation's seed at a position of the run, int64 (2,)."""
        return self._seed(_RECORD, position)

    def batch_seed(self, step: tf.Tensor) -> tf.Tensor:
        """Return the seed for mixing the images of a batch, int64 (2,)."""
        return self._seed(_BATCH, step)

    def _seed(self, purpose: int, number: tf.Tensor) -> tf.Tensor:
        base = tf.constant([self.seed, purpose + 16 * self.host], tf.int64)
        return tf.random.experimental.stateless_fold_in(base, number)
