"""The writer as a Beam pipeline: the same files, byte for byte."""
# SPDX-License-Identifier: Apache-2.0

import pickle

import pytest

from tests.data import sets
from vit_scaling.data.writing import beam_driver, split_writer
from vit_scaling.data.writing.image_files import Folder

OPTIONS = {"split": "train", "num_shards": 5}


@pytest.fixture
def folder(tmp_path):
    images = sets.folder(tmp_path / "images", {"cat": 9, "dog": 8})
    (images / "cat/bad.png").write_bytes(b"junk")
    return Folder(str(images))


def files(path):
    return {
        str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()
    }


def test_workers_write_the_same_files(folder, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    split_writer.write_tfrecords(folder, output_dir=str(one), workers=1, **OPTIONS)
    sent = []

    def elsewhere(tasks):
        for task in tasks[::-1]:
            sent.append(beam_driver._write_unfinished(pickle.loads(pickle.dumps(task))))
            beam_driver._write_unfinished(task)  # A runner may try again what was done.

    split_writer.write_tfrecords(
        folder, output_dir=str(other), workers=1, write_shards=elsewhere, **OPTIONS
    )
    assert len(set(sent)) == 5
    assert files(one) == files(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[], ["direct_running_mode=multi_processing", "direct_num_workers=2"]],
)
def test_both_runners_write_the_same_bytes(folder, tmp_path, options):
    pytest.importorskip("apache_beam")
    one, other = tmp_path / "one", tmp_path / "other"
    expected = split_writer.write_tfrecords(
        folder, output_dir=str(one), workers=1, **OPTIONS
    )
    result = beam_driver.write_with_beam(
        folder, runner="DirectRunner", options=options, output_dir=str(other), **OPTIONS
    )
    assert result == expected
    assert files(one) == files(other)
