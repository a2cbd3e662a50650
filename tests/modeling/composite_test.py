"""Freezing of layers, and of parts of layers, survives every way of copying a model."""
# SPDX-License-Identifier: Apache-2.0

import keras
import pytest

from vit_scaling.modeling.attention import Attention
from vit_scaling.modeling.blocks import BlockOptions, EncoderBlock
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
SHAPE = ViTShape(patch=16, width=16, depth=2, mlp_width=32, heads=2)


def save_and_load(model, folder):
    path = str(folder / "model.keras")
    model.save(path)
    return keras.saving.load_model(path)


COPIES = {
    "clone_model": lambda model, folder: keras.models.clone_model(model),
    "from_config": lambda model, folder: model.from_config(model.get_config()),
    "save": save_and_load,
}
FREEZES = {
    "all but the classifier": ["patch_embedding", "block_00", "block_01", "map_head"],
    "parts": ["block_00/attention", "block_01/mlp/dense_0", "map_head/attention/query"],
    "norms": ["block_00/mlp_norm", "block_01/attention/key_norm", "encoder_norm"],
    "nothing": [],
}


def part(model, path):
    name, *parts = path.split("/")
    found = model.get_layer(name)
    for name in parts:
        found = getattr(found, name)
    return found


def trained(model):
    return {variable.path for variable in model.trainable_variables}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("freeze", FREEZES)
def test_a_copy_trains_the_variables_that_its_model_trains(copy, freeze, tmp_path):
    model = vit(SHAPE, image_size=32, classes=3, qk_norm=True)
    everything = trained(model)
    for path in FREEZES[freeze]:
        part(model, path).trainable = False
    expected = trained(model)
    assert (expected < everything) == bool(FREEZES[freeze])
    copied = COPIES[copy](model, tmp_path)
    assert trained(copied) == expected
    assert trained(COPIES[copy](copied, tmp_path)) == expected
    copied.trainable = False  # Keras on TensorFlow ignores True where it is True.
    copied.trainable = True
    assert trained(copied) == everything


def test_a_frozen_layer_that_is_not_built_yet_keeps_its_frozen_parts():
    block = EncoderBlock(2, 32, BlockOptions(), frozen=["mlp"])
    again = EncoderBlock.from_config(block.get_config())
    again.build((None, 4, 16))
    assert not again.mlp.trainable and again.attention.trainable


def test_config_names_frozen_parts_only_if_there_are_some():
    attention = Attention(2)
    attention.build((None, 4, 16))
    assert "frozen" not in attention.get_config()
    attention.out.trainable = False
    assert attention.get_config()["frozen"] == ["out"]
    attention.out.trainable = True
    assert "frozen" not in attention.get_config()
