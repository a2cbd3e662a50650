"""What every format of weights provides: the fields of a row of the registry."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vit_scaling.applications.formats.numpy_reference import NumpyReference
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.array_files import Arrays


@dataclasses.dataclass(frozen=True)
class ExportedWeights:
    """Weights in another project's layout.

    Attributes:
        arrays: Arrays under the other project's names.
        load_with: Python that loads the file; "{path}" stands for its quoted path.
        arguments: Arguments of the other project's model class, if it needs any.
    """

    arrays: Arrays
    load_with: str
    arguments: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class WeightsFormat:
    """How the files of one project are recognised, read, written and checked.

    Attributes:
        layouts: Values of `ViTWeights.layout` that `read` gives.
        description: The files, for error messages.
        prefixes: Prefixes of array names behind which the model may be, in order.
        markers: Names of arrays; every file has one of them behind its prefix.
        read: From (arrays, options, the publisher's config.json or {}) to weights.
        reference: The forward pass of the project's model; None if it is our model.
        write: To the project's layout, if this package can write it.
        suffix: Suffix of the files that `write` is for.
    """

    layouts: tuple[str, ...]
    description: str
    markers: tuple[str, ...]
    read: Callable[[Arrays, ReadOptions, Mapping[str, Any]], ViTWeights]
    prefixes: tuple[str, ...] = ("",)
    reference: type[NumpyReference] | None = None
    write: Callable[[ViTWeights], ExportedWeights] | None = None
    suffix: str = ""

    def find_prefix(self, names: Collection[str]) -> str | None:
        """Return the prefix of the model's array names, or None for another format."""
        for prefix in self.prefixes:
            if any(prefix + marker in names for marker in self.markers):
                return prefix
        return None
