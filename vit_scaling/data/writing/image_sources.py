"""From `folder:PATH`, `csv:FILE`, … on a command line to a list of images."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.data.examples import Features
from vit_scaling.data.key_hashes import read_key_hashes
from vit_scaling.data.subsets import select_subset
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.digits import Digits
from vit_scaling.data.writing.image_entries import EntrySource
from vit_scaling.data.writing.image_files import CsvFile, Folder, TarFiles
from vit_scaling.data.writing.record_images import RecordImages

FORMS = (
    "folder:PATH (a subfolder per class), csv:FILE (columns path, labels), tar:GLOB, "
    "tfds:NAME[:SPLIT], tfrecords:PATTERN, digits"
)
_STANDARD = Features()


def source_named(
    text: str,
    *,
    split: str,
    tfds_data_dir: str | None = None,
    fraction: float | None = None,
    num_images: int | None = None,
    features: Features = _STANDARD,
) -> EntrySource:
    """Return the images that a command line means.

    Args:
        text: One of the forms of `FORMS`.
        split: The split that is written; digits and TFDS take theirs from it.
        tfds_data_dir: TFDS' folder.
        fraction: Share of a finished set's records, nested (tfds and tfrecords).
        num_images: Number of its records, nested.
        features: Keys of the records of tfrecords:.

    Raises:
        ValueError: The form is unknown, or has no use for an argument.
    """
    kind, _, rest = text.partition(":")
    if features != _STANDARD and kind != "tfrecords":
        raise ValueError(
            "`features` (--image_key, --label_key, --key, --label_offset) are keys of "
            f"records to write anew, of tfrecords:; received source {text!r}."
        )
    if kind in ("tfds", "tfrecords") and rest:
        return _records(
            kind, rest, split, tfds_data_dir, fraction, num_images, features
        )
    if fraction is not None or num_images is not None:
        raise ValueError(
            "`fraction` and `num_images` take a subset of a finished set "
            f"(tfds: or tfrecords:); received source {text!r}."
        )
    if text == "digits":
        return Digits(split)
    if rest and kind in _PLAIN:
        return _PLAIN[kind](rest)
    raise ValueError(f"`source` must be one of {FORMS}; received {text!r}.")


_PLAIN = {"folder": Folder, "csv": CsvFile, "tar": TarFiles}


def _records(
    kind: str,
    rest: str,
    split: str,
    data_dir: str | None,
    fraction: float | None,
    num_images: int | None,
    features: Features,
) -> RecordImages:
    source: TFDS | TFRecords
    if kind == "tfds":
        name, _, part = rest.partition(":")
        source = TFDS(name, part or split, data_dir)
    else:
        source = TFRecords(rest, features)
    if fraction is None and num_images is None:
        return RecordImages(source)
    hashes = read_key_hashes(source.index(), source.features)
    chosen = select_subset(hashes, fraction=fraction, num_images=num_images)
    return RecordImages(source, tuple(chosen.tolist()))
