"""Fine-tune on the tasks of VTAB-1k that are present; report the groups' means."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli, finetuning_flags

_EXPERIMENT = "experiments/finetune_vtab.gin"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only if every task has a result."""
    parser = cli.make_parser(__doc__ or "")
    finetuning_flags.add_run_flags(parser, _EXPERIMENT)
    add = parser.add_argument_group("tasks").add_argument
    add("--tfds_data_dir", help="TFDS' folder, with the prepared sets")
    add("--tasks", nargs="+", help="some tasks; default: all whose set is prepared")
    add("--train_images", type=int, default=800, help="of each task")
    add("--val_images", type=int, default=200, help="of each task")
    add = parser.add_argument_group("search").add_argument
    add(
        "--learning_rates",
        type=float,
        nargs="+",
        default=[0.1, 0.01],
        help="candidates; the validation images choose",
    )
    add("--steps", type=int, nargs="+", default=[2500, 10000], help="candidates")
    failed: list[str] = []

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        report = _run(arguments)
        failed.extend(n for n, r in report["tasks"].items() if "failed" in r)
        return report

    return cli.run(parser, argv, command, _show) or int(bool(failed))


def _run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling import gin_files
    from vit_scaling.data.writing import vtab_tasks
    from vit_scaling.naming import check_known
    from vit_scaling.scaling.studies.vtab import TaskSets, run_vtab

    for name in arguments.tasks or ():
        check_known("tasks", name, vtab_tasks.TASKS)
    data_dir = arguments.tfds_data_dir
    present = {n: vtab_tasks.is_prepared(n, data_dir) for n in vtab_tasks.TASKS}
    names = arguments.tasks or [name for name, found in present.items() if found]
    absent = [vtab_tasks.TASKS[name].dataset for name in names if not present[name]]
    if absent or not names:
        datasets = absent or sorted({t.dataset for t in vtab_tasks.TASKS.values()})
        raise FileNotFoundError(
            f"TFDS has not prepared {', '.join(datasets)} in "
            f"{data_dir or 'its default folder'}. Run `tfds build NAME`, with "
            "--manual_dir for those that need a download by hand."
        )
    sets = []
    for name in names:
        task = vtab_tasks.TASKS[name]
        images = cli.select_flags(arguments, "train_images", "val_images")
        folder = f"{arguments.output_dir}/{name}/sets"
        patterns = vtab_tasks.write_task(name, folder, data_dir, **images)
        sets.append(TaskSets(name, task.group, task.classes, patterns))
    report = run_vtab(
        sets,
        arguments.gin_file or [_EXPERIMENT],
        arguments.gin_param,
        output_dir=arguments.output_dir,
        learning_rates=arguments.learning_rates,
        steps=arguments.steps,
        find_file=gin_files.find,
    )
    return {**report, "not_prepared": [n for n, found in present.items() if not found]}


def _show(report: Mapping[str, Any]) -> str:
    def percent(result: Mapping[str, Any], key: str) -> str:
        return f"{100 * result[key]:.2f}" if key in result else ""

    rows = [
        [
            result["group"],
            name,
            f"{result.get('learning_rate', '')}",
            f"{result.get('steps', '')}",
            percent(result, "val"),
            "failed" if "failed" in result else percent(result, "test"),
        ]
        for name, result in report["tasks"].items()
    ]
    lines = [cli.table(rows, ["group", "task", "rate", "steps", "val %", "test %"])]
    lines += [
        f"{group}: {100 * facts['mean']:.2f} % ({facts['tasks']} tasks)"
        for group, facts in report["groups"].items()
    ]
    if report["mean"] is not None:
        count = sum(facts["tasks"] for facts in report["groups"].values())
        lines.append(f"mean of {count} tasks of 19: {100 * report['mean']:.2f} %")
    if report["not_prepared"]:
        lines.append(f"not prepared: {', '.join(report['not_prepared'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
