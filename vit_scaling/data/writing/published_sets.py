"""ImageNet's test sets, read in the layout in which their authors publish them."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import io
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from vit_scaling import io_files
from vit_scaling.class_names import (
    imagenet_validation_labels,
    imagenet_wordnet_numbers,
)
from vit_scaling.data.writing import file_rules
from vit_scaling.data.writing.image_entries import (
    Entry,
    EntryTable,
    ListedSource,
    Listing,
)
from vit_scaling.data.writing.image_files import Folder, scan_folder
from vit_scaling.naming import check_known, list_some

_logger = logging.getLogger(__name__)
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
VALIDATION_IMAGES = 50_000
REAL_LABELS = "real.json"
Labels = Sequence[tuple[str, ...]]  # Of each validation image, in the files' order.


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a set's images are, and how their classes are named.

    Attributes:
        expected: The layout in words, for messages.
        folders: Subfolders of the download that may hold the images; "" is itself.
        images: Number of images of the published set.
        class_folders: Number of folders; 0: all images are in one folder.
        class_of: From a folder's name to its class name; None: it has no class.
        class_names: All class names in index order; None: the sorted folders.
        labels: From the download's folder to the labels of the files in one folder.
        border: Pixels cut off at each side.
    """

    expected: str
    folders: tuple[str, ...]
    images: int
    class_folders: int = 0
    class_of: Callable[[str], str | None] = lambda folder: folder
    class_names: Callable[[], tuple[str, ...]] | None = None
    labels: Callable[[epath.Path], Labels] | None = None
    border: int = 0


def _known_wordnet_number(folder: str) -> str | None:
    return folder if folder in imagenet_wordnet_numbers() else None


def _class_of_number(folder: str) -> str | None:
    numbers = imagenet_wordnet_numbers()
    is_number = folder.isdecimal() and str(int(folder)) == folder
    return numbers[int(folder)] if is_number and int(folder) < len(numbers) else None


def _validation_labels(folder: epath.Path) -> Labels:
    del folder
    return [(name,) for name in imagenet_validation_labels()]


def _real_labels(folder: epath.Path) -> Labels:
    path = folder / REAL_LABELS
    content = io_files.read_json(path)
    if not isinstance(content, list) or len(content) != VALIDATION_IMAGES:
        size = len(content) if isinstance(content, list) else type(content).__name__
        raise ValueError(
            f"{path} must be a list with the classes of each of ImageNet's "
            f"{VALIDATION_IMAGES:,} validation images; received {size}. Take it from "
            "github.com/google-research/reassessed-imagenet."
        )
    names = imagenet_wordnet_numbers()
    return [tuple(names[number] for number in numbers) for numbers in content]


_VALIDATION_FOLDERS = ("val", "ILSVRC2012_img_val", "")
LAYOUTS: dict[str, Layout] = {
    "imagenet-val": Layout(
        "the unpacked ILSVRC2012_img_val.tar: ILSVRC2012_val_00000001.JPEG …",
        _VALIDATION_FOLDERS,
        VALIDATION_IMAGES,
        class_names=imagenet_wordnet_numbers,
        labels=_validation_labels,
    ),
    "imagenet-real": Layout(
        "real.json and, in val/, the unpacked ILSVRC2012_img_val.tar: "
        "ILSVRC2012_val_00000001.JPEG …",
        _VALIDATION_FOLDERS,
        VALIDATION_IMAGES,
        class_names=imagenet_wordnet_numbers,
        labels=_real_labels,
    ),
    "imagenet-v2": Layout(
        "1,000 folders named by class numbers, 0 to 999 (imagenetv2-matched-frequency)",
        (
            "imagenetv2-matched-frequency-format-val",
            "imagenetv2-threshold0.7-format-val",
            "imagenetv2-top-images-format-val",
            "",
        ),
        10_000,
        class_folders=1000,
        class_of=_class_of_number,
        class_names=imagenet_wordnet_numbers,
    ),
    "imagenet-a": Layout(
        "imagenet-a/ with 200 folders named by WordNet numbers (n01498041)",
        ("imagenet-a", ""),
        7_500,
        class_folders=200,
        class_of=_known_wordnet_number,
    ),
    "imagenet-r": Layout(
        "imagenet-r/ with 200 folders named by WordNet numbers (n01443537)",
        ("imagenet-r", ""),
        30_000,
        class_folders=200,
        class_of=_known_wordnet_number,
    ),
    "imagenet-sketch": Layout(
        "sketch/ with 1,000 folders named by WordNet numbers (n01440764)",
        ("sketch", ""),
        50_889,
        class_folders=1000,
        class_of=_known_wordnet_number,
        class_names=imagenet_wordnet_numbers,
    ),
    "objectnet": Layout(
        "objectnet-1.0/images/ with 313 folders named by objects (air_freshener)",
        ("objectnet-1.0/images", "images", ""),
        50_273,
        class_folders=313,
        border=2,  # The red frame that marks the set's images.
    ),
}


@dataclasses.dataclass(frozen=True)
class PublishedSet(ListedSource):
    """The images of one of ImageNet's test sets, from its unpacked download.

    ImageNet-V2, Sketch, ReaL and the validation set get the 1,000 classes in the usual
    order, A and R their 200 and ObjectNet its 313; `label_maps` has the maps from
    these to a model's classes. ReaL's images have several labels or none.

    Args:
        name: Key of `LAYOUTS`.
        path: The folder into which the download was unpacked.

    Raises:
        FileNotFoundError: The folder or the file of labels does not exist.
        ValueError: The name is unknown, or the folder has another layout.
    """

    name: str
    path: str

    def __post_init__(self) -> None:
        check_known("name", self.name, LAYOUTS)
        if not epath.Path(self.path).is_dir():
            raise FileNotFoundError(
                f"{self.path} is not a folder. {self.name} expects "
                f"{self._layout.expected}."
            )

    @property
    def _layout(self) -> Layout:
        return LAYOUTS[self.name]

    def _list(self) -> Listing:
        root = self._find_images()
        layout = self._layout
        if layout.labels:
            listing = self._list_files(root, layout.labels(epath.Path(self.path)))
        else:
            listing = self._list_class_folders(root)
        if len(listing.entries) != layout.images:
            _logger.warning(
                "%s has %d images; the published set has %d.",
                root,
                len(listing.entries),
                layout.images,
            )
        return listing

    def _find_images(self) -> epath.Path:
        folders = [epath.Path(self.path) / name for name in self._layout.folders]
        return next(folder for folder in folders if folder.is_dir())

    def _wrong_layout(self, root: epath.Path, problem: str) -> ValueError:
        return ValueError(
            f"{root} is not the layout of {self.name}: {problem}. Expected in "
            f"{self.path}: {self._layout.expected}."
        )

    def _list_class_folders(self, root: epath.Path) -> Listing:
        layout = self._layout
        try:
            listing = Folder(str(root)).listing
        except (FileNotFoundError, ValueError) as error:
            raise self._wrong_layout(root, str(error).rstrip(".")) from error
        found = {name: layout.class_of(name) for name in listing.class_names}
        unknown = [name for name, meaning in found.items() if meaning is None]
        if unknown or len(found) != layout.class_folders:
            first = f", among them {list_some([*map(repr, unknown)])}" * bool(unknown)
            raise self._wrong_layout(root, f"it has {len(found)} folders{first}")
        names = {name: meaning for name, meaning in found.items() if meaning}
        listing.entries = EntryTable(
            dataclasses.replace(entry, labels=(names[entry.labels[0]],))
            for entry in listing.entries
        )
        if layout.class_names:
            listing.class_names = layout.class_names()
        return listing

    def _list_files(self, root: epath.Path, labels: Labels) -> Listing:
        listing = Listing(class_names=imagenet_wordnet_numbers())
        for path, size, reason in scan_folder(str(root)):
            name = epath.Path(path).name
            match = _VALIDATION_IMAGE.fullmatch(name)
            number = int(match[1]) if match else 0
            if 1 <= number <= len(labels):
                listing.use(Entry(name, labels[number - 1], path, size))
            else:
                listing.skip(name, reason or file_rules.NOT_AN_IMAGE)
        if not listing.entries:
            raise self._wrong_layout(root, "it has no such file")
        return listing

    def read(self, entry: Entry) -> bytes:
        """Return the file's bytes; of ObjectNet, a PNG without the frame."""
        with io_files.open_file(entry.place) as file:
            content: bytes = file.read()
        return _cut_border(content, self._layout.border)


def _cut_border(encoded: bytes, border: int) -> bytes:
    from PIL import Image

    if not border:
        return encoded
    buffer: Any = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        box = (border, border, image.width - border, image.height - border)
        image.convert("RGB").crop(box).save(buffer, "PNG")
    content: bytes = buffer.getvalue()
    return content
