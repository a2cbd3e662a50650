"""The preprocessing of timm and transformers, against Pillow and against themselves."""
# SPDX-License-Identifier: Apache-2.0

import json
import math
import os

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

from tests.applications.peers_test import run_script
from tests.data import sets
from vit_scaling.applications.formats.preprocessing_configs import (
    mean_and_deviation,
    record_from_timm,
    record_from_transformers,
    timm_preprocessing,
    transformers_preprocessing,
    value_range,
)
from vit_scaling.image_preprocessing import preprocessing_from_record, scale_pixels
from vit_scaling.run_record import RunRecord

IMAGES = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea")]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
FILTERS = {"bilinear": 2, "bicubic": 3, "lanczos": 1}  # Pillow's numbers.


def timm(size, **config):
    return "timm", {"input_size": (3, size, size), **config}


def transformers(kind, size, **config):
    mean = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    return "transformers", {
        "image_processor_type": f"{kind}ImageProcessor",
        "size": size,
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        **mean,
        **config,
    }


CROP = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
CASES = {  # As the hub has them.
    "timm_augreg": timm(224, crop_pct=0.9, interpolation="bicubic", **HALF),
    "timm_deit3": timm(224, crop_pct=1.0, interpolation="bicubic", **IMAGENET),
    "timm_defaults": timm(224, crop_pct=None, interpolation="bilinear"),
    "timm_dinov2": timm(518, crop_pct=1.0, interpolation="bicubic", **IMAGENET),
    "timm_squash": timm(
        336, crop_pct=0.95, crop_mode="squash", interpolation="bicubic", **HALF
    ),
    "vit": transformers("ViT", {"height": 224, "width": 224}, resample=2),
    "vit_of_one_size": transformers("ViT", 224, image_mean=[0.5] * 3, resample=2),
    "dinov2": transformers("Bit", {"shortest_edge": 256}, **CROP),
    "clip": transformers("CLIP", {"shortest_edge": 224}, **CROP),
    "clip_of_one_size": transformers("CLIP", 224, **{**CROP, "crop_size": 224}),
    "deit": transformers("DeiT", {"height": 256, "width": 256}, **CROP),
    "siglip": transformers("Siglip", {"height": 256, "width": 256}),
    "not_normalized": transformers(
        "ViT", {"height": 224, "width": 224}, do_normalize=False
    ),
    "rescaled_by_half": transformers(
        "ViT",
        {"height": 224, "width": 224},
        rescale_factor=1 / 127.5,
        image_mean=[1.0] * 3,
        image_std=[1.0] * 3,
    ),
}


def record_of(project, config):
    """Return the record for the configuration's own image size."""
    if project == "timm":
        return record_from_timm({"pretrained_cfg": config}, config["input_size"][1:])
    size = config.get("crop_size") or config["size"]
    side = size if isinstance(size, int) else size["height"]
    return record_from_transformers(config, (side, side))


def prepare(record, photo):
    """Prepare a photograph as exports, predictions and evaluations do."""
    encoded = tf.constant(sets.encoded(photo, "PNG"))
    pixels = preprocessing_from_record(record)(encoded, record.image_size)
    return scale_pixels(pixels, *record.value_range).numpy()


def by_pillow(project, config, photo):
    """Prepare a photograph by Pillow and NumPy, from the projects' documentation."""
    image, middle = Image.fromarray(photo), int
    if project == "timm":
        size, middle = config["input_size"][1], round
        side = math.floor(size / (config["crop_pct"] or 0.875))
        squashes = config.get("crop_mode") == "squash"
        mean = config.get("mean", IMAGENET["mean"])
        deviation = config.get("std", IMAGENET["std"])
        resample = FILTERS[config["interpolation"]]
        factor = 1 / 255
    else:
        side, resample = config["size"], config["resample"]
        squashes = side == 224 and "ViT" in config["image_processor_type"]
        if isinstance(side, dict):
            squashes = "height" in side
            side = side.get("height") or side["shortest_edge"]
        size = 224 if "crop_size" in config else side
        factor = config.get("rescale_factor", 1 / 255)
        mean, deviation = config["image_mean"], config["image_std"]
        if not config["do_normalize"]:
            mean, deviation = 0, 1
    shape = (side, side)
    if not squashes:
        shape = [int(side * n / min(image.size)) for n in image.size]
    pixels = np.asarray(image.resize(shape, resample), np.float64)
    top, left = (middle((n - size) / 2) for n in pixels.shape[:2])
    pixels = pixels[top : top + size, left : left + size]
    return (pixels * factor - mean) / deviation, np.array(deviation) / factor


@pytest.mark.parametrize("case", CASES)
def test_preprocessing_is_the_projects_within_one_grey_level(case):
    record = record_of(*CASES[case])
    for photo in IMAGES:
        expected, levels = by_pillow(*CASES[case], photo)
        difference = np.abs(prepare(record, photo) - expected) * levels
        assert difference.max() < 1.01, difference.max()


@pytest.mark.slow
def test_preprocessing_is_that_of_the_projects_own_code(tmp_path):
    interpreter = os.environ.get("VIT_SCALING_TORCH_PYTHON")
    if not interpreter:
        pytest.skip("VIT_SCALING_TORCH_PYTHON names no interpreter that has timm")
    cases = [{"project": p, "config": config} for p, config in CASES.values()]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    np.savez(tmp_path / "images.npz", *IMAGES)
    files = [str(tmp_path / name) for name in ("cases.json", "images.npz", "out.npz")]
    run_script(interpreter, "preprocess.py", *files)
    with np.load(files[-1]) as outputs:
        for number, (name, case) in enumerate(CASES.items()):
            record = record_of(*case)
            low, high = map(np.float64, record.value_range)
            levels = 255 / (high - low)
            for place, photo in enumerate(IMAGES):
                got, wanted = prepare(record, photo), outputs[f"{number}/{place}"]
                difference = (np.abs(got - wanted) * levels).max()
                print(f"{name}, image {place}: {difference:.3f} grey levels")
                assert difference < 1.01


@pytest.mark.parametrize(
    "config",
    [
        {"crop_mode": "border", "interpolation": "bicubic", **HALF},
        {"interpolation": "nearest", **HALF},
    ],
)
def test_a_crop_of_timm_that_is_not_supported_leaves_the_pixel_values(config):
    record = record_from_timm(config, (224, 224))
    assert record.preprocess is None and record.value_range == (-1.0, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        {"do_resize": False},
        {"do_pad": True},
        {"resample": 0},
        {"size": {"longest_edge": 224}},
        {"size": None},
        {"size": {"shortest_edge": 224}},  # Without a crop: of any size.
    ],
)
def test_sizes_of_transformers_that_are_not_supported_leave_the_pixel_values(config):
    _, known = CASES["siglip"]
    record = record_from_transformers({**known, **config}, (256, 256))
    assert record.preprocess is None
    assert record.value_range == value_range(*IMAGENET.values())


def test_configurations_without_a_preprocessing_define_none():
    assert record_from_timm({"architecture": "vit_base_patch16_224"}, (4, 4)) is None
    assert record_from_transformers({}, (4, 4)) is None
    assert record_from_transformers({"size": 224}, (4, 4)) is None


def test_a_processors_sizes_are_scaled_to_the_models():
    _, config = CASES["dinov2"]
    assert record_from_transformers(config, (518, 518)).resize == 592  # 256 / 224.
    assert record_from_transformers(config, (224, 224)).resize == 256


def test_mean_and_deviation_are_recovered():
    range_ = value_range(*IMAGENET.values())
    np.testing.assert_allclose(mean_and_deviation(range_), [*IMAGENET.values()])
    np.testing.assert_allclose(mean_and_deviation((-1.0, 1.0)), np.full((2, 3), 0.5))


@pytest.mark.parametrize("resize", [224, 235, 248, 255, 256, 257])
@pytest.mark.parametrize("preprocess", ["central_crop", "squash_and_crop", "resize"])
def test_a_record_is_written_and_read_again(preprocess, resize):
    record = RunRecord(
        (),
        (224, 224),
        value_range=value_range(*IMAGENET.values()),
        preprocess=preprocess,
        resize=None if preprocess == "resize" else resize,
        interpolation="bicubic",
    )
    again = record_from_transformers(transformers_preprocessing(record), (224, 224))
    assert again.resize == record.resize or resize == 224
    photo = IMAGES[1]
    np.testing.assert_allclose(prepare(again, photo), prepare(record, photo), atol=1e-5)
    written = timm_preprocessing(record)
    again = record_from_timm({"pretrained_cfg": written}, (224, 224))
    assert again.resize == (224 if preprocess == "resize" else resize)
    assert again.interpolation == "bicubic"
    np.testing.assert_allclose(again.value_range, record.value_range, atol=1e-12)
