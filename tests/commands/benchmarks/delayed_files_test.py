"""The delayed file system is the local disk, but slow; these tests compile it."""
# SPDX-License-Identifier: Apache-2.0

import threading
import time

import pytest
import tensorflow as tf
from etils import epath

from vit_scaling.commands.benchmarks import delayed_files

pytestmark = pytest.mark.slow


@pytest.fixture
def delay():
    """Sets a delay that ends with the test; counts start at 0."""
    delayed_files.take_requests()
    delayed_files.take_max_bytes_in_flight()
    yield delayed_files.set_delay
    delayed_files.set_delay(0)


def test_paths_are_those_of_local_files(tmp_path, delay):
    delay(0)
    path = epath.Path(delayed_files.delayed_path(str(tmp_path / "new/a.txt")))
    path.parent.mkdir(parents=True)
    path.write_text("text")
    assert (tmp_path / "new/a.txt").read_text() == path.read_text() == "text"
    path.replace(path.with_name("b.txt"))
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]
    assert tf.io.gfile.glob(f"{path.parent}/*") == [str(path.with_name("b.txt"))]
    with pytest.raises(FileNotFoundError):
        path.read_text()
    path.parent.rmtree()
    assert not (tmp_path / "new").exists()


def test_each_look_up_waits_and_many_wait_at_the_same_time(tmp_path, delay):
    (tmp_path / "a").write_bytes(b"x" * 10)
    name = delayed_files.delayed_path(str(tmp_path / "a"))
    tf.io.gfile.stat(name)
    delayed_files.take_requests()
    delayed_files.take_max_requests_in_flight()
    delay(200)
    begin = time.perf_counter()
    threads = [
        threading.Thread(target=tf.io.gfile.stat, args=(name,)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.perf_counter() - begin >= 0.2
    assert delayed_files.take_max_requests_in_flight() > 1
    assert delayed_files.take_requests() == 20
    assert delayed_files.take_requests() == 0
