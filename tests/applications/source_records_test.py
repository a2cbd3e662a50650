"""The record that comes with weights: read from every source, and carried on."""
# SPDX-License-Identifier: Apache-2.0

import json
import shutil

import numpy as np
import pytest

from tests.applications.cases import NAMED
from tests.applications.published_folders import (
    MEAN,
    STD,
    VALUE_RANGE,
    write_transformers_folder,
)
from tests.export import runs
from vit_scaling.applications.source_records import own_record
from vit_scaling.applications.sources import find_source
from vit_scaling.applications.weights import (
    build_model,
    export_weights,
    load_for_serving,
    read_weights,
    save_weights,
)
from vit_scaling.run_record import load_run_record

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture
def folder(tmp_path):
    """A ViT as `save_pretrained` writes it, with its processor and class names."""
    return write_transformers_folder(tmp_path / "published")


def check(record):
    """Check a record against the published configuration."""
    assert record.class_names == ("ant", "bee", "cat")
    assert (record.preprocess, record.interpolation) == ("resize", "bicubic")
    np.testing.assert_allclose(record.value_range, VALUE_RANGE)
    assert record.image_size == (4, 4)


def test_a_published_folder_has_its_processor_and_names(folder):
    weights = read_weights(str(folder))
    check(weights.record)
    assert not weights.preprocessing_assumed and not weights.assumed
    assert (
        read_weights(str(folder), head="gap", ignore="classifier.*").record.class_names
        == ()
    )


def test_a_timm_folder_has_its_configuration(tmp_path):
    shutil.copy(NAMED["timm_token"].path, tmp_path)
    config = {
        "architecture": "vit_base_patch16_224",
        "model_args": {"num_heads": 2},
        "label_names": ["ant", "bee", "cat"],
        "pretrained_cfg": {
            "mean": MEAN,
            "std": STD,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    record = read_weights(str(tmp_path)).record
    assert record.class_names == ("ant", "bee", "cat") and record.crop_to_even
    assert (record.preprocess, record.resize) == ("central_crop", 4)
    np.testing.assert_allclose(record.value_range, VALUE_RANGE)


def test_the_record_is_carried_into_our_own_files(folder, tmp_path):
    weights = read_weights(str(folder))
    for name in ("m.npz", "m.keras"):
        save_weights(weights, str(tmp_path / name))
        check(read_weights(str(tmp_path / name)).record)
    _, record, _ = load_for_serving(str(tmp_path / "m.keras"))
    check(record)
    tanh = read_weights(str(folder), norm_epsilon=1e-6)
    export_weights(tanh, str(tmp_path / "m.safetensors"))
    check(read_weights(str(tmp_path / "m.safetensors")).record)


def test_a_keras_file_at_another_size_has_the_record_for_that_size(folder, tmp_path):
    path = str(tmp_path / "m.keras")
    save_weights(read_weights(str(folder)), path, image_size=6)
    assert own_record(find_source(path)).image_size == (6, 6)
    assert build_model(read_weights(path)).input_shape == (None, 6, 6, 3)


def test_a_runs_record_is_its_own(tmp_path):
    runs.write_run(tmp_path / "run", runs.small_model(), preprocess="resize")
    record = read_weights(str(tmp_path / "run")).record
    assert record == load_run_record(tmp_path / "run")
    assert record.class_names == runs.CLASS_NAMES


def test_only_others_files_without_a_configuration_have_assumed_pixels():
    assumed = {
        name: NAMED[name].read().preprocessing_assumed
        for name in ("hf_vit", "timm_token", "bv_map", "augreg")
    }
    assert assumed == {
        "hf_vit": True,
        "timm_token": True,
        "bv_map": False,
        "augreg": False,
    }
    _, record, facts = load_for_serving(NAMED["hf_vit"].path)
    assert record.value_range == (-1.0, 1.0) and record.class_names == ()
    assert any("pixels in [-1, 1]" in fact for fact in facts)
