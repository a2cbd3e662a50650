"""Keys of a publisher's configuration: an unknown one may change the computation."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

from vit_scaling.naming import list_some


def check_keys(config: Mapping[str, Any], known: frozenset[str], name: str) -> None:
    """Raise ValueError on a key that is neither read nor known to have no effect.

    Args:
        config: The configuration, or a part of it.
        known: Keys that are read, that the arrays show, or that change no output.
        name: The configuration's name, for the message.
    """
    unknown = [
        f"{key}={value!r}"
        for key, value in config.items()
        if key not in known and not key.startswith("_")
    ]
    if unknown:
        raise ValueError(
            f"{name} has {list_some(unknown)}, which this package does not know: the "
            "outputs could differ. Remove what does not change them from the file."
        )
