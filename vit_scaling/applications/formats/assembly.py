"""From a source's arrays under tidy names to `ViTWeights`; none gets lost."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_scaling.applications.formats.checks import (
    check_asked_shape,
    check_complete,
    fill_zeros,
    refuse_rest,
)
from vit_scaling.applications.formats.layout import Row, ViTWeights, rows_for, to_ours
from vit_scaling.applications.formats.source import Request, Source
from vit_scaling.modeling.shapes import ViTShape

# What a layout that does not say otherwise means: the authors' model.
DEFAULTS = {
    "position": "learned",
    "classes": None,
    "representation_width": None,
    "approximate_gelu": True,
    "norm_epsilon": 1e-6,
    "layer_scale": None,
    "qk_norm": False,
    "register_tokens": 0,
    "norm_after_pooling": False,
}
HEADS = {
    "map": "MAP head",
    "token": "class token",
    "gap": "average of tokens",
    "none": "tokens",
}
CLASSIFIERS = {"head/kernel": "classes", "pre_logits/kernel": "representation_width"}


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
    head = _take_head(source, arguments, request)
    arguments = {**DEFAULTS, **arguments, "head": head}
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
    check_asked_shape(variables, names, arguments, request)
    filled = fill_zeros(variables, arguments)
    check_complete(variables, names, arguments)
    refuse_rest(source, set(became))
    used: dict[str, list[str]] = {}  # Stacked blocks are of one array.
    for name, paths in became.items():
        used.setdefault(source.origin.get(name, name), []).extend(paths)
    return ViTWeights(
        layout=source.layout,
        arguments=arguments,
        variables=variables,
        used={name: ", ".join(paths) for name, paths in used.items()},
        left_out=source.left_out,
        filled=filled,
        assumed=tuple(source.assumed),
    )


def reassemble(weights: ViTWeights, request: Request) -> ViTWeights:
    """Return weights that are under our names already, as the caller wants them.

    Raises:
        ValueError: The weights are not of the shape or head asked for.
    """
    tidy = {"class_token/token": "cls", "register_tokens/tokens": "register"}
    source = Source(
        weights.layout,
        {},
        left_out=dict(weights.left_out),
        assumed=list(weights.assumed),
    )
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
    """Return the head, taking a file's MAP head out where another is asked for.

    Raises:
        ValueError: The arrays do not make that head, or the file's classifier was
            trained on another.
    """
    found, asked = arguments["head"], request.head or arguments["head"]
    allowed = {
        "map": ("gap", "none"),
        "token": ("gap", "none"),
        "gap": ("none",),
        "none": ("gap",),  # An average needs no arrays.
    }
    if asked != found and asked not in allowed.get(found, ()):
        raise ValueError(
            f"`head` is {asked!r}, but the file holds the arrays of a {found!r} head. "
            f"Take {' or '.join(map(repr, (found, *allowed.get(found, ()))))}."
        )
    if asked != found and (
        arguments.get("classes") or arguments.get("representation_width")
    ):
        hugging_face = source.layout.startswith("huggingface")
        layers = "(classifier|pooler)" if hugging_face else "(head|pre_logits)"
        raise ValueError(
            f"`head` is {asked!r}, but the file's classifier was trained on its "
            f"{HEADS[found]}. Take head={found!r}, or ignore='{layers}.*' to leave it "
            "out."
        )
    if found == "map" and asked != "map":
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
