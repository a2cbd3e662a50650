"""A sweep's jobs, their cost and their arguments."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.planning.flops import flops
from vit_scaling.scaling.studies.sweep import Sweep, parse_shape

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
    sweep = Sweep(**GRID)
    assert len(sweep.jobs) == 2 * 2 * 3
    assert len({job.folder for job in sweep.jobs}) == 12
    assert [job.model for job in sweep.jobs[:6]] == ["small"] * 6  # Cheapest first.


def test_models_may_take_images_of_different_sizes():
    sides = {"big": 32, "small": 16}
    jobs = Sweep(**{**GRID, "image_size": sides}).jobs
    assert "--gin_param=IMAGE_SIZE = 16" in jobs[0].arguments
    assert "--gin_param=IMAGE_SIZE = 32" in jobs[-1].arguments
    shape = ViTShape(4, 32, 2, 64, 2)
    each = flops(shape, image_size=32, classes=10).training
    assert jobs[-1].flops == pytest.approx(jobs[-1].trained_steps * 64 * each)
    with pytest.raises(ValueError, match="or name each of the models"):
        Sweep(**{**GRID, "image_size": {"big": 32}})


def test_data_sizes_are_nested_subsets_of_one_set():
    jobs = Sweep(**GRID).jobs
    bindings = {job.data_size: " ".join(job.arguments) for job in jobs}
    assert "TrainData.num_images = 1000" in bindings[1000.0]
    assert "num_images" not in bindings[None]


def test_cost_is_steps_times_batch_times_training_flops():
    sweep = Sweep(**GRID, flops_per_second=1e9)
    each = flops(ViTShape(4, 16, 2, 32, 2), image_size=16, classes=10).training
    assert sweep.jobs[0].flops == pytest.approx(400 * 64 * each)
    cost = sweep.compute_cost(sweep.jobs)
    assert cost["runs"] == 12
    assert cost["estimated_hours"] == pytest.approx(
        cost["training_flops"] / 3.6e12 + 8 * 45 / 3600  # Branches share a process.
    )
    assert cost["processes"] == 8


def test_shapes_have_names_or_five_numbers():
    assert parse_shape("Ti/16").width == 192
    assert parse_shape((4, 16, 2, 32, 2)) == ViTShape(4, 16, 2, 32, 2)
    with pytest.raises(ValueError, match="A model must be a name"):
        parse_shape((4, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "`models` must name at least one"),
        ({"durations": (100, 100)}, "`durations` must name at least one, and none"),
        ({"cooldown_share": 1.5}, "`cooldown_share` must be a number above 0"),
        ({"durations": (1,)}, "`durations` must be .* at least 2"),
        ({"models": {"a": "Q/16"}}, "No shape is called"),
        ({"data_sizes": ("many",)}, "A number was expected"),
    ],
)
def test_bad_grids_are_explained(change, message):
    with pytest.raises(ValueError, match=message):
        Sweep(**{**GRID, **change})


def test_variants_are_separate_runs_with_their_bindings_and_flags():
    variants = {
        "adam": ("--gin_file=optimizers/adam.gin",),
        "decayed": ("HEAD_WEIGHT_DECAY = 30.0",),
    }
    sweep = Sweep(**GRID, variants=variants)
    assert len(sweep.jobs) == 2 * 2 * 2 * 3
    assert len({job.folder for job in sweep.jobs}) == len(sweep.jobs)
    jobs = {job.model: job for job in sweep.jobs}
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
    sweep = Sweep(**{**GRID, "data_sizes": (None,)}, cooldown_share=None)
    assert [job.steps for job in sweep.jobs] == [100, 200, 400] * 2
    assert all(job.trained_steps == job.steps for job in sweep.jobs)
    assert len({job.folder for job in sweep.jobs}) == 6
    text = " ".join(sweep.jobs[0].arguments)
    assert "TOTAL_STEPS = 100" in text and "EVAL_EVERY = 100" in text
    assert "COOLDOWN" not in text and "branch" not in text


def test_shape_scope_is_the_experiments():
    arguments = Sweep(**GRID, shape_scope="mine").jobs[0].arguments
    assert "--gin_param=mine/ViTShape.width = 16" in arguments
