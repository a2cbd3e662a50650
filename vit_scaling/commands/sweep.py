"""Run a study's grid of models, data sizes and durations; estimate its cost."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only if every run is finished."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("--study", required=True, help="gin file that binds `sweep`")
    add("--gin_param", action="append", default=[], help="more bindings of the study")
    add("--output_dir", help="for runs.csv; default: a folder next to the gin file")
    add("--work_dir", help="for the runs themselves; default: OUTPUT_DIR/work")
    add("--dry_run", action="store_true", help="print cost and commands only")
    unfinished: list[str] = []

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        result = _sweep(arguments)
        unfinished.extend(result.get("failed", ()))
        return result

    code = cli.run(parser, argv, command, _show)
    return code or int(bool(unfinished))


def _sweep(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling import configurables, gin_files
    from vit_scaling.scaling.studies.jobs import group_by_process, make_shell_command
    from vit_scaling.scaling.studies.sweep_runner import (
        check_settings,
        run_sweep,
        unfinished_jobs,
    )

    gin_files.parse(
        [arguments.study],
        arguments.gin_param,
        known={"sweep": configurables.ROOTS["sweep"]},
        roots=["vit_scaling.sweep"],
    )
    sweep = configurables.sweep()
    _check_branches(sweep)
    path = gin_files.find(arguments.study)
    output = epath.Path(arguments.output_dir or path.with_suffix(""))
    work = epath.Path(arguments.work_dir or output / "work")
    check_settings(sweep.jobs, work, gin_files.find)
    left = unfinished_jobs(sweep, sweep.jobs, work)
    cost = {
        "study": sweep.name,
        **sweep.compute_cost(sweep.jobs),
        "left": sweep.compute_cost(left),
    }
    if arguments.dry_run:
        groups = group_by_process(left)
        return {**cost, "commands": [make_shell_command(g, str(work)) for g in groups]}
    print(_show(cost))
    report = run_sweep(
        sweep, output_dir=output, work_dir=work, find_file=gin_files.find
    )
    return {**cost, **report}


def _check_branches(sweep: Any) -> None:
    """Raise if a variant's warm-up is longer than the shortest branch allows."""
    from vit_scaling import configurables, gin_files

    trunks = [job for job in sweep.jobs if not job.is_branch]
    one_per_variant = {job.model.partition(" ")[2]: job for job in trunks}
    for trunk in one_per_variant.values():
        gin_files.clear()
        flags = [word.partition("=")[::2] for word in trunk.arguments]
        files, bindings = (
            [value for flag, value in flags if flag == name]
            for name in ("--gin_file", "--gin_param")
        )
        configurables.parse(files, bindings)
        for name, (_, value) in configurables.effective_settings().items():
            if name.endswith(".warmup_steps") and value.isdigit():
                sweep.check_branches(int(value))


def _show(result: Mapping[str, Any]) -> str:
    left = result["left"]
    lines = [
        f"{result['study']}: {result['runs']} runs in {result['processes']} processes, "
        f"{result['training_flops']:.3g} FLOPs, about "
        f"{result['estimated_hours']:.2f} hours with start-up",
        f"left: {left['runs']} runs, about {left['estimated_hours']:.2f} hours",
        *result.get("commands", ()),
    ]
    if "runs_csv" in result:
        lines.append(f"{result['finished']} runs finished: {result['runs_csv']}")
    lines += [f"failed: {folder}" for folder in result.get("failed", ())]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
