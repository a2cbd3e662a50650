"""TFDS' prepared files through our reader, held against TFDS' own."""
# SPDX-License-Identifier: Apache-2.0

import warnings

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.tfds import TFDS
from vit_scaling.image_preprocessing import Resize


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset of 30 and 10 tiles, prepared by TFDS itself; returns its directory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TFDS' own, at import.
        import tensorflow_datasets as tfds

    class Tiles(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path_factory.mktemp("package")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(24, 24, 3)),
                        "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._tiles(0, 30), "test": self._tiles(30, 40)}

        def _generate_examples(self):
            raise NotImplementedError

        def _tiles(self, first, end):
            for number in range(first, end):
                yield number, {"image": sets.tile(number), "label": number % 3}

    builder = Tiles(data_dir=tmp_path_factory.mktemp("tfds"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder.download_and_prepare()
    return str(builder.data_dir)


def pixels(source):
    data = EvalData(
        source,
        image_size=24,
        classes=3,
        preprocess=Resize(),
        value_range=(0.0, 255.0),
    )
    (batch,) = data.dataset(batch_size=data.num_examples)
    return batch["images"].numpy().astype(np.uint8), batch["labels"].numpy().argmax(1)


def test_a_prepared_directory_is_read_whole_with_its_names(prepared):
    source = TFDS(prepared, "test")
    assert source.class_names == ("a", "b", "c")
    images, labels = pixels(source)
    expected = {sets.tile(n).tobytes(): n % 3 for n in range(30, 40)}
    assert {i.tobytes(): k for i, k in zip(images, labels, strict=True)} == expected


def test_slices_of_a_split_are_disjoint_and_complete(prepared):
    parts = [pixels(TFDS(prepared, s))[0] for s in ("train[:60%]", "train[60%:]")]
    assert [len(part) for part in parts] == [18, 12]
    result = {image.tobytes() for part in parts for image in part}
    assert result == {sets.tile(n).tobytes() for n in range(30)}


def test_subsets_of_tfds_nest(prepared):
    def data(count):
        source = TFDS(prepared, "train")
        return TrainData(source, image_size=24, classes=3, num_images=count)

    small, large = (set(data(count).selected.record_numbers()) for count in (5, 20))
    assert len(small) == 5
    assert small < large


def test_missing_datasets_splits_and_labels_are_named(prepared):
    with pytest.raises(ValueError, match=r"`split` must be one of .*received 'dev'"):
        TFDS(prepared, "dev").index()
    with pytest.raises(FileNotFoundError, match="is not prepared in"):
        TFDS("fashion_mnist", "train", data_dir="/nowhere").index()
    with pytest.raises(ValueError, match="`label_key` must be given"):
        _ = _without_label(prepared).features


def _without_label(prepared):
    source = TFDS(prepared, "train")
    builder = source._builder
    only_image = {"image": builder.info.features["image"]}

    class Info:
        features = only_image

    class Builder:
        info = Info()

    source.__dict__["_builder"] = Builder()
    return source
