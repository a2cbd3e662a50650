"""Names of numbered shards."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.data.shard_names import find_missing_shards, shard_name


def test_missing_shards_are_those_of_the_counts_that_match_a_pattern():
    paths = [f"/set/{shard_name('train', n, 4)}" for n in (0, 2)]
    paths.append(f"/set/{shard_name('test', 0, 1)}")
    missing = [f"/set/{shard_name('train', n, 4)}" for n in (1, 3)]
    assert list(find_missing_shards(paths, ["/set/*"])) == missing
    assert list(find_missing_shards(paths, ["/set/train-0000[01]*"])) == missing[:1]
