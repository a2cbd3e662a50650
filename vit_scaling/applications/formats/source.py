"""What a caller asks of a file of weights, and its arrays while they are sorted."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from collections.abc import Callable

from vit_scaling.applications.formats.layout import Arrays, variants_like
from vit_scaling.modeling.shapes import ViTShape, as_shape


@dataclasses.dataclass(frozen=True)
class Request:
    """What the caller knows about a file or wants of it; None: as the file says.

    Attributes:
        shape: Shape or its name ("B/16"); checked against the file.
        head: "token", "gap", "map" or "none". Other than the file's only where the
            file's arrays allow it: its pooling head can be left out.
        heads: Attention heads, where neither file nor shape's name tells.
        source_image_size: Pixels (side, or height and width) that the file's positions
            are for; needed where the patches are no square.
        approximate_gelu: GELU by tanh (True) or by erf (False).
        norm_epsilon: Epsilon of all norms.
        ignore: Regular expression of arrays that may be left out.
    """

    shape: str | ViTShape | None = None
    head: str | None = None
    heads: int | None = None
    source_image_size: int | tuple[int, int] | None = None
    approximate_gelu: bool | None = None
    norm_epsilon: float | None = None
    ignore: str | None = None


@dataclasses.dataclass
class Source:
    """A file's arrays under tidy names.

    Attributes:
        layout: Name of the layout.
        arrays: From tidy name to array.
        origin: From tidy name to the name in the file, where they differ.
        left_out: From names in the file to the reason why they are not used.
        assumed: What neither file nor caller says, and was taken to be so.
    """

    layout: str
    arrays: Arrays
    origin: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    assumed: list[str] = dataclasses.field(default_factory=list)

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Rename all arrays, remembering what each is called in the file."""
        renamed = {new_name(name): name for name in self.arrays}
        self.origin = {
            new: self.origin.get(old, old) for new, old in renamed.items()
        }  # fmt: skip
        self.arrays = {new: self.arrays[old] for new, old in renamed.items()}

    def leave_out(self, pattern: str, reason: str) -> None:
        """Take out the arrays whose whole name, tidy or original, matches."""
        for name in list(self.arrays):
            original = self.origin.get(name, name)
            if re.fullmatch(pattern, name) or re.fullmatch(pattern, original):
                del self.arrays[name]
                self.left_out[original] = reason

    def keep_only(self, prefix: str, reason: str) -> None:
        """Strip a prefix; what does not have it is left out with a reason."""
        if prefix:
            self.leave_out(f"(?!{re.escape(prefix)}).*", reason)
            self.rename(lambda name: name.removeprefix(prefix))


def attention_heads(
    source: Source, request: Request, told: int | None, sizes: tuple[int, int, int]
) -> int:
    """Return the heads that file, caller or a named shape tell; note the last.

    Args:
        source: Takes the note.
        request: Its `heads` and `shape` tell, too.
        told: What the file or its configuration says, or None.
        sizes: Width, depth and MLP width, to look the named shapes up.

    Raises:
        ValueError: Nobody tells, or `heads` contradicts another.
    """
    named = as_shape(request.shape).heads if request.shape else None
    check_heads(request, told, "the file or its config.json")
    check_heads(request, named, f"`shape` {request.shape!r}")
    if known := told or request.heads or named:
        return known
    width, depth, mlp_width = sizes
    for variant in variants_like(*sizes):
        heads = as_shape(variant).heads
        source.assumed.append(
            f"{heads} attention heads, as the named shape {variant!r} of the same "
            "sizes has. `heads` (--heads) says otherwise."
        )
        return heads
    raise ValueError(
        "The number of attention heads can't be read from this file, and no named "
        f"shape has width {width}, depth {depth}, MLP {mlp_width}. Give `heads` or "
        "`shape`, or put the publisher's config.json beside the file."
    )


def check_heads(request: Request, found: int | None, where: str) -> None:
    """Raise if the caller's heads are not those that are known from elsewhere."""
    if request.heads and found and request.heads != found:
        raise ValueError(
            f"`heads` (--heads) is {request.heads}, but {where} has {found}. Leave "
            "`heads` out: no comparison of outputs would show that it is wrong."
        )
