"""Configurations of dataclasses, in the form that Keras saves and loads."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any, Self


class DataclassConfig:
    """Adds `get_config` and `from_config` to a dataclass: its fields by name."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the object of a configuration."""
        return cls(**config)
