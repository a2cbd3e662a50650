"""The writer as an Apache Beam pipeline.

Runners are named as Beam names them: DirectRunner in this process (or in several, with
`direct_running_mode=multi_processing` and `direct_num_workers=N`); DataflowRunner,
FlinkRunner and SparkRunner with their own options, on a shared file system.
"""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import Any

from vit_scaling.data.writing import shard_writer
from vit_scaling.data.writing.image_entries import EntrySource


def pipeline(runner: str, options: Sequence[str]) -> Any:
    """Return an empty Beam pipeline.

    Args:
        runner: Beam's name of the runner.
        options: "NAME=VALUE" or "NAME", as Beam's flags without the dashes.
    """
    import apache_beam as beam  # pip install "vit_scaling[beam]"
    from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions

    made = PipelineOptions([f"--{option}" for option in options])
    # Annotations are for mypy; Beam guesses types anew and refuses what narrows them.
    made.view_as(TypeOptions).pipeline_type_check = False
    return beam.Pipeline(runner=runner, options=made)


def write_with_beam(
    source: EntrySource,
    *,
    runner: str,
    options: Sequence[str] = (),
    **arguments: Any,
) -> dict[str, Any]:
    """Write a split as `write_tfrecords` does, a shard for each Beam element.

    The files are the same, byte for byte: workers run the very same function. The
    output folder must be seen by all workers.

    Args:
        source: The images.
        runner: Beam's name of the runner.
        options: For the runner.
        **arguments: Those of `write_tfrecords` but `workers`.
    """

    def run(tasks: list[shard_writer.ShardTask]) -> None:
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        with pipeline(runner, options) as made:
            _ = (
                made
                | "shards" >> beam.Create(tasks)
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.Map(_write)
            )

    return shard_writer.write_tfrecords(source, run_elsewhere=run, **arguments)


def _write(task: shard_writer.ShardTask) -> str:
    if task.finished() is None:
        shard_writer.write_shard(task)
    return task.path
