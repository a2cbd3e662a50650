"""The writer as an Apache Beam pipeline.

DirectRunner runs in this process, or in several with the options
`direct_running_mode=multi_processing` and `direct_num_workers=N`. DataflowRunner,
FlinkRunner and SparkRunner take their own options and need a shared file system.
"""
# SPDX-License-Identifier: Apache-2.0

import functools
import pickle
from collections.abc import Sequence
from typing import Any

from etils import epath

from vit_scaling.data.writing import shard_writer, split_writer
from vit_scaling.data.writing.image_entries import EntrySource


def make_pipeline(runner: str, options: Sequence[str]) -> Any:
    """Return an empty Beam pipeline.

    Args:
        runner: Beam's name of the runner.
        options: Beam's flags without the dashes: "NAME=VALUE" or "NAME".
    """
    import apache_beam as beam  # pip install "vit_scaling[beam]"
    from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions

    parsed = PipelineOptions([f"--{option}" for option in options])
    # Beam's own type inference rejects some of the annotations that mypy accepts.
    parsed.view_as(TypeOptions).pipeline_type_check = False
    return beam.Pipeline(runner=runner, options=parsed)


def write_with_beam(
    source: EntrySource,
    *,
    runner: str,
    options: Sequence[str] = (),
    **arguments: Any,
) -> dict[str, Any]:
    """Write a split like `write_tfrecords`, with one Beam element per shard.

    Workers run the same function, so the files are the same, byte for byte. All workers
    must see the output folder.

    Args:
        source: The images.
        runner: Beam's name of the runner.
        options: Options of the runner.
        **arguments: Other arguments of `write_tfrecords`.
    """

    def write_shards(tasks: list[shard_writer.ShardTask]) -> None:
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        # One file: the source and the class names are the same in all.
        path = f"{tasks[0].entries.path}.tasks"
        epath.Path(path).write_bytes(pickle.dumps(tasks))
        with make_pipeline(runner, options) as pipeline:
            _ = (
                pipeline
                | "shards" >> beam.Create(range(len(tasks)))
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.Map(_write_number, path)
            )

    return split_writer.write_tfrecords(source, write_shards=write_shards, **arguments)


@functools.lru_cache(maxsize=1)
def _load(path: str) -> list[shard_writer.ShardTask]:
    tasks: list[shard_writer.ShardTask] = pickle.loads(epath.Path(path).read_bytes())
    return tasks


def _write_number(number: int, path: str) -> str:
    return _write_unfinished(_load(path)[number])


def _write_unfinished(task: shard_writer.ShardTask) -> str:
    if not task.is_finished():
        shard_writer.write_shard(task)
    return task.path
