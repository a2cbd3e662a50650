"""Parse `folder:PATH`, `csv:FILE`, … of a command line into a source of images."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.data.examples import Features
from vit_scaling.data.key_hashes import read_key_hashes
from vit_scaling.data.sources import Source
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
_DEFAULT_FEATURES = Features()
_FILE_SOURCES = {"folder": Folder, "csv": CsvFile, "tar": TarFiles}


def parse_source(
    text: str,
    *,
    split: str,
    tfds_data_dir: str | None = None,
    fraction: float | None = None,
    num_images: int | None = None,
    features: Features = _DEFAULT_FEATURES,
) -> EntrySource:
    """Return the source of images that a text names.

    Args:
        text: One of the forms of `FORMS`.
        split: The split to write; also the split of digits and, by default, of TFDS.
        tfds_data_dir: TFDS' folder.
        fraction: Fraction of an existing set's records (tfds and tfrecords); subsets
            are nested.
        num_images: The same as a number of records.
        features: Keys of the records of tfrecords:.

    Raises:
        ValueError: The form is unknown, or an argument does not apply to it.
    """
    kind, _, rest = text.partition(":")
    is_subset = fraction is not None or num_images is not None
    if features != _DEFAULT_FEATURES and kind != "tfrecords":
        raise ValueError(
            "`features` (--image_key, --label_key, --key, --label_offset) are keys of "
            f"existing records, of tfrecords:; received source {text!r}."
        )
    if kind in ("tfds", "tfrecords") and rest:
        records = _parse_records(kind, rest, split, tfds_data_dir, features)
        if not is_subset:
            return RecordImages(records)
        hashes = read_key_hashes(records.index(), records.features)
        selected = select_subset(hashes, fraction=fraction, num_images=num_images)
        return RecordImages(records, tuple(selected.tolist()))
    if is_subset:
        raise ValueError(
            "`fraction` and `num_images` take a subset of a finished set "
            f"(tfds: or tfrecords:); received source {text!r}."
        )
    if text == "digits":
        return Digits(split)
    if rest and kind in _FILE_SOURCES:
        return _FILE_SOURCES[kind](rest)
    raise ValueError(f"`source` must be one of {FORMS}; received {text!r}.")


def _parse_records(
    kind: str, rest: str, split: str, data_dir: str | None, features: Features
) -> Source:
    if kind == "tfrecords":
        return TFRecords(rest, features)
    name, _, tfds_split = rest.partition(":")
    return TFDS(name, tfds_split or split, data_dir)
