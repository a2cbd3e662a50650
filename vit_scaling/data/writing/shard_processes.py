"""Write or index shards in several processes, and count what is done so far."""
# SPDX-License-Identifier: Apache-2.0

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from vit_scaling.data.writing import shard_writer
from vit_scaling.data.writing.shard_writer import ShardTask

Task = TypeVar("Task")
Result = TypeVar("Result")
# Starting processes that import TensorFlow takes longer than to write such a set.
_SMALL_BYTES, _SMALL_IMAGES = 128 * 2**20, 2000
_SECONDS_BETWEEN_COUNTS = 1.0


def write_shards(
    tasks: Sequence[ShardTask], workers: int | None, count: Callable[[int], None]
) -> None:
    """Write shards.

    Args:
        tasks: The shards.
        workers: Number of processes; 1 uses this process. None is one per core, or 1
            for small sets.
        count: Called often with the number of images so far.

    Raises:
        OSError: A shard could not be written. Shards that were not begun are not tried.
    """
    run(_write_shard, tasks, workers or _default_workers(tasks), count)


def _write_shard(task: ShardTask, add: Callable[[int], None]) -> None:
    shard_writer.write_shard(task, lambda: add(1))


def run(
    function: Callable[[Task, Callable[[int], None]], Result],
    tasks: Sequence[Task],
    workers: int,
    count: Callable[[int], None],
) -> list[Result]:
    """Return `function(task, add)` of every task, in order.

    Args:
        function: Calls `add` with increments of what is counted. An error that it
            raises ends all; tasks that were not begun are not tried.
        tasks: Its arguments.
        workers: Number of processes; 1 uses this process.
        count: Called often with the sum of all increments so far.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        total = 0

        def add(number: int) -> None:
            nonlocal total
            total += number
            count(total)

        return [function(task, add) for task in tasks]
    # Not fork: TensorFlow's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(counter,)
    ) as pool:
        futures = [pool.submit(_call, function, task) for task in tasks]
        pending = set(futures)
        try:
            while pending:
                finished, pending = concurrent.futures.wait(
                    pending, _SECONDS_BETWEEN_COUNTS, concurrent.futures.FIRST_COMPLETED
                )
                for future in finished:
                    future.result()
                count(counter.value)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _default_workers(tasks: Sequence[ShardTask]) -> int:
    if sum(len(task.entries) for task in tasks) < _SMALL_IMAGES:
        sizes = (entry.size_bytes for task in tasks for entry in task.entries)
        if sum(sizes) < _SMALL_BYTES:
            return 1
    return os.cpu_count() or 1


_counter: Any = None  # Of this worker process and its siblings.


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    tf.config.set_visible_devices([], "GPU")  # Its memory is for training.
    _exit_with_parent()


def _exit_with_parent() -> None:
    """End this worker when its parent ends, even by kill -9; it would wait forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(
    function: Callable[[Task, Callable[[int], None]], Result], task: Task
) -> Result:
    return function(task, _add)


def _add(number: int) -> None:
    with _counter.get_lock():
        _counter.value += number
