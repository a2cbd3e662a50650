"""`plan`: JSON keys, budgets, shapes, and errors with the nearest name."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

import pytest

from vit_scaling.commands.plan import main
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.runs import Run, Runs, write_csv
from vit_scaling.scaling.planning.flops import flops

DEVICE, CORE_DAYS = "--device=tpu_v3", "--budget_unit=core_days"


def planned(capsys, *flags):
    if not any(flag.startswith("--device=") for flag in flags):
        flags = (*flags, DEVICE)
    assert main([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_vit_g_is_planned(capsys):
    found = planned(
        capsys,
        *("--shape=G/14", "--head=map", "--optimizer=adafactor", "--batch=8"),
        *("--image_size=224", "--device=tpu_v3"),
    )
    assert found["parameters"] == 1_842_772_352
    assert found["parameters_total"] == 1_881_132_416 + 1664 * 1000 + 1000
    assert found["gflops_forward"] == pytest.approx(965.3, rel=0.03)
    assert found["fits"] is True
    assert found["memory_bytes"]["weights"] == pytest.approx(
        4 * found["parameters_total"], rel=1e-3
    )


def test_a_shape_may_be_five_numbers(capsys):
    numbers = ["--width=192", "--depth=12", "--mlp_width=768", "--heads=3"]
    own = planned(capsys, *numbers, "--patch=16")
    assert own["parameters"] == planned(capsys, "--shape=Ti/16")["parameters"]
    assert main([*numbers, DEVICE]) == 1
    assert "missing: --patch" in capsys.readouterr().err
    assert main([*numbers, "--shape=Ti/16", DEVICE]) == 1


def test_a_budget_is_planned(capsys):
    found = planned(capsys, "--budget=1000", "--budget_unit=core_days")
    assert found.keys() >= {"shape", "images_seen", "data_images", "error"}
    assert found["error_interval"][0] < found["error"] < found["error_interval"][1]
    flops = planned(capsys, "--budget=1e21", "--budget_unit=flops")
    assert flops["compute_unit"] == "flops"
    days = planned(capsys, "--budget=11.574074", "--budget_unit=pf_days")
    assert (days["budget"], days["compute_unit"]) == (11.574074, "pf_days")
    assert days["images_seen"] == pytest.approx(flops["images_seen"], rel=1e-3)
    assert main(["--budget=9", "--budget_unit=gpu_hours", DEVICE]) == 1
    assert "Use --budget_unit=core_days" in capsys.readouterr().err


def test_a_budget_costs_core_hours_and_money(capsys):
    flags = ["--devices=4", "--price_per_hour=2"]
    found = planned(capsys, "--budget=10", CORE_DAYS, *flags)
    assert found["core_hours"] == pytest.approx(240)  # Core-days of this very core.
    assert found["hours"] == pytest.approx(60)
    assert found["price"] == pytest.approx(480)
    flags += ["--images_per_second=100", "--device=8GiB"]
    found = planned(capsys, "--budget=10", CORE_DAYS, *flags)
    assert found["core_hours"] == pytest.approx(found["images_seen"] / 360_000)
    assert main(["--budget=10", CORE_DAYS, "--device=8GiB"]) == 1
    assert "--images_per_second" in capsys.readouterr().err


def test_runs_are_counted_in_flops_at_their_image_size(capsys, tmp_path):
    write_csv(paper_runs(), tmp_path / "runs.csv")
    flags = [f"--runs={tmp_path}", "--budget=1e21", "--budget_unit=flops"]
    small, large = (
        planned(capsys, *flags, f"--image_size={size}")["error"] for size in (224, 448)
    )
    # The same runs cost four times as much and more: a budget reaches less far.
    assert large > 1.1 * small


def test_a_sweep_of_shapes_of_ones_own_can_be_planned_from(capsys, tmp_path):
    rows = []
    for width, heads in ((16, 2), (32, 2), (64, 4), (128, 4)):
        shape = ViTShape(8, width, 2, 2 * width, heads)
        each = flops(shape, image_size=32, classes=10).training
        for images in (3e4, 1e5, 3e5):
            compute = each * images
            error = 0.1 + 40 * compute**-0.2
            run = Run(f"w{width}", compute, error, shape=shape, compute_unit="flops")
            rows.append(dataclasses.replace(run, images_seen=images))
    write_csv(Runs(tuple(rows)), tmp_path / "runs.csv")
    flags = [f"--runs={tmp_path}", "--budget_unit=flops", "--image_size=32"]
    found = planned(capsys, *flags, "--budget=1e12")
    assert found["shape"] in {run.model for run in rows}
    assert found["dimensions"]["patch"] == 8
    assert found["error"] == pytest.approx(0.1 + 40 * 1e12**-0.2, rel=0.01)


def test_shapes_are_found_for_a_batch_and_patch(capsys, tmp_path):
    """More images or more patches an image leave room for fewer shapes."""

    def fitting(*flags):
        found = planned(
            capsys, "--find_shapes", "--depths=40", *flags, f"--output_dir={tmp_path}"
        )
        kinds = [cell["cheapest_setting_that_fits"] for cell in found["cells"]]
        return sum(kind != "oom" for kind in kinds)

    usual = fitting("--batch=16")
    assert fitting("--batch=32") < usual
    assert fitting("--batch=16", "--patch=28") > usual
    assert fitting("--batch=16", "--image_size=448") < usual


def test_shapes_are_found_and_drawn(capsys, tmp_path):
    found = planned(capsys, "--find_shapes", "--depths=24", f"--output_dir={tmp_path}")
    assert len(found["cells"]) == 299
    assert (tmp_path / "shapes_tpu_v3.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape=G/13x"], "positive integer"),
        (["--shape=l/16"], "Did you mean"),
        (["--shape=B/16", "--device=tpu_v33"], "Did you mean 'tpu_v3'"),
        (["--shape=B/16", "--head=mapp"], "Did you mean 'map'"),
        (["--shape=B/16", "--optimizer=adam_ph"], "Did you mean 'adam"),
        (["--shape=B/16", "--batch=0"], "`batch` must be at least 1"),
        (["--budget=0", CORE_DAYS], "`budget` must be above 0"),
        (["--shape=B/16", "--images_per_second=0"], "`images_per_second` must be abo"),
        (["--shape=B/16", "--price_per_hour=2"], "--price_per_hour: time and cost nee"),
        (["--shape=B/16", "--runs=paper"], "Leave out --runs: it belongs to --budget"),
        (["--find_shapes", "--head=map"], "--head: --find_shapes does not read it"),
        (["--find_shapes", "--batch=0"], "`batch` must be at least 1"),
        (["--budget=9", "--shape=B/16"], "--shape: --budget does not read it"),
        (["--budget=9", "--find_shapes"], "received both"),
        (["--budget=9", CORE_DAYS, "--image_size=384"], "images of 224 pixels"),
    ],
)
def test_bad_input_is_explained(capsys, flags, message):
    if not any(flag.startswith("--device") for flag in flags):
        flags = [*flags, DEVICE]
    assert main(flags) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


def test_text_output(capsys):
    """The answer comes first, then tables by subject."""
    flags = ["--shape=B/16", "--images=1.2M", "--price_per_hour=2", DEVICE]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert text.startswith("It fits: ") and "TPUv3 core-days" in text.split("\n\n")[0]
    titles = ["Model and device", "Time and cost", "Memory"]
    assert [title for title in titles if f"\n{title}\n" in text] == titles
    assert "memory_bytes: total" in text


def test_what_does_not_fit_is_answered_with_the_nearest_that_does(capsys):
    flags = ["--shape=G/14", "--optimizer=adam", "--batch=8", DEVICE]
    assert main(flags) == 0
    answer = capsys.readouterr().out.split("\n\n")[0]
    assert answer.startswith("It does not fit: ")
    nearest = planned(capsys, *flags)["nearest_fit"]
    assert f"It fits with {nearest}." in answer
    kept = [flag for flag in flags if flag.partition("=")[0] not in nearest]
    assert planned(capsys, *kept, *nearest.split())["fits"]


def test_the_device_and_the_unit_are_asked_for(capsys):
    assert main(["--shape=B/16"]) == 1
    assert "No device is given. Give --device" in capsys.readouterr().err
    assert main(["--budget=9", DEVICE]) == 1
    assert "--budget=9 has no unit. Give --budget_unit" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["h100", "tpu_v3", "a100_80gb", "rtx_4090"])
def test_device_days_that_come_out_may_be_fed_back_in(capsys, device):
    """25.49 H100-days were read as TPU v3 core-days, so B/16 came back, not G/14."""
    size = ["--shape=G/14", "--batch=8", "--images=16.4B"]
    compute = planned(capsys, *size, f"--device={device}")["compute"]
    assert compute["device"] == device
    unit, number = compute["unit"], compute["number"]
    again = planned(
        capsys, f"--budget={number}", f"--budget_unit={unit}", f"--device={device}"
    )
    assert again["shape"] in ("G/14", "g/14")
    assert again["compute_unit"] == unit
    assert again["core_hours"] == pytest.approx(24 * number)
