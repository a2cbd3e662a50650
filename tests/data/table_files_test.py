"""A table of blocks in a file: read by a graph, it is the same."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data.block_table import make_block_table
from vit_scaling.data.table_files import make_tensors, read_table, store_table


@pytest.fixture
def table(tmp_path):
    return make_block_table(sets.numbered(tmp_path, [7, 4]).index(), block_records=3)


def test_a_graph_reads_the_arrays_that_were_stored(table):
    (arrays,) = read_table(store_table(table))
    expected = make_tensors(table)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array.numpy(), expected[name].numpy())


def test_equal_tables_have_one_file(table, tmp_path):
    path = pathlib.Path(store_table(table))
    before = path.stat().st_mtime_ns
    assert store_table(table) == str(path)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:-1])  # Truncated: it is written again.
    assert store_table(table) == str(path)
    assert len(list(read_table(str(path)))) == 1
    assert len(list((tmp_path / "index").glob("*.blocks-*"))) == 1


def test_damage_is_detected(table):
    path = pathlib.Path(store_table(table))
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(tf.errors.DataLossError, match="orrupted record"):
        list(read_table(str(path)))
