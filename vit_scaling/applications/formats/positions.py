"""The patches' size, and positions that old files keep for class tokens too."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.applications.formats.layout import square
from vit_scaling.applications.formats.source import Request, Source
from vit_scaling.modeling.shapes import ViTShape


def patch_shape(source: Source, kernel: str) -> tuple[int, ...]:
    """Return the four sizes of the patch embedding's kernel.

    Raises:
        ValueError: It is no convolution's.
    """
    shape = source.arrays[kernel].shape
    if len(shape) != 4:
        raise ValueError(
            f"Array {source.origin.get(kernel, kernel)!r} must be a convolution's, of "
            f"4 axes; it is of shape {shape}. Patches that come as rows of numbers "
            "(NaFlex) are not supported."
        )
    return shape


def fold_positions(
    source: Source, positions: str, prefix: list[str], patch: int, request: Request
) -> tuple[int, int]:
    """Move the positions of class and register tokens into the tokens themselves.

    `tokens + positions` is the same sum whether a token's position is kept apart or
    added once: cls += positions[:, :1] (as the authors' loader of old files does).

    Args:
        source: Changed in place.
        positions: Name of the position embedding, (1, slots + patches, width).
        prefix: Names of the tokens before the patches, in their order.
        patch: Side of a patch, to return pixels.
        request: Its `source_image_size` settles what is no square.

    Returns:
        The image's height and width in pixels that the positions are for.
    """
    embedding = source.arrays[positions]
    if embedding.ndim != 3 or embedding.shape[0] != 1:
        raise ValueError(
            f"Array {source.origin.get(positions, positions)!r} must be of shape (1, "
            f"positions, width); it is {embedding.shape}. Such positions (NaFlex, "
            "relative or rotary ones) are not supported."
        )
    before = sum(source.arrays[name].shape[1] for name in prefix)
    slots, size = _slots(embedding.shape[1], before, patch, request)
    start = 0
    for name in prefix if slots else ():
        token = source.arrays[name]
        own = embedding[:, start : start + token.shape[1]]
        start += token.shape[1]
        if own.any():  # Adding zeros would lose the sign of -0.0.
            source.arrays[name] = token + own
    source.arrays[positions] = embedding[:, slots:]
    return size


def _slots(
    length: int, before: int, patch: int, request: Request
) -> tuple[int, tuple[int, int]]:
    """Return how many positions are not patches', and the image's size in pixels."""
    if request.source_image_size is not None:
        rows, columns = ViTShape(patch, 1, 1, 1, 1).grid(request.source_image_size)
        if length - rows * columns in (0, before):
            return length - rows * columns, (rows * patch, columns * patch)
    fitting = [s for s in dict.fromkeys((before, 0)) if square(length - s)]
    if request.source_image_size is None and len(fitting) == 1:
        side = (square(length - fitting[0]) or 0) * patch
        return fitting[0], (side, side)
    raise ValueError(
        f"The file holds {length} positions for {before} tokens and patches of {patch} "
        "pixels, which does not fit `source_image_size`="
        f"{request.source_image_size}. Give the size of the images it is for, as side "
        "or (height, width)."
    )
