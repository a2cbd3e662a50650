"""Read an object's configuration off its constructor: nothing is listed twice."""
# SPDX-License-Identifier: Apache-2.0

import inspect
from typing import Any


def constructor_config(instance: Any) -> dict[str, Any]:
    """Return the constructor's arguments, each read from the attribute of its name.

    Optimizers and schedules keep every constructor argument as an attribute of the same
    name; this is their whole `get_config`, and a new subclass need not write one.
    """
    names = list(inspect.signature(type(instance).__init__).parameters)[1:]
    return {name: as_plain(getattr(instance, name)) for name in names}


def as_plain(value: Any) -> Any:
    """Return `value` with its sequences as tuples (JSON brings them back as lists)."""
    if isinstance(value, list | tuple):
        return tuple(as_plain(item) for item in value)
    return value
