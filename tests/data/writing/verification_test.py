"""Sets held against their manifests."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from tests.data.bad_records_test import wrong_type
from vit_scaling.data.writing.image_files import Folder
from vit_scaling.data.writing.split_writer import write_tfrecords
from vit_scaling.data.writing.verification import verify

JPEG = sets.jpeg(sets.tile(0))


@pytest.fixture
def written(tmp_path):
    """A folder with a good set of two shards; its manifest."""
    images = sets.folder(tmp_path / "images", {"cat": 4, "dog": 3})
    out = tmp_path / "out"
    write_tfrecords(
        Folder(str(images)), output_dir=str(out), split="train", num_shards=2, workers=1
    )
    return out / "train.manifest.json"


def find_faults(path, **options):
    return verify(str(path), **options)["faults"]


def test_a_good_set_has_no_fault(written):
    result = verify(str(written))
    assert result == {"records": 7, "shards": 2, "fault_count": 0, "faults": []}


def test_a_missing_shard_and_its_classes_are_named(written):
    next(written.parent.glob("*00001-of*")).unlink()
    actual = find_faults(written)
    assert "the manifest names it, but it does not exist" in actual[0]
    assert any("images, but the manifest says" in fault for fault in actual[1:])


def test_a_flipped_bit_is_found_in_its_record(written):
    shard = next(written.parent.glob("*00000-of*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[200] ^= 8
    shard.write_bytes(bytes(data))
    actual = find_faults(written)
    assert f"{shard}: its SHA-256 is not the manifest's" in actual
    assert f"{shard}, record 0: its bytes fail their checksum" in actual


def test_a_truncated_shard_is_found(written):
    shard = next(written.parent.glob("*00000-of*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-3])
    actual = "\n".join(find_faults(written))
    assert "bytes, but the manifest says" in actual
    assert "(truncated)" in actual
    assert "records, but the manifest says" in actual


def test_class_counts_are_compared(written):
    manifest = json.loads(written.read_text())
    manifest["class_counts"]["cat"] += 1
    written.write_text(json.dumps(manifest))
    assert find_faults(written) == ["class 'cat': 4 images, but the manifest says 5"]


def test_bad_records_are_named_one_by_one(tmp_path):
    records = [
        sets.example(JPEG, [1], "a"),
        sets.example(JPEG, [5], "b"),
        sets.example(JPEG[:300], [0], "c"),
        sets.example(JPEG, [0], "a"),
        wrong_type(),
        b"\x07garbage",
        tf.train.Example().SerializeToString(),
    ]
    source = sets.shards(tmp_path, [records])
    actual = find_faults(source.pattern, classes=2)
    texts = [fault.split(".tfrecord, ")[1] for fault in actual]
    assert [text.split(":")[0] for text in texts] == [
        f"record {n}" for n in range(1, 7)
    ]
    for text, reason in zip(
        texts,
        [
            "labels [5] are outside 0…1",
            "does not decode",
            "its key b'a' came before",
            "is not of type int64",
            "it is no tf.train.Example",
            "has no feature",
        ],
        strict=True,
    ):
        assert reason in text
    undecoded = find_faults(source.pattern, classes=2, decode=False)
    assert len(undecoded) == 5  # The one cut short passes.


def test_faults_are_described_up_to_a_number_and_all_counted(tmp_path):
    records = [sets.example(b"junk", [0], f"{n}") for n in range(9)]
    result = verify(sets.shards(tmp_path, [records]).pattern, max_faults=2)
    assert (len(result["faults"]), result["fault_count"]) == (2, 9)


def test_index_files_are_compared_with_the_records(written):
    index = written.parent / "index"
    (offsets,) = index.glob("*00000-of*.offsets.npy")
    (hashes,) = index.glob("*00001-of*.keys*.npy")
    array = np.load(hashes)
    array[1] ^= np.uint64(1)
    np.save(hashes, array)
    offsets.write_bytes(offsets.read_bytes()[:-3])
    assert find_faults(written) == [
        f"{offsets}: the index file is damaged; remove it",
        f"{hashes}: the index file is not that of the shard; remove it",
    ]
    offsets.unlink()
    hashes.unlink()
    assert find_faults(written) == []
