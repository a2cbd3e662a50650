"""From a source's arrays under tidy names to `ViTWeights`, with every array accounted."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vit_scaling.applications.formats.layout import (
    Arrays,
    Row,
    ViTWeights,
    expected_variables,
    rows_for,
    square,
    to_ours,
    variants_like,
)
from vit_scaling.modeling.shapes import ViTShape, as_shape

# Projections that some models have without a bias: the same as a bias of zero.
MAY_BE_ZERO = re.compile(
    r"patch_embedding/bias|(block_\d+|map_head)/attention/(query|key|value)/bias"
)

CLASSIFIERS = {"head/kernel": "classes", "pre_logits/kernel": "representation_width"}


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

    def attention_heads(self, width: int, depth: int, mlp_width: int) -> int:
        """Return the heads that the shape's numbers or the caller name.

        Raises:
            ValueError: Neither does.
        """
        if self.heads or self.shape:
            return self.heads or as_shape(self.shape or "").heads
        for variant in variants_like(width, depth, mlp_width):
            return as_shape(variant).heads
        raise ValueError(
            "The number of attention heads can't be read from this file, and no named "
            f"shape has width {width}, depth {depth}, MLP {mlp_width}. Give `heads` or "
            "`shape`, or put the publisher's config.json beside the file."
        )


@dataclasses.dataclass
class Source:
    """A file's arrays under tidy names.

    Attributes:
        layout: Name of the layout.
        arrays: From tidy name to array.
        origin: From tidy name to the name in the file, where they differ.
        left_out: From names in the file to the reason why they are not used.
    """

    layout: str
    arrays: Arrays
    origin: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

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


def assemble(
    source: Source, table: Iterable[Row], arguments: dict[str, Any], request: Request
) -> ViTWeights:
    """Return the weights under our names, or say what does not fit.

    Args:
        source: Arrays under the table's names.
        table: The layout's rows.
        arguments: What the file says of `vit`'s arguments, `shape` and `head` included.
        request: What the caller says.

    Raises:
        ValueError: An array is missing, of another shape than asked for, or stands for
            nothing that this package's model has.
    """
    arguments = {**arguments, "head": _take_head(source, arguments, request)}
    if arguments["head"] != "token":
        _class_token_to_register(source)
    for key in ("approximate_gelu", "norm_epsilon"):
        if getattr(request, key) is not None:
            arguments[key] = getattr(request, key)
    if "register" in source.arrays:
        arguments["register_tokens"] = source.arrays["register"].shape[1]
    shape: ViTShape = arguments["shape"]
    rows = [*rows_for(table, shape.depth), Row("register", "register_tokens/tokens")]
    variables, became = to_ours(rows, source.arrays, shape.heads)
    names = {
        path: source.origin.get(name, name)
        for name, paths in became.items()
        for path in paths
    }
    _check_asked_shape(variables, names, arguments, request)
    filled = _fill_zeros(variables, arguments)
    _check_complete(variables, names, arguments)
    _refuse_rest(source, set(became))
    used = {source.origin.get(name, name): ", ".join(became[name]) for name in became}
    return ViTWeights(
        source.layout, arguments, variables, used, source.left_out, filled
    )  # fmt: skip


def reassemble(weights: ViTWeights, request: Request) -> ViTWeights:
    """Return weights that are under our names already, as the caller wants them.

    Raises:
        ValueError: The weights are not of the shape or head asked for.
    """
    tidy = {"class_token/token": "cls", "register_tokens/tokens": "register"}
    source = Source(weights.layout, {}, left_out=dict(weights.left_out))
    for path, value in weights.variables.items():
        name = tidy.get(path, path.replace("map_head/", "map/"))
        source.arrays[name] = value
        source.origin[name] = path
    if request.ignore:
        source.leave_out(request.ignore, "ignored, as asked")
    arguments = dict(weights.arguments)
    for path, argument in CLASSIFIERS.items():
        if path not in source.arrays:
            arguments[argument] = None
    table = [Row(name, _path_of(name)) for name in source.arrays if name != "register"]
    return assemble(source, table, arguments, request)


def _path_of(name: str) -> str:
    """Return the variable path of a tidy name of ours."""
    return "class_token/token" if name == "cls" else name.replace("map/", "map_head/")


def _take_head(source: Source, arguments: dict[str, Any], request: Request) -> str:
    """Return the head, taking a file's MAP head out where another is asked for."""
    found, asked = arguments["head"], request.head or arguments["head"]
    allowed = {"map": ("gap", "none"), "token": ("gap", "none"), "gap": ("none",)}
    if asked != found and asked not in allowed.get(found, ()):
        raise ValueError(
            f"`head` is {asked!r}, but the file holds the arrays of a {found!r} head. "
            f"Take {' or '.join(map(repr, (found, *allowed.get(found, ()))))}."
        )
    if found == "map" and asked != "map":
        if arguments.get("classes"):
            raise ValueError(
                f"`head` is {asked!r}, but the file's classifier was trained on its MAP "
                "head. Take head='map', or ignore='head.*' to leave the classifier out."
            )
        source.leave_out("map/.*", f"the head asked for is {asked!r}")
    return asked


def _class_token_to_register(source: Source) -> None:
    """Make a class token that no head reads what it is: one more register."""
    if "cls" not in source.arrays:
        return
    tokens = [source.arrays.pop("cls")]
    names = [source.origin.get("cls", "cls")]
    if "register" in source.arrays:
        tokens.append(source.arrays["register"])
        names.append(source.origin.get("register", "register"))
    source.arrays["register"] = np.concatenate(tokens, axis=1)
    source.origin["register"] = ", ".join(names)


def _check_asked_shape(
    variables: Arrays,
    names: dict[str, str],
    arguments: dict[str, Any],
    request: Request,
) -> None:
    """Compare each array with what the asked shape needs; name one that differs."""
    found: ViTShape = arguments["shape"]
    asked = found if request.shape is None else as_shape(request.shape)
    if asked == found:
        return
    fits = variants_like(found.width, found.depth, found.mlp_width)
    needed = expected_variables({**arguments, "shape": asked, "image_size": 1024})
    needed.pop("position_embedding/embedding", None)
    where = f"it has {found.depth} blocks, {asked.depth} are asked for"
    for path, shape in needed.items():
        if path in variables and variables[path].shape != shape:
            where = (
                f"array {names[path]!r} makes {path!r} of shape "
                f"{variables[path].shape}, where {shape} is needed"
            )
            break
    raise ValueError(
        f"The file is not of `shape` {request.shape!r}: {where}. It holds {found}; "
        "named variants that fit: "
        + (", ".join(f"{variant}/{found.patch}" for variant in fits) or "none")
        + "."
    )


def _fill_zeros(variables: Arrays, arguments: dict[str, Any]) -> tuple[str, ...]:
    """Add the biases that no block of the file has; they are zero by definition."""
    filled = []
    present = {re.sub(r"block_\d+", "block", path) for path in variables}
    for path, shape in expected_variables(arguments).items():
        kind = re.sub(r"block_\d+", "block", path)
        if kind not in present and MAY_BE_ZERO.fullmatch(path):
            variables[path] = np.zeros(shape, np.float32)
            filled.append(path)
    return tuple(filled)


def _check_complete(
    variables: Arrays, names: dict[str, str], arguments: dict[str, Any]
) -> None:
    expected = expected_variables(arguments)
    missing = [path for path in expected if path not in variables]
    if missing:
        raise ValueError(
            f"The file lacks {len(missing)} of {len(expected)} variables: "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}. It is "
            "incomplete, or its head is another than "
            f"{arguments['head']!r}."
        )
    for path, shape in expected.items():
        if variables[path].shape != shape:
            raise ValueError(
                f"Array {names.get(path, path)!r} makes {path!r} of shape "
                f"{variables[path].shape}, where the file's other arrays need {shape} "
                f"({arguments['shape']})."
            )


def _refuse_rest(source: Source, used: set[str]) -> None:
    """Refuse arrays that nothing of ours stands for."""
    names = [source.origin.get(n, n) for n in source.arrays if n not in used]
    if names:
        raise ValueError(
            f"{len(names)} arrays stand for nothing in this package's ViT, so its "
            f"outputs would differ: {', '.join(names[:6])}"
            f"{' …' if len(names) > 6 else ''}. Leave them out with `ignore` (a "
            "regular expression) if you know that they do not matter."
        )
