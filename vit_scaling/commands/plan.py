"""Plan a run: parameters, operations, memory, time and cost; or what a budget buys."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli
from vit_scaling.modeling.shapes import ViTShape, shape_named

_ALWAYS = {"json", "device", "find_shapes", "budget"}
_RATES = {"devices", "images_per_second", "utilisation", "price_per_hour"}
_READ = {
    "--find_shapes": {"depths", "patch", "batch", "image_size", "output_dir"},
    "--budget": {"budget_unit", "runs", "metric", "image_size", *_RATES},
}
_PLANNED = {"patch", "batch", "image_size", *_RATES}  # Of these, a plan reads.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    made = cli.make_parser(__doc__ or "")
    add = made.add_argument
    add("--shape", help="a shape's name, such as G/14; or give all five numbers:")
    for name in ("width", "depth", "mlp_width", "heads", "patch"):
        add(f"--{name}", type=int)
    add("--head", default="map", help="map, gap, token or none")
    add("--optimizer", default="adafactor", help="adam, adam_hp, adafactor, momentum…")
    add("--batch", type=int, help="images per device and step, 8 where not given; of "
        "--find_shapes: those that agree with Figure 8")  # fmt: skip
    add("--image_size", type=int, default=224, help="pixels")
    add("--classes", type=int, default=1000)
    add("--precision", default="mixed_bfloat16", help="or float32")
    add("--rematerialize", default="none", help="none, all, attention, mlp or every_N")
    add("--no_clip", action="store_true", help="gradients are not clipped")
    add("--device", default="tpu_v3", help="a name such as a100_80gb, or 24GiB")
    add("--devices", type=int, default=1, help="data-parallel replicas")
    add("--images", help="images seen in training, such as 16.4B: gives time and cost")
    add("--images_per_second", type=float, help="measured on one device")
    add("--utilisation", type=float, default=0.4, help="share of the peak rate")
    add("--price_per_hour", type=float, help="of one device")
    add("--find_shapes", action="store_true", help="draw Figure 8 for the device")
    add("--depths", default="24,32,40,48,56", help="for --find_shapes")
    add("--budget", help="compute to spend: answers shape, data, duration and error")
    add("--budget_unit", default="core_days", choices=["core_days", "flops"])
    add("--runs", default="paper", help="for --budget: 'paper', a CSV or a folder")
    add("--metric", help="for --budget; the paper's default is imagenet_10shot")
    add("--output_dir", default=".", help="for the figure of --find_shapes")
    words = sys.argv[1:] if argv is None else argv
    given = {word[2:].partition("=")[0] for word in words if word.startswith("--")}

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        _refuse_unread(arguments, given)
        return _plan(arguments)

    return cli.run(made, argv, command, _show)


def _refuse_unread(arguments: argparse.Namespace, given: set[str]) -> None:
    """Refuse a flag that would change nothing: its reader believes that it does."""
    if arguments.find_shapes and arguments.budget is not None:
        raise ValueError("Give --budget or --find_shapes; received both.")
    mode = "--find_shapes" if arguments.find_shapes else "--budget"
    if arguments.find_shapes or arguments.budget is not None:
        unread = given - _READ[mode] - _ALWAYS
        why = f"{mode} does not read it"
    else:
        others = set().union(*_READ.values()) - _PLANNED
        unread, why = given & others, "it belongs to --budget or --find_shapes"
        if not arguments.images and not unread:
            unread = given & {"devices", "price_per_hour"}
            why = "time and cost need --images"
    if unread:
        flags = ", ".join(f"--{name}" for name in sorted(unread))
        raise ValueError(f"Leave out {flags}: {why}.")


def _plan(arguments: argparse.Namespace) -> Mapping[str, Any]:
    if arguments.budget is not None:
        return _budget(arguments)
    if arguments.find_shapes:
        return _find(arguments)
    from vit_scaling.scaling.laws.run_tables import parse_quantity
    from vit_scaling.scaling.planning.devices import device_named
    from vit_scaling.scaling.planning.memory import Step
    from vit_scaling.scaling.planning.planner import plan

    step = Step(
        head=arguments.head,
        image_size=arguments.image_size,
        classes=arguments.classes,
        optimizer=arguments.optimizer,
        precision=arguments.precision,
        rematerialize=arguments.rematerialize,
        clip=not arguments.no_clip,
    )
    return plan(
        _shape(arguments),
        batch=8 if arguments.batch is None else arguments.batch,
        device=device_named(arguments.device),
        step=step,
        images=parse_quantity(arguments.images) if arguments.images else None,
        devices=arguments.devices,
        images_per_second=arguments.images_per_second,
        utilisation=arguments.utilisation,
        price_per_hour=arguments.price_per_hour,
    )


def _shape(arguments: argparse.Namespace) -> ViTShape:
    names = [field.name for field in dataclasses.fields(ViTShape)]
    given = {name: getattr(arguments, name) for name in names}
    known = {name: value for name, value in given.items() if value is not None}
    if arguments.shape and set(known) <= {"patch"}:
        return dataclasses.replace(shape_named(arguments.shape), **known)
    missing = [f"--{name}" for name in names if name not in known]
    if arguments.shape or missing:
        raise ValueError(
            "Give --shape, or all of --width --depth --mlp_width --heads --patch; "
            + (f"missing: {', '.join(missing)}." if missing else "received both.")
        )
    return ViTShape(**known)


def _budget(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.laws.run_tables import parse_quantity
    from vit_scaling.scaling.planning.devices import device_named
    from vit_scaling.scaling.planning.planner import convert_to_flops, plan_budget
    from vit_scaling.scaling.studies import analysis

    if arguments.runs == "paper" and arguments.image_size != 224:
        raise ValueError(
            "The paper's runs saw images of 224 pixels, so they tell nothing of "
            f"--image_size={arguments.image_size}: leave it out, or give --runs."
        )
    runs = analysis.load_runs(arguments.runs, metric=arguments.metric)
    if arguments.budget_unit == "flops" and runs.compute_unit != "flops":
        runs = convert_to_flops(runs, image_size=arguments.image_size)
    if runs.compute_unit != arguments.budget_unit:
        raise ValueError(
            f"These runs count compute in {runs.compute_unit}: give "
            f"--budget_unit={runs.compute_unit}."
        )
    budget = parse_quantity(arguments.budget)
    return plan_budget(
        runs,
        budget,
        image_size=arguments.image_size,
        device=device_named(arguments.device),
        **{name: getattr(arguments, name) for name in _RATES},
    )


def _find(arguments: argparse.Namespace) -> Mapping[str, Any]:
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
    rows = [row for name, value in result.items() for row in _rows(name, value)]
    return cli.table(rows, ["what", "value"])


def _rows(name: str, value: Any) -> list[list[str]]:
    if isinstance(value, Mapping):
        return [row for key in value for row in _rows(f"{name}: {key}", value[key])]
    if isinstance(value, int) and not isinstance(value, bool):
        return [[name, f"{value:,}"]]
    if isinstance(value, float):
        return [[name, f"{value:,.4g}"]]
    if isinstance(value, list | tuple):
        return [[name, " ".join(f"{v:.4g}" if isinstance(v, float) else str(v)
                                for v in value)]]  # fmt: skip
    return [[name, str(value)]]
