"""Settings for a set of images: the documented rules."""
# SPDX-License-Identifier: Apache-2.0

import math

import pytest

from vit_scaling import configurables, recipes
from vit_scaling.modeling import shapes
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.training.losses import softmax_cross_entropy


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


SHAPES = [shapes.SHAPES["Ti/16"], ViTShape(14, 48, 2, 96, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=["named", "other"])
def test_fine_tuning_takes_the_model_of_the_weights(shape):
    choices = recipes.choose_finetuning(
        "WEIGHTS",
        {
            "shape": shape,
            "head": "token",
            "image_size": (4 * shape.patch,) * 2,
            "layer_scale": 1e-5,
            "register_tokens": 4,
        },
        value_range=((-2.1, -2.0, -1.8), (2.2, 2.4, 2.6)),
        classes=5,
        train_images=1000,
        median_side=300,
    )
    bindings = [choice.binding for choice in choices]
    bindings += ["TRAIN_PATTERN = 'a'", "EVAL_PATTERN = 'b'"]
    configurables.parse(recipes.gin_files(choices), bindings)
    experiment = configurables.Experiment()
    assert experiment.schedule.total_steps == 200  # 8 passes would be 125.
    assert experiment.loss.__name__ == softmax_cross_entropy.__name__
    model = experiment.build_model()
    layer = model.get_layer("register_tokens")
    assert layer.weights[0].shape[-2:] == (4, shape.width)
    assert model.input_shape[1:3] == (4 * shape.patch,) * 2
    assert experiment.train_data.value_range[1] == (2.2, 2.4, 2.6)
    assert any("'Ti/16'" in binding for binding in bindings) == (shape is SHAPES[0])
