"""Tables from files: CSV, JSON lines, Parquet, sweeps' folders, metrics of runs."""
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vit_scaling.naming import did_you_mean
from vit_scaling.scaling.laws.columns import is_target

if TYPE_CHECKING:
    import pandas as pd

_LINES = (".jsonl", ".ndjson")
_SEPARATORS = ",;\t|"
METRICS_FILE = "metrics.jsonl"
# Folders of event files that belong to the run in the folder above.
_SETS = ("train", "eval", "evaluation", "val", "valid", "validation", "test")
RUN_FILE = "run.json"
# The name of a column in run.json of a training run, and that of the table.
_RUN_FACTS = {"parameters": "parameters", "train_images": "data_size", "seed": "seed"}


def read_table(source: str | pathlib.Path) -> "pd.DataFrame":
    """Read a table; its index has the line of each row in a text file.

    Args:
        source: A CSV file with any separator, JSON lines, a JSON list, Parquet, a
            sweep's folder with `runs.csv`, a training run's folder, or a folder of
            several training runs (`metrics.jsonl` or TensorBoard's event files).

    Raises:
        FileNotFoundError: The file does not exist, or the folder has no runs.
        ValueError: The file cannot be read as its name says.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise FileNotFoundError(
            f"No table of runs exists at {source}. Give a CSV, JSON lines or Parquet "
            "file, the folder of a sweep or of training runs, or the word paper."
            f"{did_you_mean(source, ['paper'])}"
        )
    return _read_file(path)


def _read_file(path: pathlib.Path) -> "pd.DataFrame":
    import pandas as pd

    suffix = path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            return pd.read_parquet(path)
        text = path.read_text(encoding="utf-8-sig")
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
    if suffix in _LINES:
        rows = [_parse_json(line, path, number)
                for number, line in enumerate(text.splitlines(), start=1)
                if line.strip()]  # fmt: skip
        return _number_rows(pd.DataFrame(rows), first=1)
    if suffix == ".json":
        rows = _parse_json(text, path, 1)
        return _number_rows(pd.DataFrame(rows), first=1)
    return _parse_csv(text, path)


def _parse_csv(text: str, path: pathlib.Path) -> "pd.DataFrame":
    import pandas as pd

    lines = text.splitlines()
    first = lines[0] if lines else ""
    separator = max(_SEPARATORS, key=first.count)
    header, *rows = list(csv.reader(lines, delimiter=separator)) or [[]]
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise ValueError(
            f"{path} has several columns called {', '.join(twice)}. Rename them."
        )
    for number, row in enumerate(rows, start=2):
        if len(row) > len(header):
            raise ValueError(
                f"{path}, line {number}: {len(row)} cells for {len(header)} columns. "
                "Quote cells that contain the separator, and write decimals with a "
                "point."
            )
    padded = [row + [""] * (len(header) - len(row)) for row in rows]
    table = pd.DataFrame(padded, columns=pd.Index(header), dtype=object)
    table = _number_rows(table, first=2)
    return table[[any(cell.strip() for cell in row) for row in rows]]


def _number_rows(table: "pd.DataFrame", *, first: int) -> "pd.DataFrame":
    table.index = range(first, first + len(table))
    return table.rename_axis("line")


def _parse_json(text: str, path: pathlib.Path, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}).") from None


def _read_folder(path: pathlib.Path) -> "pd.DataFrame":
    if (path / "runs.csv").is_file():
        return _read_file(path / "runs.csv")
    return read_run_folders([path])


def read_run_folders(folders: Sequence[str | pathlib.Path]) -> "pd.DataFrame":
    """Return the metrics of training runs, a row per run and step.

    Columns are "KIND/FIELD" of metrics.jsonl, such as "eval/top1", or the folder and
    tag of TensorBoard's scalars. "training_run" is the run's folder; "parameters",
    "data_size" and "seed" come from `run.json`, where it has them. Values last logged
    at an earlier step are repeated, but those of errors, losses and accuracies: a step
    without an evaluation has none.

    Args:
        folders: Folders of runs, or folders that contain runs at any depth.

    Raises:
        FileNotFoundError: There is no run in one of them.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for folder in map(pathlib.Path, folders):
        found = sorted(_find_runs(folder))
        if not found:
            raise FileNotFoundError(
                f"{folder} has no runs.csv, {METRICS_FILE} or TensorBoard events. No "
                "run of this sweep has finished, or the folder is another one."
            )
        for run in found:
            facts = {"training_run": str(run), "model": run.name, **_run_facts(run)}
            rows += [{**facts, "step": step, **values} for step, values in _series(run)]
    table = pd.DataFrame(rows)
    lasting = [n for n in table.columns if "/" in n and not is_target(n.split("/")[-1])]
    table[lasting] = table.groupby("training_run")[lasting].ffill()
    return table


def _find_runs(folder: pathlib.Path) -> set[pathlib.Path]:
    """Return folders of runs: those of metrics.jsonl, else those of event files."""
    runs = {path.parent for path in folder.rglob(METRICS_FILE)}
    for path in folder.rglob("events.out.tfevents.*"):
        if not any(run in path.parents for run in runs):
            folder_of_set = path.parent.name in _SETS
            runs.add(path.parent.parent if folder_of_set else path.parent)
    return runs


def _run_facts(run: pathlib.Path) -> dict[str, Any]:
    path = run / RUN_FILE
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: record.get(key) for key, name in _RUN_FACTS.items()}


def _series(run: pathlib.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (step, {"KIND/FIELD": value}) of a run, by step."""
    by_step: dict[int, dict[str, Any]] = {}
    records = _json_records(run) if (run / METRICS_FILE).is_file() else _events(run)
    for step, name, value in records:
        by_step.setdefault(step, {})[name] = value
    yield from sorted(by_step.items())


def _json_records(run: pathlib.Path) -> Iterator[tuple[int, str, float]]:
    for line in (run / METRICS_FILE).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # The last line of a run that was killed.
            continue
        for field, value in row.items():
            if isinstance(value, int | float) and field not in ("step", "time"):
                yield row["step"], f"{row['kind']}/{field}", value


def _events(run: pathlib.Path) -> Iterator[tuple[int, str, float]]:
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    for folder in sorted({path.parent for path in run.rglob("events.out.tfevents.*")}):
        events = event_accumulator.EventAccumulator(
            str(folder), size_guidance={"scalars": 0, "tensors": 0}
        ).Reload()
        kind = folder.name if folder != run else "scalars"
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                yield event.step, f"{kind}/{tag}", event.value
        for tag in events.Tags()["tensors"]:
            for event in events.Tensors(tag):
                value = tensor_util.make_ndarray(event.tensor_proto)
                if value.ndim == 0 and value.dtype.kind in "fiu":  # Of TensorFlow 2.
                    yield event.step, f"{kind}/{tag}", float(value)
