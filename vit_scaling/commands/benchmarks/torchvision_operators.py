"""Define the operators that timm asks of torchvision; imported by the torch workers.

A torchvision that was built for another torch fails to import without them.
"""
# SPDX-License-Identifier: Apache-2.0

import sys
from typing import Any

_LIBRARIES: list[Any] = []  # The operators exist as long as their library.


def define_missing_operators(torch: Any) -> None:
    """Define torchvision's operators if its own import fails."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        sys.modules.pop("torchvision", None)
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
        _LIBRARIES.append(library)
