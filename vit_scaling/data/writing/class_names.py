"""Class names of a set: the training split makes them, the others follow."""
# SPDX-License-Identifier: Apache-2.0

import logging
import os
from collections.abc import Sequence

from vit_scaling.data.tfrecords import CLASSES_FILE, read_class_names
from vit_scaling.data.writing.image_entries import Entry, EntrySource

_logger = logging.getLogger(__name__)


def class_names(
    source: EntrySource, entries: Sequence[Entry], output_dir: str, split: str
) -> tuple[str, ...]:
    """Return the class names of the set; its first split makes them.

    Args:
        source: Where a split comes from.
        entries: The split's images.
        output_dir: Folder of the set, with classes.txt or to get it.
        split: Name of the split, for messages.

    Raises:
        ValueError: The split has a class that classes.txt does not know.
    """
    path = os.path.join(output_dir, CLASSES_FILE)
    mine = source.class_names()
    if not os.path.exists(path):
        write_class_names(path, mine)
        return mine
    known = read_class_names(path)
    unknown = sorted(set(mine) - set(known))
    if unknown:
        raise ValueError(
            f"Split {split!r} has classes that {path} does not know: "
            f"{', '.join(map(repr, unknown[:5]))} ({len(unknown)} in all). Class "
            "indices come from the split written first, the training split; remove "
            "these classes, or write all splits into a new folder, training first."
        )
    present = {name for entry in entries for name in entry.labels}
    missing = [name for name in known if name not in present]
    if missing:
        _logger.warning(
            "Split %r has no image of %d of the %d classes (%s); the others keep the "
            "indices of %s.",
            split,
            len(missing),
            len(known),
            ", ".join(missing[:5]),
            path,
        )
    return known


def write_class_names(path: str, names: tuple[str, ...]) -> None:
    """Write names one a line.

    Raises:
        ValueError: A name is empty or has several lines.
    """
    bad = [name for name in names if not name.strip() or "\n" in name]
    if bad:
        raise ValueError(f"Class names must be one line of text; received {bad[0]!r}.")
    part = path + ".part"
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)
    os.replace(part, path)
