"""Every kind of file and folder gives the same table."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pandas as pd
import pytest

from vit_scaling.scaling.laws.run_tables import runs_from
from vit_scaling.scaling.laws.table_files import read_run_folders, read_table

ROWS = [
    {"flops": 1e18, "loss": 3.0, "model": "a"},
    {"flops": 2e18, "loss": 2.5, "model": "b;c, d"},
]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_recognised(tmp_path, separator):
    path = tmp_path / "t.csv"
    pd.DataFrame(ROWS).to_csv(path, sep=separator, index=False)
    runs = runs_from(path)
    assert list(runs.error) == [3.0, 2.5]
    assert [run.model for run in runs] == ["a", "b;c, d"]


def test_json_lines_json_and_parquet(tmp_path):
    frame = pd.DataFrame(ROWS)
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "t.json", orient="records")
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.json", "t.parquet"):
        runs = runs_from(tmp_path / name)
        assert list(runs.compute) == [1e18, 2e18]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "flops,loss\n1,2,3\n", "line 2: 3 cells for 2 columns"),
        ("t.csv", "loss,loss\n1,2\n", "several columns called loss"),
        ("t.jsonl", '{"flops": 1}\n{"flo', "line 2: not JSON"),
        ("t.parquet", "no parquet", "cannot be read as a table"),
        ("t.csv", "flops;loss\n1;2,5\n", "line 2: column 'loss'.*with a point"),
    ],
)
def test_damaged_files_name_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        runs_from(tmp_path / name)


def test_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffflops,loss\n1e18,3\n\n2e18,2\n,\n")
    assert list(read_table(tmp_path / "t.csv").index) == [2, 4]
    assert len(runs_from(tmp_path / "t.csv")) == 2


def write_run(folder, steps):
    folder.mkdir(parents=True)
    lines = []
    for step, error in steps.items():
        train = {"images_seen": step * 8, "core_hours": step / 10, "loss": 1.0}
        lines.append({"kind": "train", "step": step, "time": 1.0, **train})
        lines.append({"kind": "eval", "step": step, "time": 2.0, "top1": 1 - error})
    lines.append({"kind": "train", "step": 1000, "time": 3.0, "core_hours": 100.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"kind": "tra')
    (folder / "run.json").write_text(json.dumps({"parameters": 7, "seed": 3}))


def test_metrics_of_training_runs_are_rows_by_step(tmp_path):
    write_run(tmp_path / "runs" / "small", {10: 0.5, 20: 0.4})
    write_run(tmp_path / "runs" / "large", {10: 0.3})
    runs = runs_from(tmp_path / "runs", accuracy="eval/top1")
    assert sorted(runs.images_seen) == [80, 80, 160]
    assert sorted(runs.error) == pytest.approx([0.3, 0.4, 0.5])
    assert runs.compute_unit == "core_hours"
    assert set(runs.parameters) == {7}
    assert len(set(runs.clusters)) == 2
    folders = [tmp_path / "runs" / "small", tmp_path / "runs" / "large"]
    assert len(runs_from(folders, accuracy="eval/top1")) == 3
    with pytest.raises(FileNotFoundError, match=r"no runs\.csv, metrics\.jsonl"):
        read_run_folders([tmp_path / "none"])


@pytest.mark.parametrize("version", [1, 2])
def test_tensorboard_files_are_read(version, tmp_path):
    """TensorFlow 2 writes a scalar as the bytes of a tensor."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for run, errors in {"one": [0.5, 0.4], "two": [0.3]}.items():
        writer = EventFileWriter(str(tmp_path / run / "eval"))
        for step, error in enumerate(errors, start=1):
            values = {"error": error, "pf_days": step * 2.0}
            scalars = [
                summary_pb2.Summary.Value(
                    tag=tag,
                    **(
                        {"simple_value": value}
                        if version == 1
                        else {"tensor": TensorProto(
                            dtype=1, tensor_content=np.float32(value).tobytes())}
                    ),
                )
                for tag, value in values.items()
            ]  # fmt: skip
            summary = summary_pb2.Summary(value=scalars)
            writer.add_event(event_pb2.Event(step=step, summary=summary))
        writer.close()
    runs = runs_from(
        tmp_path, error="eval/error", compute="eval/pf_days", unit="pf_days"
    )
    assert sorted(runs.error) == pytest.approx([0.3, 0.4, 0.5])
    assert len(set(runs.clusters)) == 2
