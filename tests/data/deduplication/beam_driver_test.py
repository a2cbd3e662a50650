"""Beam finds and writes what one process does; most tests need no Beam installed."""
# SPDX-License-Identifier: Apache-2.0

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.data import sets
from tests.data.deduplication import in_memory_beam
from tests.data.deduplication.example_sets import photos, planted, removals
from vit_scaling.data.deduplication import (
    beam_driver,
    cleaning,
    planted_copies,
    shared_objects,
)
from vit_scaling.data.deduplication.beam_driver import BeamDriver
from vit_scaling.data.deduplication.local_driver import LocalDriver
from vit_scaling.data.deduplication.search import Search


@pytest.fixture
def in_memory(monkeypatch, tmp_path) -> BeamDriver:
    """A driver whose pipelines run in memory."""
    monkeypatch.setitem(sys.modules, "apache_beam", in_memory_beam.MODULE)
    monkeypatch.setattr(beam_driver, "make_pipeline", in_memory_beam.make_pipeline)
    return BeamDriver("in memory", [], str(tmp_path / "beam"))


def altered_copies(path):
    """A training set with an altered copy of every image, and two evaluation sets."""
    images = [data for _, data in photos(60)]
    generator = np.random.default_rng(0)
    kinds = list(planted_copies.ALTERATIONS)
    copies = [
        planted_copies.alter_image(data, kinds[n % len(kinds)], generator)
        for n, data in enumerate(images)
    ]
    records = [sets.example(data, [0]) for data in [*images[20:], b"no image", *copies]]
    evaluation = [sets.example(data, [0]) for data in [*images[:20], b"no image"]]
    return sets.shards(path / "train", [records[:30], records[30:]]), [
        sets.shards(path / "first", [evaluation[:12]]),
        sets.shards(path / "second", [evaluation[12:]]),
    ]


@pytest.mark.parametrize("include_internal", [False, True])
def test_both_drivers_find_the_same_pairs(
    tmp_path, in_memory, monkeypatch, include_internal
):
    monkeypatch.setattr(beam_driver, "_RECORDS_PER_ELEMENT", 7)
    train, against = altered_copies(tmp_path)
    search = Search(train, against, include_internal=include_internal)
    expected = LocalDriver().run_search(search)
    assert in_memory.run_search(search) == expected
    assert (expected.unreadable, expected.unreadable_against) == (1, (0, 1))
    by_set = {removal.dataset for removal in removals(expected)}
    assert by_set == ({-1, 0, 1} if include_internal else {0, 1})


def test_both_drivers_find_the_same_pairs_without_evaluation_sets(tmp_path, in_memory):
    train, _ = altered_copies(tmp_path)
    search = Search(train, [], include_internal=True)
    expected = LocalDriver().run_search(search)
    assert len(removals(expected)) > 10
    assert in_memory.run_search(search) == expected


def test_an_unreadable_evaluation_set_is_rejected_at_the_end(tmp_path, in_memory):
    train, test = planted(tmp_path)
    junk = sets.shards(tmp_path / "junk", [[sets.example(b"junk", [0])]])
    with pytest.raises(ValueError, match=r"`against` must.*received '.*junk"):
        in_memory.run_search(Search(train, [test, junk]))


def check_same_files(path, train, test, driver, **options):
    search = Search(train, [test], include_internal=True)
    expected = cleaning.clean(search, output_dir=str(path / "local"), **options)
    result = cleaning.clean(
        search, output_dir=driver.output_dir, driver=driver, **options
    )
    assert result == expected
    files = sorted(p for p in (path / "local").rglob("*") if p.is_file())
    copies = sorted(p for p in (path / "beam").rglob("*") if p.is_file())
    assert [p.relative_to(path / "beam") for p in copies] == [
        p.relative_to(path / "local") for p in files
    ]
    assert all(
        a.read_bytes() == b.read_bytes() for a, b in zip(files, copies, strict=True)
    )
    assert not (path / "beam/.beam").exists()
    return result


def test_both_drivers_write_the_same_files(tmp_path, in_memory):
    result = check_same_files(tmp_path, *planted(tmp_path), in_memory)
    assert (result["removed"], result["exceptions"]) == (3, 0)


def test_both_drivers_keep_exceptions(tmp_path, in_memory):
    exceptions = tmp_path / "exceptions.csv"
    # Record 13 is the seventh of the second shard.
    exceptions.write_text("file,record\ntrain-00001-of-00002.tfrecord,6\n")
    options = {"exceptions": str(exceptions)}
    result = check_same_files(tmp_path, *planted(tmp_path), in_memory, **options)
    assert (result["removed"], result["exceptions"]) == (2, 1)


@pytest.mark.parametrize("records", [0, 1, 255, 256, 257, 1000])
def test_workers_make_ranges_that_have_every_record_once(tmp_path, records):
    source = sets.hashed(
        tmp_path / "set", [np.zeros(n, np.uint64) for n in (9, records)]
    )
    path = str(tmp_path / "search")
    shared_objects.store(path, Search(source, [], include_internal=True))
    ranges = list(beam_driver._make_ranges(-1, path))
    assert [r for _, a, b in ranges for r in range(a, b)] == list(range(9 + records))
    assert max(b - a for _, a, b in ranges) <= 256


@pytest.mark.slow
def test_the_pipeline_does_not_grow_with_the_set(tmp_path, monkeypatch):
    beam = pytest.importorskip("apache_beam")
    sizes = []

    class Unrun:
        """A pipeline that is measured instead of run."""

        def __enter__(self):
            self.pipeline = beam.Pipeline()
            return self.pipeline

        def __exit__(self, *_):
            sizes.append(len(self.pipeline.to_runner_api().SerializeToString()))

    monkeypatch.setattr(beam_driver, "make_pipeline", lambda *_: Unrun())
    for count in (1000, 1_000_000):
        source = sets.hashed(tmp_path / str(count), [np.zeros(count, np.uint64)])
        driver = BeamDriver("none", [], str(tmp_path / f"{count}-output"))
        driver.run_search(Search(source, [source], include_internal=True))
    assert abs(sizes[1] - sizes[0]) < 0.01 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[], ["direct_running_mode=multi_processing", "direct_num_workers=2"]],
)
def test_beam_itself_writes_the_same_files(tmp_path, options):
    pytest.importorskip("apache_beam")
    driver = BeamDriver("DirectRunner", options, str(tmp_path / "beam"))
    check_same_files(tmp_path, *planted(tmp_path), driver)


@pytest.mark.slow
def test_three_kills_at_random_moments_change_nothing(tmp_path):
    pytest.importorskip("apache_beam")
    train, test = planted(tmp_path)
    search = Search(train, [test], include_internal=True)
    cleaning.clean(search, output_dir=str(tmp_path / "local"))
    output = tmp_path / "beam"
    command = [sys.executable, "-m", "vit_scaling.commands.deduplicate", "--repeats"]
    command += [f"--train={train.pattern}", f"--against={test.pattern}"]
    command += [f"--output_dir={output}", "--runner=DirectRunner"]
    generator = random.Random(0)

    def has_new(pattern, begin):
        return any(path.stat().st_mtime_ns > begin for path in output.glob(pattern))

    # While it starts, searches and copies.
    for pattern in ("index", ".beam/search-*", "*.tfrecord"):
        begin = time.time_ns()
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None and not has_new(pattern, begin):
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    local = tmp_path / "local"
    names = [p.relative_to(local) for p in local.rglob("*") if p.is_file()]
    found = [p.relative_to(output) for p in output.rglob("*") if p.is_file()]
    assert sorted(found) == sorted(names)
    assert all((output / n).read_bytes() == (local / n).read_bytes() for n in names)
