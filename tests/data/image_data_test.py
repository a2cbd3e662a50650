"""Settings that training and evaluation data share."""
# SPDX-License-Identifier: Apache-2.0

import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data.image_data import Host
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.tfrecords import TFRecords


@pytest.mark.parametrize("kind", [TrainData, EvalData])
def test_unknown_policies_and_wrong_numbers_raise(tmp_path, kind):
    source = sets.numbered(tmp_path, [3])
    assert kind(source, image_size=1, classes=3).num_examples == 3
    with pytest.raises(
        ValueError, match="`on_bad_record` must be one of 'stop', 'skip'"
    ):
        kind(source, image_size=1, classes=3, on_bad_record="ignore")
    for name in ("image_size", "classes", "block_records", "max_pixels"):
        sizes = {"image_size": 1, "classes": 3, name: 0}
        with pytest.raises(
            ValueError, match=f"`{name}` must be an integer of at least 1"
        ):
            kind(source, **sizes)


def test_one_device_makes_the_entire_batch():
    assert Host.from_context(None) == Host(0, 1, 1)
    assert Host().local_batch_size(7) == 7


def test_hosts_follow_the_strategys_context():
    host = Host.from_context(tf.distribute.InputContext(4, 2, 32))
    assert host == Host(index=2, count=4, replicas=32)
    assert host.local_replicas == 8
    assert host.local_batch_size(64) == 16


@pytest.mark.parametrize("batch", [0, -32, 33, 16])
def test_a_batch_that_replicas_cannot_divide_raises(batch):
    with pytest.raises(ValueError, match=f"batch_size={batch} for 32 replicas"):
        Host(0, 4, 32).local_batch_size(batch)


def described(folder, counts, pattern="*.tfrecord", **changes):
    sets.numbered(folder, counts)
    source = TFRecords(f"{folder}/{pattern}")
    return TrainData(source, image_size=1, classes=99, **changes).describe()


def test_a_set_is_described_the_same_wherever_it_is_stored(tmp_path):
    first = described(tmp_path / "a", [3, 4])
    assert first.startswith("7 images in 2 files (fingerprint ")
    assert described(tmp_path / "b", [3, 4], fraction=0.5) == first


def test_fewer_files_other_counts_and_other_classes_are_another_set(tmp_path):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "classes.txt").write_text("cat\ndog\n")
    descriptions = [
        described(tmp_path / "a", [3, 4]),
        described(tmp_path / "a", [3, 4], "train-00000*"),
        described(tmp_path / "b", [4, 3]),
        described(tmp_path / "classes", [3, 4]),
    ]
    assert len(set(descriptions)) == 4
