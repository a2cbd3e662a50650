"""ImageNet's test sets: small copies of the published layouts, made here, are read."""
# SPDX-License-Identifier: Apache-2.0

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from vit_scaling.class_names import imagenet_wordnet_numbers
from vit_scaling.data.writing import image_sources, published_sets, source_names
from vit_scaling.data.writing.published_sets import LAYOUTS, PublishedSet

WORDNET = imagenet_wordnet_numbers()
# First and last ids of the published lists: of A, of R, and of all 1,000.
FOLDERS = {
    "imagenet-v2": (
        "imagenetv2-matched-frequency-format-val", [str(n) for n in range(1000)]
    ),
    "imagenet-a": ("imagenet-a", WORDNET[6:206]),
    "imagenet-r": ("imagenet-r", WORDNET[1:401:2]),
    "imagenet-sketch": ("sketch", WORDNET),
    "objectnet": ("objectnet-1.0/images", [f"object_{n}" for n in range(313)]),
}  # fmt: skip


def encoded(value, side=8, form="JPEG"):
    return sets.encoded(np.full((side, side, 3), value, np.uint8), form)


def write_folders(root, name):
    """Write one image in each folder of a set, and the files that come with it."""
    inside, folders = FOLDERS[name]
    for folder in folders:
        path = root / inside / folder / f"{folder}_0.jpeg"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    (root / inside / "README.txt").write_text("A text, as in the download.")
    return root / inside


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.filterwarnings("ignore")
def test_class_folders_are_read_with_the_published_classes(tmp_path, name, caplog):
    inside = write_folders(tmp_path, name)
    for path in (tmp_path, inside):  # The download, or the folder with the images.
        source = image_sources.parse_source(f"{name}:{path}", split="test")
        labels = {entry.key.split("/")[0]: entry.labels for entry in source.entries()}
        assert list(source.listing.skipped) == ["not an image"]
        if name == "imagenet-v2":
            assert labels["0"] == ("n01440764",) and labels["999"] == ("n15075141",)
        else:
            assert labels == {folder: (folder,) for folder in FOLDERS[name][1]}
        full = name in ("imagenet-v2", "imagenet-sketch")
        assert source.class_names() == (
            WORDNET if full else tuple(sorted(FOLDERS[name][1], key=_folder_order))
        )
    assert "the published set has" in caplog.text  # One image per class is too few.


def _folder_order(name):
    return name


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_folder_is_an_error_that_says_what_was_expected(tmp_path, name):
    inside = write_folders(tmp_path, name)
    folder = min(inside.glob("*/"))
    folder.rename(tmp_path / "moved")
    count = LAYOUTS[name].class_folders
    with pytest.raises(ValueError, match=rf"{count - 1} folders") as failure:
        PublishedSet(name, str(inside)).entries()
    assert LAYOUTS[name].expected in str(failure.value)


def test_a_folder_of_another_set_is_named(tmp_path):
    inside = write_folders(tmp_path, "imagenet-v2")
    with pytest.raises(ValueError, match="1000 folders, among them '0', '1'"):
        PublishedSet("imagenet-sketch", str(inside)).entries()
    with pytest.raises(FileNotFoundError, match="imagenet-a expects imagenet-a/"):
        PublishedSet("imagenet-a", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"no subfolder.* Expected in .*313 folders"):
        (tmp_path / "empty").mkdir()
        PublishedSet("objectnet", str(tmp_path / "empty")).entries()


def test_objectnet_loses_its_frame_of_two_pixels(tmp_path):
    inside = write_folders(tmp_path, "objectnet")
    framed = np.full((12, 14, 3), (255, 0, 0), np.uint8)
    framed[2:-2, 2:-2] = 70
    path = inside / "object_0" / "object_0_0.jpeg"
    path.write_bytes(sets.encoded(framed, "PNG"))
    source = PublishedSet("objectnet", str(tmp_path))
    entry = next(e for e in source.entries() if e.labels == ("object_0",))
    with Image.open(io.BytesIO(source.read(entry))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (8, 10, 3) and (pixels == 70).all()


@pytest.fixture
def validation(tmp_path):
    """The first, third and last validation image, and ReaL's file of labels."""
    (tmp_path / "val").mkdir()
    for number in (1, 3, 50_000):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (tmp_path / "val" / name).write_bytes(encoded(number % 256))
    (tmp_path / "val" / "ILSVRC2012_val_x.JPEG").write_bytes(b"")
    real = [[65], [], [2, 7]] + [[999]] * 49_997
    (tmp_path / "real.json").write_text(json.dumps(real))
    return tmp_path


def test_validation_images_get_the_labels_of_their_numbers(validation):
    entries = PublishedSet("imagenet-val", str(validation)).entries()
    # The first lines of the challenge's list: sea snake, … , Shetland sheepdog.
    assert [entry.labels for entry in entries[:2]] == [("n01751748",), ("n02105855",)]
    assert [entry.key[-13:] for entry in entries] == [
        "00000001.JPEG", "00000003.JPEG", "00050000.JPEG",
    ]  # fmt: skip


def test_real_has_several_labels_or_none(validation):
    source = PublishedSet("imagenet-real", str(validation))
    assert [entry.labels for entry in source.entries()] == [
        (WORDNET[65],), (WORDNET[2], WORDNET[7]), (WORDNET[999],),
    ]  # fmt: skip
    assert source.listing.skipped["not an image"].first == ["ILSVRC2012_val_x.JPEG"]
    (validation / "val" / "ILSVRC2012_val_00000002.JPEG").write_bytes(encoded(2))
    again = PublishedSet("imagenet-real", str(validation))
    assert again.entries()[1].labels == ()


def test_wrong_files_of_labels_or_images_are_errors(validation):
    (validation / "real.json").write_text("[[1], [2]]")
    with pytest.raises(ValueError, match=r"50,000 validation images; received 2\."):
        PublishedSet("imagenet-real", str(validation)).entries()
    (validation / "real.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"real\.json"):
        PublishedSet("imagenet-real", str(validation)).entries()
    for path in (validation / "val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no such file.*ILSVRC2012_img_val\.tar"):
        PublishedSet("imagenet-val", str(validation)).entries()


def test_every_set_can_be_named_on_the_command_line():
    assert set(source_names.PUBLISHED) == set(published_sets.LAYOUTS)
    with pytest.raises(ValueError, match="imagenet-v2:FOLDER"):
        source_names.check_source("imagenet-v2")
