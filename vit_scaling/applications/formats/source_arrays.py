"""A source file's arrays while they are renamed, with the names that the file gave."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from collections.abc import Callable, Iterable

from vit_scaling.array_files import Arrays


@dataclasses.dataclass
class SourceArrays:
    """A file's arrays under their current names.

    Attributes:
        layout: Name of the layout.
        arrays: From current name to array.
        origin: From current name to the name in the file, where they differ.
        left_out: From names in the file to the reason why they are not used.
        assumed: Facts that neither the file nor the caller states.
    """

    layout: str
    arrays: Arrays
    origin: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    assumed: list[str] = dataclasses.field(default_factory=list)

    def name_in_file(self, name: str) -> str:
        """Return the name in the file of the array that is now called `name`."""
        return self.origin.get(name, name)

    def rename(
        self, pattern: str, replacement: str | Callable[[re.Match[str]], str]
    ) -> None:
        """Replace a regular expression in all names, as `re.sub` does."""
        renamed = {re.sub(pattern, replacement, name): name for name in self.arrays}
        self.origin = {new: self.name_in_file(old) for new, old in renamed.items()}
        self.arrays = {new: self.arrays[old] for new, old in renamed.items()}

    def leave_out(self, pattern: str, reason: str) -> None:
        """Remove the arrays whose whole name, current or in the file, matches."""
        for name in list(self.arrays):
            original = self.name_in_file(name)
            if re.fullmatch(pattern, name) or re.fullmatch(pattern, original):
                del self.arrays[name]
                self.left_out[original] = reason

    def leave_out_ignored(self, pattern: str | None) -> None:
        """Remove the arrays that the caller asked to ignore."""
        if pattern:
            self.leave_out(pattern, "ignored, as requested")

    def keep_prefix(self, prefix: str) -> None:
        """Strip the prefix of the image model; leave out arrays that lack it."""
        if prefix:
            pattern = f"(?!{re.escape(prefix)}).*"
            self.leave_out(pattern, f"not part of the image model ({prefix!r})")
            self.rename(f"^{re.escape(prefix)}", "")


def count_blocks(names: Iterable[str], template: str) -> int:
    """Return the number of encoder blocks among array names.

    Args:
        names: Names of all arrays.
        template: Name of a block's array, "{block}" in place of its number.

    Raises:
        ValueError: No block is found, or a number in between is missing.
    """
    before, _, after = template.partition("{block}")
    pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(after[:1]))
    numbers = {int(match[1]) for name in names if (match := pattern.match(name))}
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError(
            "The file must contain encoder blocks 0, 1, 2 … without a gap; found "
            f"{sorted(numbers)}. It is incomplete or is not a Vision Transformer."
        )
    return len(numbers)
