"""A folder or table of images as sets of cached TFRecords, to train and evaluate on."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import hashlib
import io
import json
import os
import statistics
from collections.abc import Callable

from etils import epath
from PIL import Image

from vit_scaling.data.writing.image_entries import EntrySource
from vit_scaling.data.writing.image_files import CsvFile, Folder
from vit_scaling.data.writing.split_writer import Progress, write_tfrecords
from vit_scaling.io_files import absolute_path

TRAIN, EVALUATION = "train", ("val", "validation", "valid", "test")
CACHE_VARIABLE = "VIT_SCALING_CACHE"
_SAMPLED = 64  # Images whose size is looked at.


@dataclasses.dataclass(frozen=True)
class FolderSets:
    """Written sets, and what settings can be derived from.

    Attributes:
        train_pattern: Glob of the training images' shards.
        eval_pattern: Glob of the evaluation images' shards. None: the folder has no
            evaluation images.
        eval_name: Name of the subfolder with the evaluation images, if there is one.
        classes: Number of classes.
        train_images: Number of training images.
        median_side: Median of the smaller sides of some images, in pixels.
    """

    train_pattern: str
    eval_pattern: str | None
    eval_name: str | None
    classes: int
    train_images: int
    median_side: int


def default_cache() -> epath.Path:
    """Return the folder of caches: $VIT_SCALING_CACHE, or ~/.cache/vit_scaling."""
    given = os.environ.get(CACHE_VARIABLE)
    return epath.Path(given or "~/.cache/vit_scaling").expanduser()


def write_folder(
    folder: str,
    *,
    cache: epath.PathLike | None = None,
    progress: Callable[[str], Progress | None] = lambda split: None,
) -> FolderSets:
    """Write the images of a folder or a CSV file into cached TFRecords, once.

    A cache is used again as long as names, labels and sizes of the images stay the
    same. An interrupted call continues where it stopped.

    Args:
        folder: `train/CLASS/*` with an optional `val/CLASS/*` or `test/CLASS/*`, or
            `CLASS/*`; or a file FILE.csv with the columns `path` and `labels`.
        cache: Folder of caches; None is `default_cache()`.
        progress: From the name of a split to a function of images done and in all.

    Raises:
        FileNotFoundError: Nothing has this name, or the folder has no class.
        ValueError: There are no images, evaluation has a class without training images,
            the folder has TFRecords, or an image of a CSV file has not one label.
    """
    root = epath.Path(folder)
    if not root.exists():
        raise FileNotFoundError(
            "`folder` must be an existing folder of images or CSV file; received "
            f"{folder!r}."
        )
    sources = _find_sources(root)
    eval_name = next((name for name in sources if name != TRAIN), None)
    output = epath.Path(cache or default_cache()) / _cache_name(root, sources)
    manifests = {
        split: write_tfrecords(
            source, output_dir=str(output), split=split, progress=progress(split)
        )
        for split, source in sources.items()
    }
    if not manifests[TRAIN]["records"]:
        named = manifests[TRAIN]["left_out_named"][0]
        raise ValueError(
            f"`folder` must have images that can be read; received {folder!r}, of "
            f"which all {manifests[TRAIN]['left_out']} are left out, the first "
            f"({named['key']}: {named['reason']})."
        )
    return FolderSets(
        train_pattern=str(output / f"{TRAIN}-*.tfrecord"),
        eval_pattern=str(output / f"{eval_name}-*.tfrecord") if eval_name else None,
        eval_name=eval_name,
        classes=len(manifests[TRAIN]["class_counts"]),
        train_images=manifests[TRAIN]["records"],
        median_side=_median_side(sources[TRAIN]),
    )


def _find_sources(root: epath.Path) -> dict[str, EntrySource]:
    """Return the images of each split, training first."""
    if root.suffix.lower() == ".csv":
        table = CsvFile(str(root))
        for entry in table.entries():
            if len(entry.labels) != 1:
                raise ValueError(
                    f"Every image of {root} must have one label; {entry.key!r} has "
                    f"{len(entry.labels)}. For several labels write TFRecords "
                    "(vit-scaling data write) and train with LOSS = "
                    "@sigmoid_cross_entropy."
                )
        return {TRAIN: table}
    if next(root.glob("*.tfrecord"), None):
        raise ValueError(
            f"{root} has TFRecords, no images. Name the images that they were written "
            "from, or train without --data: --gin_file=EXPERIMENT "
            f"--gin_param=\"TRAIN_PATTERN = '{root}/train-*'\"."
        )
    has_splits = (root / TRAIN).is_dir()
    sources: dict[str, EntrySource] = {
        TRAIN: Folder(str(root / TRAIN if has_splits else root))
    }
    for name in EVALUATION if has_splits else ():
        if (root / name).is_dir():
            return sources | {name: Folder(str(root / name))}
    return sources


def _cache_name(root: epath.Path, sources: dict[str, EntrySource]) -> str:
    """Return a name that changes with the images' names, labels and sizes."""
    content = {
        split: sorted((e.key, e.size_bytes, e.labels) for e in source.entries())
        for split, source in sources.items()
    }
    path = absolute_path(root)
    text = json.dumps([path, content])
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{os.path.basename(path)}-{digest}"


def _median_side(source: EntrySource) -> int:
    entries = source.entries()
    sides = []
    for entry in entries[:: max(1, len(entries) // _SAMPLED)]:
        try:
            with Image.open(io.BytesIO(source.read(entry))) as image:
                sides.append(min(image.size))
        except (OSError, Image.DecompressionBombError):
            continue  # The writer has left it out.
    return round(statistics.median(sides or [1]))
