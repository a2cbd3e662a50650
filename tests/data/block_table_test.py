"""Blocks of records."""
# SPDX-License-Identifier: Apache-2.0

import os

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data import sidecar_files
from vit_scaling.data.block_table import make_block_table


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_blocks_hold_each_record_once_and_name_it(tmp_path, parts):
    index = sets.numbered(tmp_path, [7, 0, 4, 9]).index()
    seen = []
    for part in range(parts):
        table = make_block_table(index, block_records=3, part=part, parts=parts)
        assert table.num_blocks == -(-table.num_records // 3)
        ends = np.append(table.run_first[1:], table.num_records)
        for run, (first, end) in enumerate(zip(table.run_first, ends, strict=True)):
            for place in range(first, end):
                path = table.paths[table.run_file[run]].decode()
                number = int(table.run_number[run] + place - first)
                shard = [s.path for s in index.shards].index(path)
                seen.append(int(index.starts[shard]) + number)
                assert index.locate(seen[-1]) == (path, number)
                assert table.offsets[place] == index.offsets(shard)[number]
    assert seen == list(range(20))


def test_a_selection_is_read_in_runs(tmp_path):
    index = sets.numbered(tmp_path, [10]).index()
    chosen = np.array([0, 1, 2, 5, 7, 8])
    selected = sets.Chosen(index.starts, chosen)
    table = make_block_table(index, block_records=4, selected=selected)
    assert table.run_number.tolist() == [0, 5, 7]
    assert table.run_first.tolist() == [0, 3, 4]
    assert table.block_run.tolist() == [0, 2, 3]
    path = index.shards[0].path
    starts = np.append(index.offsets(0), os.path.getsize(path))
    sizes = [int(starts[n + 1] - starts[n]) for n in chosen]
    assert table.run_bytes.tolist() == [sum(sizes[:3]), sizes[3], sum(sizes[4:])]
    assert table.size_bytes == sum(sizes)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_parts_of_a_selection_are_the_selection(tmp_path, parts):
    index = sets.numbered(tmp_path, [10, 3, 0, 8]).index()
    chosen = np.array([1, 2, 9, 10, 12, 13, 19, 20])
    seen = []
    for part in range(parts):
        selected = sets.Chosen(index.starts, chosen)
        table = make_block_table(
            index, block_records=2, selected=selected, part=part, parts=parts
        )
        ends = np.append(table.run_first[1:], table.num_records)
        for run, (first, end) in enumerate(zip(table.run_first, ends, strict=True)):
            path = table.paths[table.run_file[run]].decode()
            shard = [s.path for s in index.shards].index(path)
            number = int(index.starts[shard] + table.run_number[run])
            seen += range(number, number + int(end - first))
    assert seen == chosen.tolist()


def test_a_table_of_blocks_reads_each_offsets_file_once(tmp_path, monkeypatch):
    index = sets.numbered(tmp_path, [4, 2]).index()
    make_block_table(index, block_records=2)  # Now the files are there.
    loaded = []
    load = sidecar_files.load_array
    monkeypatch.setattr(
        sidecar_files, "load_array", lambda path: loaded.append(path) or load(path)
    )
    make_block_table(index, block_records=2)
    assert len(loaded) == len(set(loaded)) == 2
