"""Compile the programs of planner_memory.json; record both memories.

python tools/docs/record_planner_memory.py            recompiles all rows: hours
python tools/docs/record_planner_memory.py --planned  computes the planner's side only

Results of the compiler are cached, so an interrupted call continues.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys

import gin

from vit_scaling.commands import planned_run
from vit_scaling.preflight.targets import find_target
from vit_scaling.scaling.planning.devices import GIB
from vit_scaling.scaling.planning.memory import memory

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORD = ROOT / "vit_scaling" / "docs" / "results" / "planner_memory.json"
FILES = ("models/vit", "schedules/reciprocal_sqrt", "data/tfrecords", "runtime/run")


def read_rows() -> list[dict[str, str]]:
    """Return the record's rows by the names of the columns."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return [dict(zip(record["columns"], row, strict=True)) for row in record["rows"]]


def find_run(row: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the gin files and bindings of a row's run."""
    names = (*FILES, f"optimizers/{row['optimizer']}", "runtime/tpu")
    bindings = [
        f"SHAPE = '{row['shape']}'",
        f"HEAD = '{row['head']}'",
        *("CLASSES = 1000", "TOTAL_STEPS = 100_000"),
        *filter(None, row["other settings"].split("; ")),
    ]
    if row["blocks"] != "all":
        bindings.append(f"DEPTH = {row['blocks']}")
    return [f"{name}.gin" for name in names], bindings


def plan_bytes(row: dict[str, str]) -> float:
    """Return the planner's memory of a row's run."""
    gin.clear_config()
    shape, step = planned_run.read_run(*find_run(row))
    device = find_target(row["topology"]).device
    step = dataclasses.replace(step, **device.layout)
    limit = device.memory_bytes
    return memory(shape, batch=int(row["images"]), step=step, limit_bytes=limit).total


def compile_row(row: dict[str, str]) -> dict:
    """Return preflight's report on a row's run."""
    files, bindings = find_run(row)
    command = [sys.executable, "-m", "vit_scaling.commands.preflight", "--json"]
    command += [f"--gin_file={file}" for file in files]
    command += [f"--gin_param={binding}" for binding in bindings]
    command += [f"--topology={row['topology']}", f"--per_core_batch={row['images']}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def measure_row(row: dict[str, str], *, compiles: bool) -> dict[str, str]:
    """Return a row with both sides' memory."""
    compiled, fits = float(row["compiler, GiB"]), row["fits"]
    if compiles:
        report = compile_row(row)
        compiled = report["total_bytes"] / GIB
        fits = "yes" if report["fits"] else "no"
    planned = plan_bytes(row) / GIB
    return {
        **row,
        "compiler, GiB": f"{compiled:.3f}",
        "fits": fits,
        "planner, GiB": f"{planned:.3f}",
        "off": f"{planned / compiled - 1:+.1%}",
    }


def main() -> None:
    """Rewrite the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planned", action="store_true", help="compile nothing")
    compiles = not parser.parse_args().planned
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = [measure_row(row, compiles=compiles) for row in read_rows()]
    record["rows"] = [list(row.values()) for row in rows]
    if compiles:
        record["date"] = datetime.date.today().isoformat()
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
