"""A study's grid: its jobs, what they cost, and what they are called with."""
# SPDX-License-Identifier: Apache-2.0

import shlex

import pytest

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.planning.flops import flops
from vit_scaling.scaling.studies.sweep import (
    command,
    command_text,
    shape_of,
    sweep,
    together,
)

GRID = {
    "name": "try",
    "gin_files": ("experiments/quickstart.gin",),
    "models": {"big": (4, 32, 2, 64, 2), "small": (4, 16, 2, 32, 2)},
    "durations": (400, 100, 200),
    "data_sizes": ("1K", None),
    "batch_size": 64,
    "classes": 10,
    "image_size": 16,
}


def test_every_model_data_size_and_duration_is_one_job():
    study = sweep(**GRID)
    assert len(study.jobs) == 2 * 2 * 3
    assert len({job.folder for job in study.jobs}) == 12
    assert [job.model for job in study.jobs[:6]] == ["small"] * 6  # Cheapest first.


def test_short_durations_are_branches_of_the_longest_run():
    trunk, *branches = sweep(**GRID).jobs[:3]
    assert trunk.steps == trunk.own_steps == 400
    assert "--branch_at=80,160" in trunk.arguments
    assert [(b.steps, b.own_steps) for b in branches] == [(100, 20), (200, 40)]
    assert branches[0].folder == f"{trunk.folder}/branch_000000100_from_000000080"
    # All are launched on the trunk's folder, the branches by one process.
    assert together([trunk, *branches]) == [[trunk], branches]
    assert command([trunk], "w")[-1] == f"--model_dir=w/{trunk.folder}"
    assert command(branches, "w")[-4:] == [
        "--mode=branch_cooldown",
        "--branch_at=80,160",
        "--branch_cooldown_steps=20,40",
        f"--model_dir=w/{trunk.folder}",
    ]


def test_runs_without_branches_have_a_process_each():
    study = sweep(**{**GRID, "cooldown_share": None, "data_sizes": (None,)})
    assert together(study.jobs) == [[job] for job in study.jobs]


def test_models_may_take_images_of_different_sizes():
    sides = {"big": 32, "small": 16}
    jobs = sweep(**{**GRID, "image_size": sides}).jobs
    assert "--gin_param=IMAGE_SIZE = 16" in jobs[0].arguments
    assert "--gin_param=IMAGE_SIZE = 32" in jobs[-1].arguments
    shape = ViTShape(4, 32, 2, 64, 2)
    each = flops(shape, image_size=32, classes=10).training
    assert jobs[-1].flops == pytest.approx(jobs[-1].own_steps * 64 * each)
    with pytest.raises(ValueError, match="or name each of the models"):
        sweep(**{**GRID, "image_size": {"big": 32}})


def test_data_sizes_are_nested_subsets_of_one_set():
    jobs = sweep(**GRID).jobs
    bindings = {job.data_size: " ".join(job.arguments) for job in jobs}
    assert "TrainData.num_images = 1000" in bindings[1000.0]
    assert "num_images" not in bindings[None]


def test_cost_is_steps_times_batch_times_training_flops():
    study = sweep(**GRID, flops_per_second=1e9)
    each = flops(ViTShape(4, 16, 2, 32, 2), image_size=16, classes=10).training
    assert study.jobs[0].flops == pytest.approx(400 * 64 * each)
    cost = study.cost()
    assert cost["runs"] == 12
    assert cost["estimated_hours"] == pytest.approx(cost["training_flops"] / 3.6e12)


def test_the_text_is_the_command_as_a_shell_reads_it():
    job = sweep(**GRID).jobs[0]
    words = shlex.split(command_text([job], "my work"))
    assert words[:3] == ["python", "-m", "vit_scaling.train"]
    assert words[3:] == command([job], "my work")[3:]
    assert "--gin_param=SHAPE = @study/ViTShape()" in words
    own = sweep(**GRID, shape_scope="mine").jobs[0].arguments
    assert "--gin_param=mine/ViTShape.width = 16" in own


def test_shapes_have_names_or_five_numbers():
    assert shape_of("Ti/16").width == 192
    assert shape_of((4, 16, 2, 32, 2)) == ViTShape(4, 16, 2, 32, 2)
    with pytest.raises(ValueError, match="A model must be a name"):
        shape_of((4, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "`models` must name at least one"),
        ({"durations": (100, 100)}, "`durations` must name at least one, and none"),
        ({"cooldown_share": 1.5}, "`cooldown_share` must be between"),
        ({"durations": (1,)}, "at least 2 steps"),
        ({"models": {"a": "Q/16"}}, "No shape is called"),
        ({"data_sizes": ("many",)}, "A number was expected"),
    ],
)
def test_bad_grids_are_explained(change, message):
    with pytest.raises(ValueError, match=message):
        sweep(**{**GRID, **change})


def test_variants_are_runs_of_their_own_with_their_bindings_and_flags():
    variants = {
        "adam": ("--gin_file=optimizers/adam.gin",),
        "decayed": ("HEAD_WEIGHT_DECAY = 30.0",),
    }
    study = sweep(**GRID, variants=variants)
    assert len(study.jobs) == 2 * 2 * 2 * 3
    assert len({job.folder for job in study.jobs}) == len(study.jobs)
    jobs = {job.model: job for job in study.jobs}
    assert set(jobs) == {"small adam", "small decayed", "big adam", "big decayed"}
    assert "small/adam/" in jobs["small adam"].folder
    # The experiment's file comes first: a later one wins.
    assert jobs["small adam"].arguments[:2] == (
        "--gin_file=experiments/quickstart.gin",
        "--gin_file=optimizers/adam.gin",
    )
    decayed = jobs["small decayed"].arguments
    assert "--gin_param=HEAD_WEIGHT_DECAY = 30.0" in decayed
    assert "--gin_file=optimizers/adam.gin" not in decayed


def test_without_cooldowns_every_duration_is_trained_in_full():
    study = sweep(**{**GRID, "data_sizes": (None,)}, cooldown_share=None)
    assert [job.steps for job in study.jobs] == [100, 200, 400] * 2
    assert all(job.own_steps == job.steps for job in study.jobs)
    assert len({job.folder for job in study.jobs}) == 6
    text = " ".join(study.jobs[0].arguments)
    assert "TOTAL_STEPS = 100" in text and "EVAL_EVERY = 100" in text
    assert "COOLDOWN" not in text and "branch" not in text
