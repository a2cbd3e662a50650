"""VTAB's tasks: small copies of the published files are read with their labels."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.writing import vtab_replicas
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing import vtab_tasks
from vit_scaling.data.writing.vtab_tasks import TASKS, TaskImages

IMAGES = {"train_images": 24, "val_images": 3}
QUICK = ("cifar100", "eurosat/rgb", "clevr")
DATASETS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted({task.dataset for task in TASKS.values()})
]
SPLITS = {  # Of the benchmark's code, with its 800 and 200 images.
    "caltech101": ("train[:800]", "train[81:281]", "test[0:]"),
    "cifar100": ("train[:800]", "train[36:236]", "test[0:]"),
    "dtd": ("train[:800]", "validation[0:200]", "test[0:]"),
    "eurosat": ("train[:800]", "train[36:236]", "train[48:]"),
    "clevr_count": ("train[:800]", "train[54:254]", "validation[0:]"),
    "dsprites_location": ("train[:800]", "train[80:280]", "train[90:]"),
    "smallnorb_azimuth": ("train[:800]", "test[0:200]", "test[30:]"),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dataset", DATASETS)
def test_images_of_published_files_have_the_benchmark_s_labels(
    dataset, data_dir, tmp_path
):
    vtab_replicas.prepare(dataset, tmp_path, data_dir)
    for name, task in TASKS.items():
        if task.dataset != dataset:
            continue
        assert vtab_tasks.is_prepared(name, str(data_dir))
        if name in SPLITS:
            splits = vtab_tasks.find_splits(name, str(data_dir))
            assert tuple(splits.values()) == SPLITS[name]
        parts = {}
        splits = vtab_tasks.find_splits(name, str(data_dir), **IMAGES)
        for part, split in splits.items():
            source = TaskImages(name, split, str(data_dir))
            assert len(source.class_names()) == task.classes
            entries = source.entries()
            parts[part] = entries
            for entry in entries[:12]:
                label = source.class_names().index(entry.labels[0])
                check_label(name, label, source.read(entry))
        assert len(parts["train"]) == 24 and len(parts["val"]) == 3
        assert len(parts["test"]) > 3
        assert len({entry.labels for entry in parts["train"]}) > 1


def check_label(task, label, encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image)
    if task.startswith("dsprites"):
        assert set(np.unique(pixels)) == {0, 255}
        axis = 0 if task == "dsprites_location" else 1
        size = (pixels.max(axis=1 - axis) > 0).sum() - 1
        bins = {"dsprites_location": 2, "dsprites_orientation": 2.5}[task]
        assert label == size // bins
    elif task == "diabetic_retinopathy":  # Its builder removes the brightness.
        assert pixels.ndim == 3
    else:
        shown = round((pixels.mean() - 20) / 2)
        if task == "clevr_distance":  # See the next test.
            return
        if task == "smallnorb_elevation":  # The brightness is the azimuth's.
            shown %= 9
        assert shown == (label % 100 if task == "sun397" else label)


@pytest.mark.filterwarnings("ignore")
def test_distances_are_the_benchmark_s_classes(data_dir, tmp_path):
    """The copies' nearest objects are at 7, 8.2, 8.7, 9.2, 9.7 and 11, in turn."""
    if not vtab_tasks.is_prepared("clevr_distance", str(data_dir)):
        vtab_replicas.prepare("clevr", tmp_path, data_dir)
    source = TaskImages("clevr_distance", "train", str(data_dir))
    count = TaskImages("clevr_count", "train", str(data_dir))
    found = {
        (int(one.labels[0]), int(other.labels[0]))
        for one, other in zip(source.entries(), count.entries(), strict=True)
    }
    assert found == {(n % 6, n % 8) for n in range(60)}


@pytest.mark.filterwarnings("ignore")
def test_a_task_is_written_once_with_all_classes(data_dir, tmp_path):
    if not vtab_tasks.is_prepared("eurosat", str(data_dir)):
        vtab_replicas.prepare("eurosat/rgb", tmp_path / "copy", data_dir)
    output = str(tmp_path / "sets")
    patterns = vtab_tasks.write_task("eurosat", output, str(data_dir), **IMAGES)
    assert [TFRecords(patterns[part]).index().num_records for part in patterns] == [
        24, 3, 12,
    ]  # fmt: skip
    assert len(TFRecords(patterns["val"]).class_names) == 10
    first = (tmp_path / "sets/train.manifest.json").stat().st_mtime_ns
    vtab_tasks.write_task("eurosat", output, str(data_dir), **IMAGES)
    assert (tmp_path / "sets/train.manifest.json").stat().st_mtime_ns == first


def test_there_are_19_tasks_of_three_groups():
    groups = [task.group for task in TASKS.values()]
    assert [groups.count(group) for group in vtab_tasks.GROUPS] == [7, 4, 8]
    assert not vtab_tasks.is_prepared("dmlab", "/nonexistent")
    with pytest.raises(ValueError, match="cifar100"):
        TaskImages("cifar", "train")
