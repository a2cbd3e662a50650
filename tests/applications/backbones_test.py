"""Keras' own applications serve as backbones, fed as each of them expects."""
# SPDX-License-Identifier: Apache-2.0

import importlib

import keras
import numpy as np
import pytest

from vit_scaling.applications import backbones
from vit_scaling.applications.backbones import ScaleImages, keras_backbone

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

MODULES = {  # Which module's `preprocess_input` a family is documented with.
    "ResNet50": "resnet", "VGG16": "vgg16", "VGG19": "vgg19",
    "DenseNet121": "densenet", "InceptionV3": "inception_v3",
    "InceptionResNetV2": "inception_resnet_v2", "Xception": "xception",
    "NASNetMobile": "nasnet", "ResNet101V2": "resnet_v2",
    "MobileNet": "mobilenet", "MobileNetV2": "mobilenet_v2",
    "EfficientNetB0": "efficientnet", "EfficientNetV2S": "efficientnet_v2",
    "ConvNeXtTiny": "convnext", "MobileNetV3Small": "mobilenet_v3",
}  # fmt: skip


def images(size=32):
    random = np.random.default_rng(0)
    return random.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize(("name", "module"), MODULES.items())
def test_images_are_scaled_as_the_backbones_own_preprocessing_does(name, module):
    preprocess = importlib.import_module(f"keras.applications.{module}")
    wanted = preprocess.preprocess_input((images() + 1) * 127.5)
    scaled = ScaleImages(backbones.find_scaling(name))(images())
    np.testing.assert_allclose(scaled, wanted, atol=1e-4)  # Of values up to 255.


def test_every_application_of_keras_has_a_known_scaling():
    names = [
        name
        for name in dir(keras.applications)
        if name[0].isupper() and callable(getattr(keras.applications, name))
    ]
    assert len(names) > 30
    for name in names:
        assert backbones.find_scaling(name)


@pytest.fixture(scope="module")
def mobile():
    return keras_backbone(
        "MobileNet", "map", image_size=(32, 64), classes=3, head_bias=-10.0
    )


def test_head_reads_the_places_of_the_last_feature_map(mobile):
    assert mobile.get_layer("tokens").output.shape == (None, 1 * 2, 1024)
    head = mobile.get_layer("map_head")
    assert (head.heads, head.mlp_width) == (16, 4096)
    answer = mobile(np.zeros((2, 32, 64, 3), "f"))
    np.testing.assert_array_equal(answer, np.full((2, 3), -10.0))  # Kernel 0.
    assert mobile.get_layer("pre_logits").output.shape == (None, 1024)


def test_variables_have_paths_of_their_own(mobile):
    paths = [v.path for v in mobile.variables]
    assert len(set(paths)) == len(paths)
    assert {"head/kernel", "head/bias", "map_head/probe"} <= set(paths)


def test_backbone_equals_keras_own_on_images_of_its_own_scale():
    ours = keras_backbone("MobileNetV3Small", image_size=32, classes=None)
    theirs = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    theirs.set_weights(ours.get_weights())
    levels = (images() + 1) * 127.5
    np.testing.assert_allclose(ours(images()), theirs(levels), atol=1e-4)


def test_backbone_goes_through_a_file_and_keeps_the_global_policy(tmp_path):
    before = keras.config.dtype_policy().name
    model = keras_backbone(
        "MobileNet", image_size=32, classes=2, dtype="mixed_bfloat16"
    )
    assert keras.config.dtype_policy().name == before
    assert model.output.dtype == "float32"
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    path = str(tmp_path / "m.keras")
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded(images()), model(images()))


def test_bad_names_and_heads_are_rejected():
    with pytest.raises(
        ValueError, match=r"called 'Resnet50'\. Did you mean 'ResNet50'"
    ):
        keras_backbone("Resnet50")
    with pytest.raises(ValueError, match="no class token"):
        keras_backbone("ResNet50", "token")
    with pytest.raises(ValueError, match="Give `scaling`"):
        backbones.find_scaling("SomethingNew")
    with pytest.raises(ValueError, match="`scaling` must be"):
        ScaleImages("imagenet")


def test_heads_are_about_64_wide_and_divide_the_width():
    assert backbones._count_heads(2048) == 32
    assert backbones._count_heads(1056) == 16  # NASNetMobile: 66 wide.
    assert 7 % backbones._count_heads(7) == 0
