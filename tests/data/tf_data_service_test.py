"""Images decoded elsewhere: the batches stay those of one process, bit for bit."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.commands.data_service_test import start_server, stop_server
from tests.data import sets
from tests.data.bad_records_test import BAD, with_bad
from vit_scaling.data import tf_data_service
from vit_scaling.data.pipeline import TrainData


@pytest.fixture(scope="module")
def workers():
    """Addresses of three workers; the servers live as long as the module's tests."""
    process, addresses = start_server("--port=0", "--workers=3")
    yield addresses.split(",")
    stop_server(process)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    contents = [
        [
            sets.example(sets.jpeg(sets.tile(20 * s + i, 40)), [i % 3], f"{s}/{i}")
            for i in range(20)
        ]
        for s in range(2)
    ]
    source = sets.shards(tmp_path_factory.mktemp("photographs"), contents)
    return TrainData(
        source, image_size=16, classes=3, shuffle_window=24, block_records=4
    )


def images(data, *, start_step=0, steps=15):
    batches = data.dataset(batch_size=8, seed=1, start_step=start_step)
    return np.stack([batch["images"].numpy() for batch in batches.take(steps)])


def test_batches_are_those_of_one_process(photographs, workers):
    elsewhere = dataclasses.replace(photographs, service=",".join(workers))
    expected = images(photographs)
    np.testing.assert_array_equal(images(elsewhere), expected)
    resumed = images(elsewhere, start_step=7, steps=8)
    np.testing.assert_array_equal(resumed, expected[7:])


def test_a_bad_record_is_named_at_the_trainer(tmp_path, workers):
    source = with_bad(tmp_path, [BAD["label above"][0]])
    data = TrainData(source, image_size=8, classes=10, service=workers[:1])
    where = r"train-00001-of-00002\.tfrecord, record 3: a label is outside"
    with pytest.raises(tf.errors.InvalidArgumentError, match=where):
        list(data.dataset(batch_size=4, seed=0).take(3))


def test_skipped_records_are_counted_at_the_trainer(tmp_path, workers):
    source = with_bad(tmp_path, [BAD["no picture"][0]])
    data = TrainData(
        source, image_size=8, classes=10, on_bad_record="skip", service=workers[:1]
    )
    (batch,) = data.dataset(batch_size=12, seed=0).take(1)
    assert float(tf.reduce_sum(batch["skipped"])) == 1


def test_a_chunk_out_of_turn_stops_the_run():
    chunk = {"images": tf.zeros([2])}
    number = tf.constant(4, tf.int64)
    assert tf_data_service._check_number(number, (number, chunk)).keys() == chunk.keys()
    with pytest.raises(tf.errors.InvalidArgumentError, match="another chunk than"):
        tf_data_service._check_number(number, (number - 4, chunk))


@pytest.mark.parametrize("wrong", ["", "host", "host:", "a:1,a:1", ["a:1", "b"]])
def test_addresses_are_checked_at_once(photographs, wrong):
    with pytest.raises(ValueError, match="`service` must be different addresses"):
        dataclasses.replace(photographs, service=wrong)


def test_no_workers_raise():
    with pytest.raises(ValueError, match="`workers` must be at least 1"):
        tf_data_service.start_servers("localhost", 0, 0)


def test_a_scattered_subset_is_that_of_one_process(photographs, workers):
    few = dataclasses.replace(photographs, num_images=11)
    elsewhere = dataclasses.replace(few, service=workers[:2])
    np.testing.assert_array_equal(images(elsewhere), images(few))


def send_nowhere(monkeypatch):
    """Let the graphs for workers be a part of the trainer's."""
    service = tf.data.experimental.service
    monkeypatch.setattr(service, "distribute", lambda **_: lambda dataset: dataset)


def test_the_graph_does_not_grow_with_the_set(tmp_path, monkeypatch):
    send_nowhere(monkeypatch)
    sizes = []
    for count in (100, 1000):
        source = sets.numbered(tmp_path / str(count), [count])
        data = TrainData(source, image_size=8, classes=1000, service="localhost:1")
        dataset = data.dataset(batch_size=4, seed=0)
        sizes.append(len(dataset._as_serialized_graph().numpy()))
    assert sizes[1] - sizes[0] < 100  # The positions of 900 records have 7 kB.


def test_a_folder_that_is_not_writable_is_named(photographs, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in the folder's place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    source = sets.numbered(folder, [3])
    (folder / "index").write_text("the same")
    data = TrainData(source, image_size=8, classes=1000, service="localhost:1")
    with pytest.raises(OSError, match="workers of `service` read the index"):
        data.dataset(batch_size=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("steps_before", [1, 3, 20])
def test_a_worker_that_dies_stops_the_run_and_repeats_nothing(
    photographs, steps_before
):
    process, address = start_server("--port=0")
    port = address.rpartition(":")[2]
    data = dataclasses.replace(photographs, service=address)
    expected = images(photographs, steps=400)
    batches = iter(data.dataset(batch_size=8, seed=1))
    seen = [next(batches)["images"].numpy() for _ in range(steps_before)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again, _ = start_server(f"--port={port}")
    with pytest.raises(tf.errors.OpError):
        for batch in batches:
            seen.append(batch["images"].numpy())
    np.testing.assert_array_equal(np.stack(seen), expected[: len(seen)])
    del batches  # A run resumes in a new process, where no earlier client is left.
    resumed = images(data, start_step=len(seen), steps=5)
    np.testing.assert_array_equal(resumed, expected[len(seen) : len(seen) + 5])
    stop_server(again)
