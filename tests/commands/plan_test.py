"""`plan`: JSON keys, budgets, shapes, and errors with the nearest name."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands.plan import main


def planned(capsys, *flags):
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
    assert main(numbers) == 1
    assert "missing: --patch" in capsys.readouterr().err
    assert main([*numbers, "--shape=Ti/16"]) == 1


def test_a_budget_is_answered(capsys):
    found = planned(capsys, "--budget=1000")
    assert found.keys() >= {"shape", "images_seen", "data_images", "error"}
    assert found["error_interval"][0] < found["error"] < found["error_interval"][1]
    flops = planned(capsys, "--budget=1e21", "--budget_unit=flops")
    assert flops["compute_unit"] == "flops"


def test_shapes_are_found_and_drawn(capsys, tmp_path):
    found = planned(capsys, "--find_shapes", "--depths=24", f"--output_dir={tmp_path}")
    assert len(found["cells"]) == 299
    assert (tmp_path / "shapes_tpu_v3.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape=G/13x"], "positive integer"),
        (["--shape=Q/14"], "Did you mean"),
        (["--shape=B/16", "--device=tpu_v33"], "Did you mean 'tpu_v3'"),
        (["--shape=B/16", "--head=mapp"], "Did you mean 'map'"),
        (["--shape=B/16", "--optimizer=adam_ph"], "Did you mean 'adam"),
        (["--shape=B/16", "--batch=0"], "`batch` must be at least 1"),
        (["--budget=0"], "`budget` must be above 0"),
    ],
)
def test_bad_input_is_explained(capsys, flags, message):
    assert main(flags) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


def test_text_is_for_people(capsys):
    assert main(["--shape=B/16", "--images=1.2M", "--price_per_hour=2"]) == 0
    assert "memory_bytes: total" in capsys.readouterr().out
