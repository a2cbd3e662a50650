"""Dimensions of Vision Transformers by name (Table 2 and the authors' code)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

from vit_scaling.argument_types import PositiveInt, check_fields
from vit_scaling.naming import did_you_mean


@dataclasses.dataclass(frozen=True)
class ViTShape:
    """The five dimensions of a Vision Transformer (Zhai et al. 2022, Table 2).

    Attributes:
        patch: Side of a square patch, in pixels.
        width: Width of a token.
        depth: Number of encoder blocks.
        mlp_width: Width of the hidden layer of each block's MLP.
        heads: Attention heads per block; divides `width`.

    Raises:
        ValueError: A number is not a positive integer, or `heads` does not divide
            `width`.
    """

    patch: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    mlp_width: PositiveInt
    heads: PositiveInt

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads:
            raise ValueError(
                "`width` must be a multiple of `heads`; received "
                f"width={self.width}, heads={self.heads}."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    def grid(self, image_size: int | tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of whole patches in an image.

        Partial patches at the lower and right edge are cropped, as by a convolution
        without padding: 384 pixels give 27 patches of 14.

        Args:
            image_size: Side in pixels, or (height, width).

        Raises:
            ValueError: A side is not an integer or is shorter than a patch.
        """
        sides = image_size
        if not isinstance(sides, tuple | list):
            sides = (sides, sides)
        if len(sides) != 2 or any(
            isinstance(side, bool) or not isinstance(side, int) for side in sides
        ):
            raise ValueError(
                "`image_size` must be an integer or (height, width), in pixels; "
                f"received {image_size!r}."
            )
        if min(sides) < self.patch:
            raise ValueError(
                f"`image_size` must be at least the patch, {self.patch} pixels; "
                f"received {image_size!r}. Use larger images or a smaller patch."
            )
        return sides[0] // self.patch, sides[1] // self.patch

    def tokens(self, image_size: int | tuple[int, int]) -> int:
        """Return the number of patches in an image, without a class token."""
        rows, columns = self.grid(image_size)
        return rows * columns


# fmt: off
SHAPES: dict[str, ViTShape] = {
    # Zhai et al. 2022, Table 2, in its order.
    "s/28": ViTShape(patch=28, width=256, depth=6, mlp_width=1024, heads=8),
    "s/16": ViTShape(patch=16, width=256, depth=6, mlp_width=1024, heads=8),
    "S/32": ViTShape(patch=32, width=384, depth=12, mlp_width=1536, heads=6),
    "Ti/16": ViTShape(patch=16, width=192, depth=12, mlp_width=768, heads=3),
    "B/32": ViTShape(patch=32, width=768, depth=12, mlp_width=3072, heads=12),
    "S/16": ViTShape(patch=16, width=384, depth=12, mlp_width=1536, heads=6),
    "B/28": ViTShape(patch=28, width=768, depth=12, mlp_width=3072, heads=12),
    "B/16": ViTShape(patch=16, width=768, depth=12, mlp_width=3072, heads=12),
    "L/16": ViTShape(patch=16, width=1024, depth=24, mlp_width=4096, heads=16),
    "g/14": ViTShape(patch=14, width=1408, depth=40, mlp_width=6144, heads=16),
    "G/14": ViTShape(patch=14, width=1664, depth=48, mlp_width=8192, heads=16),
    # The authors' code (big_vision/models/vit.py), whose default patch is 16.
    "mu/16": ViTShape(patch=16, width=32, depth=1, mlp_width=128, heads=2),
    "M/16": ViTShape(patch=16, width=512, depth=12, mlp_width=2048, heads=8),
    "So400m/16": ViTShape(patch=16, width=1152, depth=27, mlp_width=4304, heads=16),
    "H/16": ViTShape(patch=16, width=1280, depth=32, mlp_width=5120, heads=16),
    "g/16": ViTShape(patch=16, width=1408, depth=40, mlp_width=6144, heads=16),
    "g-opt/16": ViTShape(patch=16, width=1536, depth=40, mlp_width=6144, heads=16),
    "G/16": ViTShape(patch=16, width=1664, depth=48, mlp_width=8192, heads=16),
    "G-opt/16": ViTShape(patch=16, width=1536, depth=48, mlp_width=8192, heads=16),
    "e/16": ViTShape(patch=16, width=1792, depth=56, mlp_width=15360, heads=16),
}
# fmt: on

_VARIANTS = {name.partition("/")[0]: shape for name, shape in SHAPES.items()}


def shape_named(name: str) -> ViTShape:
    """Return the shape of a name such as "B/28", a variant and any patch size.

    Without a patch size, patches have 16 pixels. Names are case-sensitive: "s" and "S",
    "g" and "G" are different shapes.

    Example:
        >>> shape_named("B/28").tokens(224)
        64

    Raises:
        ValueError: No shape has this name; the message suggests the nearest one.
    """
    variant, slash, patch = str(name).partition("/")
    if variant in _VARIANTS and (patch.isdecimal() and int(patch) if slash else True):
        return dataclasses.replace(_VARIANTS[variant], patch=int(patch or 16))
    if variant in _VARIANTS:
        raise ValueError(
            f"The patch in a shape's name must be a positive integer, as in "
            f"'{variant}/16'; received {name!r}."
        )
    raise ValueError(
        f"No shape is called {name!r}.{did_you_mean(name, [*SHAPES, *_VARIANTS])} "
        f"Known: {', '.join(SHAPES)}, and each of these variants with any other patch "
        "size."
    )


def depth_of(shape: "str | ViTShape") -> int:
    """Return the number of encoder blocks of a shape or of its name.

    Example:
        >>> depth_of("B/16")
        12
    """
    return as_shape(shape).depth


def shape_name(shape: ViTShape) -> str | None:
    """Return the name of a shape, such as "B/28"; None if it has none.

    Example:
        >>> shape_name(shape_named("B/28"))
        'B/28'
    """
    names = (f"{variant}/{shape.patch}" for variant in _VARIANTS)
    return next((name for name in names if shape_named(name) == shape), None)


def as_shape(shape: str | ViTShape, depth: PositiveInt | None = None) -> ViTShape:
    """Return `shape`, looked up if it is a name, with `depth` blocks if given.

    A small depth serves to try a big shape.
    """
    shape = shape if isinstance(shape, ViTShape) else shape_named(shape)
    return shape if depth is None else dataclasses.replace(shape, depth=depth)
