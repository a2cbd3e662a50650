"""Base of the layers that are made of parts, whose freezing is saved with them."""
# SPDX-License-Identifier: Apache-2.0

import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras

Shape = tuple[Any, ...]  # Integers, or None where a size is not known yet.


class CompositeLayer(keras.layers.Layer):
    """A layer of parts that `build` creates by `add_part`.

    Keras stores in a layer's config whether the layer itself is trained, and knows
    nothing of the layers inside it. Here the config names the parts that are not
    trained too, so freezing survives saving, `clone_model` and `from_config`.

    A subclass keeps every argument of its constructor as an attribute of that name.

    Args:
        frozen: Paths of parts that are not trained, such as ("attention/query",).
    """

    def __init__(self, *, frozen: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = tuple(frozen)
        self._parts: list[str] = []

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the parts that are frozen now."""
        constructor = self.__init__  # type: ignore[misc]
        names = [n for n in inspect.signature(constructor).parameters if n != "kwargs"]
        config = {**super().get_config(), **{n: getattr(self, n) for n in names}}
        frozen = list(self.frozen_parts())
        return {**config, "frozen": frozen} if frozen else config

    def add_part(self, part: keras.layers.Layer, input_shape: Shape = ()) -> None:
        """Build a part and keep it as the attribute that its name says."""
        setattr(self, part.name, part)
        self._parts.append(part.name)
        part.build(input_shape)
        for path in self.frozen:
            first, *others = path.split("/")
            if first == part.name:
                functools.reduce(getattr, others, part).trainable = False
        if not self.trainable:
            part.trainable = False

    def frozen_parts(self) -> Iterator[str]:
        """Yield the path of each part that is not trained."""
        if not self.built:
            yield from self.frozen
        for name in self._parts:
            part = getattr(self, name)
            if not part.trainable:
                yield name
            elif isinstance(part, CompositeLayer):
                yield from (f"{name}/{path}" for path in part.frozen_parts())
