"""Index files of other programs' shards: complete, equal, and built once."""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data import record_files
from vit_scaling.data.examples import Features
from vit_scaling.data.subsets import hash_key
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.indexing import build_index

COUNTS = [5, 3, 8, 1]


def other_program(path, counts=COUNTS):
    """Return a set with keys, without a manifest and index files."""
    source = sets.numbered(path, counts)
    (path / "train.manifest.json").unlink()
    return TFRecords(source.pattern)


def index_files(path):
    return {p.name: p.read_bytes() for p in (path / "index").iterdir()}


def test_offsets_and_hashes_are_those_of_the_records(tmp_path):
    source = other_program(tmp_path)
    progress = []
    result = build_index(
        source, workers=1, fractions=[0.5], progress=lambda *done: progress.append(done)
    )
    assert (result["shards"], result["built"], result["records"]) == (4, 4, 17)
    sizes = [pathlib.Path(shard.path).stat().st_size for shard in source.shards]
    assert result["bytes"] == sum(sizes)
    number = 0
    for shard, count, size in zip(source.shards, COUNTS, sizes, strict=True):
        folder, name = (
            pathlib.Path(shard.path).parent / "index",
            shard.path.split("/")[-1],
        )
        with open(shard.path, "rb") as file:
            expected, _ = record_files.scan_offsets(file, size)
        np.testing.assert_array_equal(np.load(folder / f"{name}.offsets.npy"), expected)
        (hashes,) = folder.glob(f"{name}.keys-*-{size}.npy")
        keys = [f"key/{n}".encode() for n in range(number, number + count)]
        assert np.load(hashes).tolist() == [hash_key(key) for key in keys]
        number += count
    chosen = [n for n in range(17) if hash_key(f"key/{n}".encode()) < 2**63]
    assert result["subsets"] == {"0.5": len(chosen)}
    assert progress[-1] == (0, 0)  # MiB.


def test_hosts_build_what_one_builds_and_nothing_is_built_twice(tmp_path):
    build_index(other_program(tmp_path / "one"), workers=1)
    parts = other_program(tmp_path / "parts")
    results = [build_index(parts, workers=1, host=n, hosts=3) for n in (2, 0, 1)]
    assert index_files(tmp_path / "one") == index_files(tmp_path / "parts")
    assert [result["built"] for result in results] == [1, 2, 1]
    assert sum(result["records"] for result in results) == 17
    again = build_index(parts, workers=1)
    assert (again["built"], again["records"]) == (0, 17)


def test_files_that_are_damaged_or_were_left_are_replaced(tmp_path):
    source = other_program(tmp_path)
    build_index(source, workers=1)
    expected = index_files(tmp_path)
    first = sorted((tmp_path / "index").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-8])
    name = pathlib.Path(source.shards[1].path).name
    left = tmp_path / f"index/.partial-{'0' * 32}-{name}.offsets.npy"
    left.write_bytes(b"half")
    other = tmp_path / f"index/.partial-{'0' * 32}-other.tfrecord.offsets.npy"
    other.write_bytes(b"of another set")
    assert build_index(source, workers=1)["built"] == 1
    assert index_files(tmp_path) == {**expected, other.name: b"of another set"}


def test_without_keys_only_offsets_are_built(tmp_path):
    build_index(other_program(tmp_path), keys=False, workers=1)
    assert len(index_files(tmp_path)) == 4
    assert all(name.endswith(".offsets.npy") for name in index_files(tmp_path))


def test_damaged_shards_are_named_and_the_others_are_built(tmp_path):
    source = other_program(tmp_path)
    path = pathlib.Path(source.shards[2].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"00002-of-00004.tfrecord, record 4: its byt"):
        build_index(source, workers=1)
    assert len(index_files(tmp_path)) == 6
    with pytest.raises(ValueError, match=r"record 0: .* has no feature 'none'"):
        build_index(TFRecords(source.pattern, Features(key="none")), workers=1)


def test_a_wrong_host_raises(tmp_path):
    with pytest.raises(ValueError, match="`host` must be 0 to 2"):
        build_index(other_program(tmp_path), host=3, hosts=3)


def kill_when(is_due, process_id):
    """Kill a child by SIGKILL when a condition holds; return whether it was alive."""
    while not is_due():
        if os.waitpid(process_id, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.0005)
    os.kill(process_id, signal.SIGKILL)
    return os.waitpid(process_id, 0)[1] == signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork")  # The child starts no TensorFlow thread.
def test_nine_kills_at_random_moments_change_nothing(tmp_path):
    counts = [300] * 24
    build_index(other_program(tmp_path / "undisturbed", counts), workers=1)
    source, folder = (
        other_program(tmp_path / "killed", counts),
        tmp_path / "killed/index",
    )
    generator, moments = random.Random(0), []
    while len(moments) < 9:
        files = len(list(folder.glob("[!.]*"))) if folder.exists() else 0
        if files >= 2 * len(counts) - 2:
            for path in list(folder.iterdir())[::2]:  # Again, so that all kills count.
                path.unlink()
            continue
        wanted = generator.randrange(files, min(files + 8, 2 * len(counts) - 1))
        process_id = os.fork()
        if not process_id:
            try:
                build_index(source, workers=1)
            finally:
                os._exit(0)

        def is_due(wanted=wanted):
            return len(list(folder.glob("*"))) > wanted

        if kill_when(is_due, process_id):
            moments.append(len(list(folder.glob("[!.]*"))))
    assert len(set(moments)) > 4
    build_index(source, workers=1)
    assert index_files(tmp_path / "killed") == index_files(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_command_leaves_no_process_and_continues(tmp_path):
    counts = [3000] * 24
    build_index(other_program(tmp_path / "undisturbed", counts), workers=1)
    source, folder = (
        other_program(tmp_path / "killed", counts),
        tmp_path / "killed/index",
    )
    command = [sys.executable, "-m", "vit_scaling.commands.index_tfrecords"]
    command += [f"--pattern={source.pattern}", "--workers=2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (folder.exists() and list(folder.glob("*"))):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert len(index_files(tmp_path / "killed")) < 48
    subprocess.run(command, check=True)  # Takes far longer than a worker to end.
    assert index_files(tmp_path / "killed") == index_files(tmp_path / "undisturbed")
