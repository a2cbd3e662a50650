"""Settings for a set of images: the documented rules."""
# SPDX-License-Identifier: Apache-2.0

import math

import pytest

from vit_scaling import configurables, recipes


def values(**options):
    defaults = {"classes": 10, "train_images": 5000, "median_side": 32}
    choices = recipes.choose_settings(**{**defaults, **options})
    return {choice.name: choice.value for choice in choices}


@pytest.mark.parametrize(
    ("images", "batch"), [(20, 8), (64, 8), (300, 32), (1000, 64), (5000, 128)]
)
def test_a_batch_is_a_power_of_two_with_eight_in_the_set(images, batch):
    assert values(train_images=images)["BATCH_SIZE"] == str(batch)


def test_lengths_are_parts_of_the_run():
    chosen = values()
    assert chosen["TOTAL_STEPS"] == "1562"  # 40 passes over 5,000 images by 128.
    assert chosen["WARMUP_STEPS"] == "156" and chosen["COOLDOWN_STEPS"] == "781"
    assert values(train_images=270)["TOTAL_STEPS"] == str(round(40 * 270 / 32))
    assert values(train_images=10)["TOTAL_STEPS"] == "300"
    assert values(train_images=10**7)["TOTAL_STEPS"] == "20000"
    assert values(total_steps=50)["TOTAL_STEPS"] == "50"


def test_the_first_loss_is_that_of_guessing():
    bias = float(values(classes=10)["HEAD_BIAS"])
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(0.1, abs=0.001)
    assert float(values(classes=1)["HEAD_BIAS"]) == 0


@pytest.mark.parametrize(
    ("side", "shape", "size"),
    [
        (32, None, 32),
        (8, None, 16),
        (64, None, 64),
        (100, None, 96),
        (500, None, 128),
        (32, "Ti/16", 128),
        (500, "Ti/16", 224),
        (500, "G/14", 224),
        (150, "B/32", 256),
    ],
)
def test_images_are_whole_patches_near_their_size(side, shape, size):
    chosen = values(median_side=side, shape=shape)
    assert chosen["IMAGE_SIZE"] == str(size)


@pytest.mark.parametrize("side", [32, 300])
@pytest.mark.parametrize("shape", [None, "Ti/16"])
def test_gin_accepts_all_choices(side, shape):
    choices = recipes.choose_settings(
        classes=3, train_images=300, median_side=side, shape=shape
    )
    configurables.parse(
        recipes.gin_files(choices),
        [
            "TRAIN_PATTERN = 'train-*'",
            "EVAL_PATTERN = 'val-*'",
            *(choice.binding for choice in choices),
        ],
    )
    experiment = configurables.Experiment()
    assert experiment.schedule.total_steps == round(40 * 300 / 32)
    assert experiment.build_model().output_shape == (None, 3)
