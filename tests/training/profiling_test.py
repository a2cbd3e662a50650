"""A profile of chosen steps: written once, between two loops, for TensorBoard."""
# SPDX-License-Identifier: Apache-2.0

import contextlib

import pytest
import tensorflow as tf

from vit_scaling.training.profiling import Profiler


def profiles(folder):
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def run(profiler, folder, loops):
    """Run loops (first, last) and return those after which a profile was there."""
    found = []
    for first, last in loops:
        profiler.before_loop(first)
        tf.matmul(tf.ones((8, 8)), tf.ones((8, 8))).numpy()
        profiler.after_loop(last)
        if profiles(folder):
            found.append((first, last))
    return found


def test_the_steps_between_are_profiled_and_no_other(tmp_path):
    profiler = Profiler(tmp_path, [10, 20])
    loops = [(0, 10), (10, 15), (15, 20), (20, 30)]
    with contextlib.closing(profiler):
        assert run(profiler, tmp_path, loops) == [(15, 20), (20, 30)]
    (file,) = profiles(tmp_path)
    assert b"MatMul" in file.read_bytes()


def test_what_was_recorded_is_written_when_the_run_ends_before(tmp_path):
    profiler = Profiler(tmp_path, [0, 20])
    with pytest.raises(KeyError), contextlib.closing(profiler):
        profiler.before_loop(0)
        raise KeyError
    assert profiles(tmp_path)


def test_nothing_is_recorded_by_default_by_workers_or_after_the_first_step(tmp_path):
    for profiler, start in (
        (Profiler(tmp_path), 0),
        (Profiler(tmp_path, [0, 5], enabled=False), 0),
        (Profiler(tmp_path, [3, 5]), 4),
    ):
        with contextlib.closing(profiler):
            assert not run(profiler, tmp_path, [(start, 5), (5, 10)])


def test_a_run_that_continues_after_the_first_step_says_once_that_it_does_not_profile(
    tmp_path, caplog
):
    with contextlib.closing(Profiler(tmp_path, [3, 5])) as profiler:
        run(profiler, tmp_path, [(3, 4)])
        assert not caplog.text  # It records.
    with contextlib.closing(Profiler(tmp_path, [3, 5])) as profiler:
        run(profiler, tmp_path, [(4, 5), (5, 6)])
    assert caplog.text.count("Nothing is profiled: the run continues from step 4") == 1
