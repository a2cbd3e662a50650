"""What must hold of a file's arrays before a model is made of them."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats.layout import (
    Arrays,
    expected_variables,
    variants_like,
)
from vit_scaling.applications.formats.source import Request, Source
from vit_scaling.modeling.shapes import ViTShape, as_shape

# Projections that some models have without a bias: the same as a bias of zero.
MAY_BE_ZERO = re.compile(
    r"patch_embedding/bias|(block_\d+|map_head)/attention/(query|key|value)/bias"
)


def check_asked_shape(
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


def fill_zeros(variables: Arrays, arguments: dict[str, Any]) -> tuple[str, ...]:
    """Add the biases that no block of the file has; they are zero by definition."""
    filled = []
    present = {re.sub(r"block_\d+", "block", path) for path in variables}
    for path, shape in expected_variables(arguments).items():
        kind = re.sub(r"block_\d+", "block", path)
        if kind not in present and MAY_BE_ZERO.fullmatch(path):
            variables[path] = np.zeros(shape, np.float32)
            filled.append(path)
    return tuple(filled)


def check_complete(
    variables: Arrays, names: dict[str, str], arguments: dict[str, Any]
) -> None:
    """Raise unless every variable is there and of the shape that the others need."""
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


def check_functions(arguments: Mapping[str, Any], target: str) -> None:
    """Raise unless GELU and epsilon are the authors': no array can carry them."""
    tanh = arguments.get("approximate_gelu", True)
    epsilon = arguments.get("norm_epsilon", 1e-6)
    if not tanh or epsilon != 1e-6:
        raise ValueError(
            f"{target} computes GELU by tanh and norms with epsilon 1e-6; this model "
            f"has GELU by {'tanh' if tanh else 'erf'} and epsilon {epsilon:g}, so its "
            "outputs would differ there. Write timm's layout (.safetensors), or, if "
            "the difference does not matter, read the source with "
            "approximate_gelu=True, norm_epsilon=1e-6 (--gelu=tanh "
            "--norm_epsilon=1e-6)."
        )


def refuse_rest(source: Source, used: set[str]) -> None:
    """Refuse arrays that nothing of ours stands for."""
    names = [source.origin.get(n, n) for n in source.arrays if n not in used]
    if names:
        raise ValueError(
            f"{len(names)} arrays stand for nothing in this package's ViT, so its "
            f"outputs would differ: {', '.join(names[:6])}"
            f"{' …' if len(names) > 6 else ''}. Leave them out with `ignore` (a "
            "regular expression) if you know that they do not matter."
        )
