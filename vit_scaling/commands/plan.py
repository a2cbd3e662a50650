"""Plan a run: parameters, FLOPs, memory, time and cost; or spend a compute budget."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import pathlib
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli
from vit_scaling.modeling.head_specs import HEADS
from vit_scaling.modeling.shapes import ViTShape, shape_named
from vit_scaling.optimization.update_rules import RULES_BY_FLAG

# Flags by the mode that reads them.
_COMMON_FLAGS = {"json", "device", "find_shapes", "budget", "gin_file"}
_RATES = {"devices", "images_per_second", "utilisation", "price_per_hour"}
_MODE_FLAGS = {
    "--gin_file": {"gin_param", "batch", "images", *_RATES},
    "--find_shapes": {"depths", "patch", "batch", "image_size", "output_dir"},
    "--budget": {"budget_unit", "runs", "metric", "image_size", *_RATES},
}
_ALSO_WITHOUT_MODE = {"patch", "batch", "image_size", "images", *_RATES}

_WIDTH = 88  # Characters of a line of text.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = cli.make_parser(__doc__ or "")
    _add_model_flags(parser)
    _add_planning_flags(parser)
    words = sys.argv[1:] if argv is None else argv
    flags = {word[2:].partition("=")[0] for word in words if word.startswith("--")}

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        _check_flags(arguments, flags)
        return _plan(arguments)

    return cli.run(parser, argv, command, _show)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--gin_file", action="append", help="of a run, in place of the flags for the "
        "model and its step; repeat")  # fmt: skip
    add("--gin_param", action="append", default=[], help="a binding; repeat")
    add = parser.add_argument_group("model").add_argument
    add("--shape", help="a shape's name, such as G/14; or give all five numbers:")
    for name in ("width", "depth", "mlp_width", "heads", "patch"):
        add(f"--{name}", type=int)
    add("--head", default="map", help=", ".join(HEADS))
    add = parser.add_argument_group("step").add_argument
    add("--optimizer", default="adafactor", help=", ".join(RULES_BY_FLAG))
    add("--batch", type=int, help="images per device and step; default 8, with "
        "--find_shapes the number that agrees best with Figure 8")  # fmt: skip
    add("--image_size", type=int, default=224, help="pixels")
    add("--classes", type=int, default=1000, help="width of the classifier")
    add("--precision", default="mixed_bfloat16", help="or float32")
    add("--rematerialize", default="none", help="none, all, attention, mlp or every_N")
    add("--attention_chunk", type=int, help="queries that attend at a time")
    add("--average", action="store_true", help="a Polyak average is kept")
    add("--micro_batches", type=int, default=1, help="as MICRO_BATCHES in gin")
    add("--no_clip", action="store_true", help="gradients are not clipped")
    add("--lora_rank", type=int, help="adapters and classifier are trained alone")


def _add_planning_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("devices").add_argument
    add("--device", help="needed: a name such as h100 or tpu_v3 (a core), or 24GiB")
    add("--devices", type=int, default=1, help="data-parallel replicas")
    add = parser.add_argument_group("time and cost").add_argument
    add("--images", help="images seen in training, such as 16.4B, for time and cost")
    add("--images_per_second", type=float, help="measured on one device")
    add("--utilisation", type=float, help="fraction of the peak rate to assume; "
        "default: a roofline of the device's peak rate and bandwidth")  # fmt: skip
    add("--price_per_hour", type=float, help="of one device")
    add = parser.add_argument_group("shapes that fit").add_argument
    add("--find_shapes", action="store_true", help="draw Figure 8 for the device")
    add("--depths", default="24,32,40,48,56", help="for --find_shapes")
    add = parser.add_argument_group("budget").add_argument
    add("--budget", help="compute to spend: returns shape, data, duration and error")
    add("--budget_unit", help="needed with --budget: flops, pf_days, h100_days, "
        "core_days (of TPU v3), …")  # fmt: skip
    add("--runs", default="paper", help="for --budget: 'paper', a CSV or a folder")
    add("--metric", help="for --budget; the paper's default is imagenet_10shot")
    add("--output_dir", default=".", help="for the figure of --find_shapes")


def _check_flags(arguments: argparse.Namespace, flags: set[str]) -> None:
    """Raise if a flag has no effect in the chosen mode."""
    given = {mode: getattr(arguments, mode[2:]) for mode in _MODE_FLAGS}
    modes = [mode for mode, value in given.items() if value not in (None, False)]
    if len(modes) > 1:
        raise ValueError(f"Give {' or '.join(modes)}; received both.")
    if modes:
        unused = flags - _MODE_FLAGS[modes[0]] - _COMMON_FLAGS
        reason = f"{modes[0]} does not read it"
    else:
        other_modes = set().union(*_MODE_FLAGS.values()) - _ALSO_WITHOUT_MODE
        unused = flags & other_modes
        owners = [mode for mode, names in _MODE_FLAGS.items() if unused & names]
        reason = f"it belongs to {' or '.join(owners)}"
        if not arguments.images and not unused:
            unused = flags & {"devices", "price_per_hour"}
            reason = "time and cost need --images"
    if unused:
        names = ", ".join(f"--{name}" for name in sorted(unused))
        raise ValueError(f"Leave out {names}: {reason}.")
    if not arguments.device:
        raise ValueError(
            "No device is given. Give --device, such as --device=h100, --device=tpu_v3 "
            "(the paper's, one core) or a memory size as in --device=24GiB."
        )
    if arguments.budget is not None and not arguments.budget_unit:
        raise ValueError(
            f"--budget={arguments.budget} has no unit. Give --budget_unit, such as "
            "flops, pf_days, h100_days or core_days (the paper's, of a TPU v3 core)."
        )


def _plan(arguments: argparse.Namespace) -> Mapping[str, Any]:
    if arguments.budget is not None:
        return _plan_budget(arguments)
    if arguments.find_shapes:
        return _find_shapes(arguments)
    from vit_scaling.scaling.laws.row_reader import parse_quantity
    from vit_scaling.scaling.planning.devices import device_named
    from vit_scaling.scaling.planning.planner import plan

    shape, step = _shape_and_step(arguments)
    return plan(
        shape,
        batch=8 if arguments.batch is None else arguments.batch,
        device=device_named(arguments.device),
        step=step,
        images=parse_quantity(arguments.images) if arguments.images else None,
        devices=arguments.devices,
        images_per_second=arguments.images_per_second,
        utilisation=arguments.utilisation,
        price_per_hour=arguments.price_per_hour,
    )


def _shape_and_step(arguments: argparse.Namespace) -> tuple[ViTShape, Any]:
    """Return what is planned: of a run's configuration, or of flags."""
    from vit_scaling.scaling.planning.step import Step

    if arguments.gin_file:
        from vit_scaling.commands.planned_run import read_run

        return read_run(arguments.gin_file, arguments.gin_param)
    step = Step(
        head=arguments.head,
        image_size=arguments.image_size,
        classes=arguments.classes,
        optimizer=arguments.optimizer,
        precision=arguments.precision,
        rematerialize=arguments.rematerialize,
        attention_chunk=arguments.attention_chunk,
        clip=not arguments.no_clip,
        average=arguments.average,
        micro_batches=arguments.micro_batches,
        lora_rank=arguments.lora_rank,
    )
    return _shape(arguments), step


def _shape(arguments: argparse.Namespace) -> ViTShape:
    names = [field.name for field in dataclasses.fields(ViTShape)]
    values = {name: getattr(arguments, name) for name in names}
    numbers = {name: value for name, value in values.items() if value is not None}
    if arguments.shape and set(numbers) <= {"patch"}:
        return dataclasses.replace(shape_named(arguments.shape), **numbers)
    missing = [f"--{name}" for name in names if name not in numbers]
    if arguments.shape or missing:
        raise ValueError(
            "Give --shape, or all of --width --depth --mlp_width --heads --patch; "
            + (f"missing: {', '.join(missing)}." if missing else "received both.")
        )
    return ViTShape(**numbers)


def _plan_budget(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.laws.compute_units import parse_unit
    from vit_scaling.scaling.laws.row_reader import parse_quantity
    from vit_scaling.scaling.planning.devices import DEVICES, device_named
    from vit_scaling.scaling.planning.planner import (
        convert_to_device_days,
        convert_to_flops,
        device_days_of,
        plan_budget,
    )
    from vit_scaling.scaling.studies import analysis

    if arguments.runs == "paper" and arguments.image_size != 224:
        raise ValueError(
            "The paper's runs were trained on images of 224 pixels; received "
            f"--image_size={arguments.image_size}. Leave it out, or give --runs."
        )
    unit = parse_unit(arguments.budget_unit, name="--budget_unit", flag="budget_unit")
    runs = analysis.load_runs(arguments.runs, metric=arguments.metric)
    of_unit = [
        d for d in DEVICES.values() if device_days_of(d).quantity == unit.quantity
    ]
    if unit.quantity == "FLOPs" and runs.unit.quantity != "FLOPs":
        runs = convert_to_flops(runs, image_size=arguments.image_size)
    elif of_unit and runs.unit.quantity != unit.quantity:
        runs = convert_to_device_days(runs, of_unit[0], image_size=arguments.image_size)
    runs = runs.in_unit(unit)
    budget = parse_quantity(arguments.budget)
    return plan_budget(
        runs,
        budget,
        image_size=arguments.image_size,
        device=device_named(arguments.device),
        **{name: getattr(arguments, name) for name in _RATES},
    )


def _find_shapes(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.planning.devices import device_named
    from vit_scaling.scaling.planning.shape_finder import draw_shapes, find_shapes

    depths = [int(depth) for depth in arguments.depths.split(",")]
    cells = find_shapes(
        device_named(arguments.device),
        depths=depths,
        patch=14 if arguments.patch is None else arguments.patch,
        batch=arguments.batch,
        image_size=arguments.image_size,
    )
    folder = pathlib.Path(arguments.output_dir)
    files = draw_shapes(cells, folder / f"shapes_{arguments.device}")
    return {"device": arguments.device, "cells": cells, "files": list(map(str, files))}


def _show(result: Mapping[str, Any]) -> str:
    if "cells" in result:
        return "\n".join(f"wrote {path}" for path in result["files"])
    from vit_scaling.scaling.planning.plan_text import answer_of, groups_of

    texts = [answer_of(result), *(f"note: {note}" for note in result.get("notes", ()))]
    lines = [textwrap.fill(text, _WIDTH) for text in texts]
    for title, rows in groups_of(result):
        lines += ["", title, cli.table(rows, ["what", "value"])]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
