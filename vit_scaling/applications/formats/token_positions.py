"""Positions of class and register tokens, which some sources keep for each token."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence

from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.modeling.shapes import ViTShape

POSITIONS = "position_embedding/embedding"
TOKENS = CLASS_TOKEN, REGISTERS = "class_token/token", "register_tokens/tokens"


def fold_token_positions(
    source: SourceArrays,
    patch: int,
    image_size: int | tuple[int, int] | None,
    tokens: Sequence[str] = TOKENS,
) -> tuple[int, int]:
    """Add the positions of class and register tokens to the tokens themselves.

    `tokens + positions` is the same sum whether a token's position is stored separately
    or added once: token += positions[:, :1] (as the authors' loader of old files does).

    Args:
        source: Arrays under our paths; changed in place. The positions are of shape
            (1, token slots + patches, width).
        patch: Side of a patch in pixels.
        image_size: Pixels that the positions are for; None assumes a square.
        tokens: Those of `TOKENS` that may have positions.

    Returns:
        Height and width in pixels of the images that the positions are for.

    Raises:
        ValueError: The positions are of another rank, or their number does not fit.
    """
    embedding = source.arrays[POSITIONS]
    if embedding.ndim != 3 or embedding.shape[0] != 1:
        raise ValueError(
            f"Array {source.name_in_file(POSITIONS)!r} must be of shape (1, positions, "
            f"width); received {embedding.shape}. Other kinds of positions (NaFlex, "
            "relative, rotary) are not supported."
        )
    tokens = [name for name in tokens if name in source.arrays]
    token_count = sum(source.arrays[name].shape[1] for name in tokens)
    slots, size = _token_slots(embedding.shape[1], token_count, patch, image_size)
    if image_size is None:
        source.assumed.append(
            f"images of {size[0]} x {size[1]} pixels, a square, for the positions. Set "
            "`source_image_size` (--source_image_size=HEIGHTxWIDTH) if they are for "
            "another."
        )
    start = 0
    for name in tokens if slots else ():
        token = source.arrays[name]
        position = embedding[:, start : start + token.shape[1]]
        start += token.shape[1]
        if position.any():  # Adding zeros would lose the sign of -0.0.
            source.arrays[name] = token + position
    if slots > start:
        source.left_out["the first position"] = "the file has no class token"
    source.arrays[POSITIONS] = embedding[:, slots:]
    return size


def _token_slots(
    length: int, tokens: int, patch: int, image_size: int | tuple[int, int] | None
) -> tuple[int, tuple[int, int]]:
    """Return the number of positions that are not patches', and the size in pixels."""
    possible = [tokens, 0] if tokens else [0, 1]  # 1: a class token was left out.
    if image_size is not None:
        rows, columns = ViTShape(patch, 1, 1, 1, 1).grid(image_size)
        if length - rows * columns in possible:
            sides = image_size if isinstance(image_size, tuple) else (image_size,) * 2
            return length - rows * columns, sides  # Parts of patches are cropped.
    fitting = [slots for slots in possible if _square_side(length - slots)]
    if image_size is None and len(fitting) == 1:
        side = _square_side(length - fitting[0]) * patch
        return fitting[0], (side, side)
    raise ValueError(
        f"The file's {length} positions, for {tokens} tokens and patches of {patch} "
        f"pixels, do not fit `source_image_size`={image_size}. Give the size of the "
        "images that they are for, as side or (height, width)."
    )


def _square_side(count: int) -> int:
    """Return the side of a square of `count` patches, or 0."""
    side = math.isqrt(max(count, 0))
    return side if side * side == count else 0
