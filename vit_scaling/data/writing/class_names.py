"""Class names of a set: its first split defines them, later splits follow."""
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import unicodedata
from collections.abc import Iterable, Sequence

from etils import epath

from vit_scaling.data.tfrecords import CLASSES_FILE, read_class_names
from vit_scaling.data.writing.image_entries import Entry, EntrySource
from vit_scaling.io_files import write_text
from vit_scaling.naming import list_some

_logger = logging.getLogger(__name__)


def assign_class_names(
    source: EntrySource, entries: Iterable[Entry], output_dir: str, split: str
) -> tuple[str, ...]:
    """Return the class names of the set; the first split writes its own.

    Args:
        source: The source of the split.
        entries: The split's images.
        output_dir: Folder of the set, with or without classes.txt.
        split: Name of the split, for messages.

    Raises:
        ValueError: The split has a class that is not in classes.txt.
    """
    path = os.path.join(output_dir, CLASSES_FILE)
    own_names = source.class_names()
    _warn_of_similar(own_names)
    if not epath.Path(path).exists():
        write_class_names(path, own_names)
        return own_names
    names = read_class_names(path)
    unknown = sorted(set(own_names) - set(names))
    if unknown:
        raise ValueError(
            f"Split {split!r} has classes that are not in {path}: "
            f"{', '.join(map(repr, unknown[:5]))} ({len(unknown)} in all). Class "
            "indices come from the split written first, the training split; remove "
            "these classes, or write all splits into a new folder, training first."
        )
    present = {name for entry in entries for name in entry.labels}
    missing = [name for name in names if name not in present]
    if missing:
        _logger.warning(
            "Split %r has no image of %d of the %d classes (%s); the others keep the "
            "indices of %s.",
            split,
            len(missing),
            len(names),
            ", ".join(missing[:5]),
            path,
        )
    return names


def _warn_of_similar(names: Sequence[str]) -> None:
    """Warn of names that look alike: other case, spaces, or Unicode normal form."""
    alike: dict[str, list[str]] = {}
    for name in names:
        text = unicodedata.normalize("NFKC", name).casefold()
        alike.setdefault(" ".join(text.split()), []).append(name)
    pairs = [repr(group) for group in alike.values() if len(group) > 1]
    if pairs:
        _logger.warning(
            "Classes have names that differ only in case, spaces or the form of "
            "accents: %s. They are different classes; rename them to be one.",
            list_some(pairs),
        )


def write_class_names(path: str, names: tuple[str, ...]) -> None:
    """Write class names, one per line.

    Raises:
        ValueError: A name is empty or has several lines.
    """
    bad = [name for name in names if not name.strip() or "\n" in name]
    if bad:
        raise ValueError(f"Class names must be one line of text; received {bad[0]!r}.")
    write_text(path, "".join(f"{name}\n" for name in names))
