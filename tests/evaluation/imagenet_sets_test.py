"""The gin file of ImageNet's other test sets gives each its own label map."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from tests.evaluation import records
from vit_scaling import configurables
from vit_scaling.class_names import imagenet_wordnet_numbers
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.evaluation import label_maps

WORDNET = imagenet_wordnet_numbers()


@pytest.fixture
def folders(tmp_path):
    """A, R and ObjectNet on disk: one image each, with the classes' full lists."""
    names = {
        "a": WORDNET[5:205],
        "r": tuple(reversed(WORDNET[-200:])),
        "objectnet": tuple(f"folder_{number}" for number in range(313)),
    }
    for name, classes in names.items():
        (tmp_path / name).mkdir()
        records.write(tmp_path / name / "test", records.images([0]), [0])
        (tmp_path / name / "classes.txt").write_text("\n".join(classes) + "\n")
    mappings = tmp_path / "mappings"
    mappings.mkdir()
    objects = {folder: folder.upper() for folder in names["objectnet"]}
    # As in the real files, 113 of the 313 have a counterpart.
    imagenet = {f"FOLDER_{n}": f"name {n}" for n in range(113)}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(objects))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(imagenet))
    lines = "".join(f"name {n}\n" for n in range(1000))
    (mappings / "imagenet_to_label_2012_v2").write_text(lines)
    numbers = {str(n): n for n in range(1000)}
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(numbers))
    return tmp_path


@pytest.fixture
def evaluators(folders):
    bindings = ["TRAIN_PATTERN = 'a'", "EVAL_PATTERN = 'b'", "CLASSES = 1000"]
    bindings += [f"{n.upper()}_PATTERN = '{folders}/{n}/test'"
                 for n in ("a", "r", "objectnet")]  # fmt: skip
    bindings += [f"OBJECTNET_MAPPINGS = '{folders}/mappings'", "SETS_DATA_DIR = '/d'"]
    files = ["experiments/vit_s16.gin", "evaluation/imagenet_sets.gin"]
    configurables.parse(files, bindings)
    return {one.name: one for one in configurables.Experiment().evaluators}


def test_tfds_sets_are_those_of_the_papers_with_the_models_classes(evaluators):
    sources = {
        name: (one._images.source.name, one._images.source.split)
        for name, one in evaluators.items()
        if name in ("real", "v2", "sketch")
    }
    assert sources == {
        "real": ("imagenet2012_real", "validation"),
        "v2": ("imagenet_v2/matched-frequency", "test"),
        "sketch": ("imagenet_sketch", "test"),
    }
    for name in sources:
        one = evaluators[name]
        assert one._map == label_maps.same_classes(1000)
        assert one._images.source.data_dir == "/d"
    assert evaluators["real"]._images.source.label_key == "real_label"


def test_folders_named_by_wordnet_find_their_classes(evaluators):
    assert evaluators["a"]._map.groups == tuple((n,) for n in range(5, 205))
    assert evaluators["r"]._map.groups == tuple((n,) for n in range(999, 799, -1))
    for name in ("a", "r"):
        assert evaluators[name]._map.restricted
        assert evaluators[name]._images.classes == 200


def test_objectnet_counts_113_of_its_classes(evaluators):
    groups = evaluators["objectnet"]._map.groups
    assert len(groups) == 313
    assert sum(bool(group) for group in groups) == 113


def test_set_without_names_is_refused(folders):
    (folders / "a" / "classes.txt").unlink()
    with pytest.raises(ValueError, match=r"must have class names"):
        label_maps.class_names_of(TFRecords(str(folders / "a" / "test")))


def test_images_of_a_set_are_read_with_its_own_labels(evaluators):
    images = evaluators["r"]._images
    batch = next(iter(images.dataset(batch_size=1)))
    assert np.argmax(batch["labels"]) == 0 and batch["images"].shape[1] == 224
